//! Entropy-coded data: the stuffing taken out, and read bit by bit.

/// The data of a scan without its stuffed zeros and markers.
#[derive(Debug)]
pub(super) struct Data {
    bytes: Vec<u8>,
    /// Where the intervals between restart markers end.
    ends: Vec<usize>,
}

/// Bytes behind the data, so that reading ahead needs no test.
const MARGIN: usize = 8;

impl Data {
    /// Takes the data up to the end of the image or of the file; `None` for markers in another place or order.
    #[inline(always)]
    pub(super) fn new(mut raw: &[u8]) -> Option<Self> {
        let mut bytes = Vec::with_capacity(raw.len() + MARGIN);
        let mut ends = Vec::new();
        'all: loop {
            // Most of it has no byte that means anything.
            while let Some((chunk, rest)) = raw.split_first_chunk::<32>() {
                if chunk.iter().fold(false, |found, byte| found | (*byte == 0xff)) {
                    break;
                }
                bytes.extend_from_slice(chunk);
                raw = rest;
            }
            let Some(at) = raw.iter().position(|byte| *byte == 0xff) else {
                bytes.extend_from_slice(raw);
                break;
            };
            bytes.extend_from_slice(&raw[..at]);
            match raw.get(at + 1)? {
                0 => bytes.push(0xff),
                marker @ 0xd0..=0xd7 if usize::from(marker & 7) == ends.len() % 8 => ends.push(bytes.len()),
                0xd9 => break 'all,
                _ => return None,
            }
            raw = &raw[at + 2..];
        }
        ends.push(bytes.len());
        bytes.extend_from_slice(&[0; MARGIN]);
        Some(Self { bytes, ends })
    }

    /// How many intervals there are.
    pub(super) fn intervals(&self) -> usize {
        self.ends.len()
    }

    /// A reader at the start of an interval.
    pub(super) fn interval(&self, index: usize) -> Option<Bits<'_>> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        let len = self.ends.get(index)? - start;
        Some(Bits { data: self.bytes.get(start..)?, at: 0, buffer: 0, count: 0, len })
    }
}

/// Reads bits, the highest of a byte first.
///
/// Behind the end of its interval it reads whatever is there, and zeros behind that: whoever reads looks at
/// [`Bits::left`] from time to time.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bit is the highest one.
    buffer: u64,
    count: u32,
    len: usize,
}

impl<'a> Bits<'a> {
    /// Reads data that ends with the margin.
    #[cfg(test)]
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, len: data.len() - MARGIN }
    }

    /// Makes at least 32 bits ready.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            let next = self.data.get(self.at..).and_then(<[u8]>::first_chunk).copied();
            // Bits beyond the count are there already; the same ones come again.
            self.buffer |= u64::from_be_bytes(next.unwrap_or_default()) >> self.count;
            self.at += ((63 - self.count) >> 3) as usize;
            self.count |= 56;
        }
    }

    /// The next `N` bits.
    #[inline(always)]
    pub(super) fn peek<const N: u32>(&self) -> usize {
        (self.buffer >> (64 - N)) as usize
    }

    /// The next 32 bits.
    #[inline(always)]
    pub(super) fn window(&self) -> u32 {
        (self.buffer >> 32) as u32
    }

    /// Goes on by at most 32 bits.
    #[inline(always)]
    pub(super) fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// How many bits of the interval are left; `None` if more were read than there are.
    #[inline(always)]
    pub(super) fn left(&self) -> Option<usize> {
        (8 * self.len).checked_sub(8 * self.at - self.count as usize)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_in_order() {
        let data: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        let with_margin = [&data[..], &[0; MARGIN]].concat();
        let mut bits = Bits::new(&with_margin);
        let mut at = 0;
        for step in (1..14).cycle() {
            if at + step > 8 * data.len() {
                break;
            }
            bits.refill();
            for bit in at..at + step {
                let want = data[bit / 8] >> (7 - bit % 8) & 1;
                assert_eq!(bits.window() >> (31 - (bit - at)) & 1, u32::from(want), "bit {bit}");
            }
            bits.consume(step as u32);
            at += step;
            assert_eq!(bits.left(), Some(8 * data.len() - at));
        }
        bits.refill();
        bits.consume(20);
        assert_eq!(bits.left(), None);
    }

    #[test]
    fn stuffing_and_markers() {
        let long = [7; 50];
        let raw = [&[1, 0xff, 0][..], &long, &[0xff, 0xd0, 2, 0xff, 0xd1, 0xff, 0xd9, 9]].concat();
        let data = Data::new(&raw).unwrap();
        assert_eq!(data.ends, [52, 53, 53]);
        assert_eq!(data.bytes[..3], [1, 0xff, 7]);
        assert_eq!(data.interval(1).unwrap().left(), Some(8));
        assert!(data.interval(3).is_none());
        for wrong in [&[1, 0xff, 0xd1][..], &[1, 0xff], &[0xff, 0xff, 0], &[0xff, 0xda, 1]] {
            assert!(Data::new(wrong).is_none(), "{wrong:?}");
        }
    }
}
