//! The scan: the codes of all blocks are read, and those that are wanted become pixels.

use super::bits::{Bits, Data};
use super::header::Header;
use super::huffman::{END, Table};
use super::idct::{self, Block, PLACES};
use infomax_simd::bytes::Simd;
use std::ops::Range;

/// The samples of a component, as far as they are wanted: whole blocks.
#[derive(Debug)]
pub(super) struct Plane {
    columns: Range<usize>,
    rows: Range<usize>,
    samples: Vec<u8>,
}

impl Plane {
    /// Room for the blocks that hold these samples.
    pub(super) fn new(x: Range<usize>, y: Range<usize>) -> Self {
        let blocks = |samples: Range<usize>| samples.start / 8..samples.end.div_ceil(8);
        let (columns, rows) = (blocks(x), blocks(y));
        let samples = vec![0; 64 * columns.len() * rows.len()];
        Self { columns, rows, samples }
    }

    /// The column of the first sample.
    pub(super) fn start(&self) -> usize {
        8 * self.columns.start
    }

    /// The samples of a row of the image.
    #[inline(always)]
    pub(super) fn row(&self, y: usize) -> &[u8] {
        let stride = 8 * self.columns.len();
        let at = (y - 8 * self.rows.start) * stride;
        &self.samples[at..at + stride]
    }

    #[inline(always)]
    fn put(&mut self, x: usize, y: usize, pixels: &[u8; 64]) {
        let stride = 8 * self.columns.len();
        let at = 8 * (y - self.rows.start) * stride + 8 * (x - self.columns.start);
        let rows = self.samples[at..].chunks_mut(stride);
        for (row, pixels) in rows.zip(pixels.as_chunks::<8>().0) {
            row[..8].copy_from_slice(pixels);
        }
    }
}

/// What is known about a component while it is decoded.
struct Coder<'a> {
    h: usize,
    v: usize,
    dc: &'a Table,
    ac: &'a Table,
    steps: [i32; 64],
    /// The last mean, from which the next one differs.
    mean: i32,
}

/// Decodes the wanted blocks of all components into their planes; `None` if anything is wrong with the data,
/// also where nothing is wanted of it.
#[inline(always)]
pub(super) fn decode<S: Simd>(simd: S, header: &Header, raw: &[u8], planes: &mut [Plane]) -> Option<()> {
    let data = Data::new(raw)?;
    let mut coders = Vec::with_capacity(3);
    for component in &header.components {
        let (dc, ac) = (header.dc.get(component.dc)?.as_ref()?, header.ac.get(component.ac)?.as_ref()?);
        let steps = header.steps(component)?;
        coders.push(Coder { h: component.h, v: component.v, dc, ac, steps, mean: 0 });
    }
    let (h, v) = (coders.first()?.h, coders.first()?.v);
    let (across, down) = (header.width.div_ceil(8 * h), header.height.div_ceil(8 * v));
    let intervals = match header.restart {
        0 => 1,
        restart => (across * down).div_ceil(restart),
    };
    if data.intervals() != intervals {
        return None;
    }
    let mut bits = data.interval(0)?;
    let (mut interval, mut until_restart) = (0, header.restart);
    let mut block = [0; 64];
    for y in 0..down {
        for x in 0..across {
            if until_restart == 0 && header.restart > 0 {
                // Between two intervals there is nothing but bits that fill the last byte.
                if bits.left()? > 7 {
                    return None;
                }
                interval += 1;
                bits = data.interval(interval)?;
                coders.iter_mut().for_each(|coder| coder.mean = 0);
                until_restart = header.restart;
            }
            until_restart = until_restart.wrapping_sub(1);
            for (coder, plane) in coders.iter_mut().zip(planes.iter_mut()) {
                for y in coder.v * y..coder.v * (y + 1) {
                    let wanted = plane.rows.contains(&y);
                    for x in coder.h * x..coder.h * (x + 1) {
                        if wanted && plane.columns.contains(&x) {
                            let (last, sum) = coder.read::<true>(&mut bits, &mut block)?;
                            plane.put(x, y, &idct::inverse(simd, &block, last, sum)?);
                        } else {
                            coder.read::<false>(&mut bits, &mut block)?;
                        }
                    }
                }
            }
        }
        bits.left()?;
    }
    Some(())
}

impl Coder<'_> {
    /// Reads the codes of a block, and gives the place of its last coefficient and the sum of all magnitudes.
    #[inline(always)]
    fn read<const KEEP: bool>(&mut self, bits: &mut Bits, block: &mut Block) -> Option<(usize, u32)> {
        bits.refill();
        let mut entry = self.dc.look(bits);
        if entry.step() > END {
            entry = self.dc.resolve(entry, bits)?;
        }
        bits.consume(entry.bits());
        self.mean += entry.value();
        if self.mean.unsigned_abs() >= 1 << 15 {
            return None;
        }
        let mut sum = 0;
        if KEEP {
            *block = [0; 64];
            let value = self.mean.saturating_mul(self.steps[0]);
            block[0] = value as i16;
            sum = value.unsigned_abs();
        }
        let (mut k, mut last) = (0, 0);
        while k < 63 {
            bits.refill();
            let mut entry = self.ac.look(bits);
            let mut next = k + entry.step();
            if next > 63 {
                if entry.step() > END {
                    entry = self.ac.resolve(entry, bits)?;
                    next = k + entry.step();
                }
                if entry.step() == END {
                    bits.consume(entry.bits());
                    break;
                }
                if next > 63 {
                    return None;
                }
            }
            bits.consume(entry.bits());
            k = next;
            if KEEP {
                let value = entry.value() * self.steps[k];
                block[usize::from(PLACES[k]) % 64] = value as i16;
                sum = sum.saturating_add(value.unsigned_abs());
                last = k;
            }
        }
        // Sums up to here mean that no value was cut to 16 bits.
        (sum < 1 << 15).then_some((last, sum))
    }
}
