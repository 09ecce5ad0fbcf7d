//! The orientation that EXIF data ask for.

use infomax_augment::Image;

/// The orientation of an image that is stored as it is shown.
pub(crate) const UPRIGHT: u8 = 1;

/// The orientation, 1 to 8, that the EXIF data in the first bytes of a JPEG, PNG or WebP file ask for; 1 without any.
/// (Exif 2.3, tag 0x0112.)
pub(crate) fn orientation(bytes: &[u8]) -> u8 {
    let block = if bytes.starts_with(&[0xff, 0xd8]) {
        in_jpeg(bytes)
    } else if bytes.starts_with(b"\x89PNG") {
        in_chunks(bytes, 8, b"eXIf", |b| u32::from_be_bytes(b) as usize, |at| (at, at + 4, at + 8), 4)
    } else if bytes.starts_with(b"RIFF") {
        in_chunks(bytes, 12, b"EXIF", |b| u32::from_le_bytes(b) as usize, |at| (at + 4, at, at + 8), 0)
    } else {
        None
    };
    let block = block.map(|b| b.strip_prefix(b"Exif\0\0").unwrap_or(b));
    block.and_then(tag).filter(|v| (1..=8).contains(v)).unwrap_or(UPRIGHT)
}

/// The APP1 segment of a JPEG file.
fn in_jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    loop {
        let [0xff, code, high, low] = *bytes.get(at..at + 4)? else { return None };
        let length = usize::from(high) << 8 | usize::from(low);
        let segment = bytes.get(at + 4..(at + 2 + length).min(bytes.len()))?;
        match code {
            0xe1 if segment.starts_with(b"Exif\0\0") => return Some(segment),
            0xda | 0xd9 => return None,
            _ => at += 2 + length,
        }
    }
}

/// A chunk of a PNG or WebP file: the places of its length, its name and its data from where it starts, and what
/// follows the data.
fn in_chunks<'a>(
    bytes: &'a [u8],
    from: usize,
    wanted: &[u8],
    number: impl Fn([u8; 4]) -> usize,
    places: impl Fn(usize) -> (usize, usize, usize),
    behind: usize,
) -> Option<&'a [u8]> {
    let mut at = from;
    loop {
        let (length, name, data) = places(at);
        let length = number(bytes.get(length..length + 4)?.try_into().ok()?);
        let end = data.checked_add(length)?;
        if bytes.get(name..name + 4)? == wanted {
            return bytes.get(data..end.min(bytes.len()));
        }
        // Chunks of WebP begin at even places.
        at = if behind == 0 { end + end % 2 } else { end + behind };
    }
}

/// The tag in the first directory of a TIFF block.
fn tag(block: &[u8]) -> Option<u8> {
    let little = block.starts_with(b"II*\0");
    if !little && !block.starts_with(b"MM\0*") {
        return None;
    }
    let number = |at: usize, n: usize| {
        let bytes = block.get(at..at.checked_add(n)?)?;
        let join = |v: usize, b: &u8| v << 8 | usize::from(*b);
        Some(if little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
    };
    let start = number(4, 4)?;
    (0..number(start, 2)?).map(|i| start + 2 + 12 * i).find_map(|at| {
        let found = number(at, 2)? == 0x0112;
        found.then(|| number(at + 8, 2)).flatten().and_then(|v| u8::try_from(v).ok())
    })
}

/// An image turned upright: 2 to 4 mirror or turn it by half, 5 to 8 swap its sides.
pub(crate) fn turn(image: Image, orientation: u8) -> Result<Image, String> {
    if orientation == UPRIGHT || orientation > 8 {
        return Ok(image);
    }
    let (w, h, c) = (image.width(), image.height(), image.channels());
    let (width, height) = if orientation >= 5 { (h, w) } else { (w, h) };
    let mut data = Vec::with_capacity(w * h * c);
    for y in 0..height {
        for x in 0..width {
            let (sx, sy) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            data.extend_from_slice(image.pixel(sx, sy).unwrap_or_default());
        }
    }
    Image::new(width, height, c, data).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The letter F-like image 2x3: a b / c d / e f as stored, for each orientation as the standard shows it.
    #[test]
    fn all_eight() {
        let image = || Image::new(2, 3, 1, b"abcdef".to_vec()).unwrap();
        for (orientation, want, width) in [
            (1, &b"abcdef"[..], 2),
            (2, b"badcfe", 2),
            (3, b"fedcba", 2),
            (4, b"efcdab", 2),
            (5, b"acebdf", 3),
            (6, b"ecafdb", 3),
            (7, b"fdbeca", 3),
            (8, b"bdface", 3),
        ] {
            let turned = turn(image(), orientation).unwrap();
            assert_eq!((turned.data(), turned.width()), (want, width), "{orientation}");
        }
    }

    #[test]
    fn the_tag_is_found_in_both_byte_orders() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        for (block, want) in [(&little[..], 6), (&big[..], 8)] {
            let app1 = [&b"Exif\0\0"[..], block].concat();
            let length = (app1.len() as u16 + 2).to_be_bytes();
            let jpeg = [&[0xff, 0xd8, 0xff, 0xe0, 0, 4, 0, 0, 0xff, 0xe1][..], &length, &app1].concat();
            assert_eq!(orientation(&jpeg), want);
            let chunk = [&(block.len() as u32).to_be_bytes()[..], b"eXIf", block].concat();
            assert_eq!(orientation(&[&b"\x89PNG\r\n\x1a\n"[..], &chunk].concat()), want);
            for cut in 0..jpeg.len() {
                orientation(&jpeg[..cut]);
            }
        }
        assert_eq!(orientation(b"no image"), UPRIGHT);
    }
}
