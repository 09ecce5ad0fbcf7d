//! The common kind of file, decoded where it is wanted.

use super::color::{self, Row};
use super::header::Header;
use super::scan::{self, Plane};
use crate::dataset::Part;
use infomax_augment::{CropBox, Image};
use infomax_simd::bytes::Simd;
use std::ops::Range;

/// Decodes the wanted box of an image of this size; `None` if the file is of another kind or not in order.
pub(super) fn decode(bytes: &[u8], size: (usize, usize), wanted: CropBox) -> Option<Part> {
    let header = Header::read(bytes)?;
    // Very narrow chroma is not interpolated.
    if size != (header.width, header.height) || (header.components.len() == 3 && header.width < 6) {
        return None;
    }
    let pixels = infomax_simd::bytes::dispatch(Decode { header: &header, bytes, wanted })?;
    let image = Image::new(wanted.width, wanted.height, 3, pixels).ok()?;
    Some(Part { image, x: wanted.x, y: wanted.y })
}

struct Decode<'a> {
    header: &'a Header,
    bytes: &'a [u8],
    wanted: CropBox,
}

impl infomax_simd::bytes::WithSimd for Decode<'_> {
    type Output = Option<Vec<u8>>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { header, bytes, wanted } = self;
        let (x, y) = (wanted.x..wanted.x + wanted.width, wanted.y..wanted.y + wanted.height);
        let first = header.components.first()?;
        let whole = (header.width, header.height);
        let chroma = (whole.0.div_ceil(first.h), whole.1.div_ceil(first.v));
        let mut planes = vec![Plane::new(x.clone(), y.clone())];
        for _ in &header.components[1..] {
            planes.push(Plane::new(seen(&x, first.h, chroma.0), seen(&y, first.v, chroma.1)));
        }
        scan::decode(simd, header, bytes.get(header.data..)?, &mut planes)?;
        Some(pixels(simd, &planes, (first.h, first.v), chroma, x, y))
    }
}

/// The chroma samples that pixels are made of: with half the resolution, also those beside.
fn seen(pixels: &Range<usize>, factor: usize, limit: usize) -> Range<usize> {
    match factor {
        1 => pixels.clone(),
        _ => (pixels.start / 2).saturating_sub(1)..((pixels.end - 1) / 2 + 2).min(limit),
    }
}

/// RGB out of the planes.
#[inline(always)]
fn pixels<S: Simd>(
    simd: S,
    planes: &[Plane],
    factors: (usize, usize),
    chroma: (usize, usize),
    x: Range<usize>,
    y: Range<usize>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * x.len() * y.len());
    let from = |plane: &Plane| x.start - plane.start();
    let [luma, blue, red] = planes else {
        for y in y {
            for plane in planes {
                let row = &plane.row(y)[from(plane)..][..x.len()];
                out.extend(row.iter().flat_map(|value| [*value; 3]));
            }
        }
        return out;
    };
    let first = x.start / 2;
    let columns = (x.end - 1) / 2 + 1 - first;
    let mut rows = [Row::new(columns), Row::new(columns)];
    for y in y {
        let bright = &luma.row(y)[from(luma)..][..x.len()];
        if factors.0 == 1 {
            let (blue, red) = (&blue.row(y)[from(blue)..], &red.row(y)[from(red)..]);
            color::append_rgb(simd, bright, blue, red, &mut out);
            continue;
        }
        for (plane, row) in [blue, red].into_iter().zip(&mut rows) {
            if factors.1 == 1 {
                row.take(plane.row(y), None, first, plane.start(), chroma.0 - 1);
                row.double::<2, 1, 2>();
            } else {
                let near = y / 2;
                let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(chroma.1 - 1) };
                row.take(plane.row(near), Some(plane.row(far)), first, plane.start(), chroma.0 - 1);
                row.double::<4, 8, 7>();
            }
        }
        let [blue, red] = &rows;
        let odd = x.start % 2;
        color::append_rgb(simd, bright, &blue.out[odd..], &red.out[odd..], &mut out);
    }
    out
}
