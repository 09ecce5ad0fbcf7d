//! JPEG files: the common kind by a decoder made for crops, every other one by a port of libjpeg-turbo.
//!
//! Both give the pixels of libjpeg-turbo, bit for bit. Ours (`baseline`) takes what nearly all files are:
//! one interleaved scan of 8-bit Huffman codes, gray or YCbCr with whole or half chroma. It computes
//! nothing but the wanted box, and gives up at the first sign of anything else, damage included; the
//! verdict on such a file is always the library's (`library`).

mod baseline;
mod bits;
mod color;
mod header;
mod huffman;
mod idct;
mod library;
mod scan;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Limits;
use crate::dataset::Part;
use infomax_augment::CropBox;

/// Width and height out of the frame header.
///
/// The markers before it are walked here, so that the first kilobytes of a file are enough, and no byte of
/// the scans is looked at.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    const CUT: &str = "damaged JPEG header: it ends before the size of the image";
    let mut at = 2;
    loop {
        // Any number of 0xff may stand before the code of a marker.
        while bytes.get(at).ok_or(CUT)? != &0xff {
            at += 1;
        }
        while bytes.get(at).ok_or(CUT)? == &0xff {
            at += 1;
        }
        let code = bytes[at];
        at += 1;
        match code {
            // Markers without a length.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            0xd9 | 0xda => return Err("damaged JPEG header: pixels before the size of the image".into()),
            _ => {}
        }
        let word = |at: usize| match bytes.get(at..at + 2) {
            Some(&[high, low]) => Ok(usize::from(high) << 8 | usize::from(low)),
            _ => Err(CUT),
        };
        let length = word(at)?;
        if length < 2 {
            return Err("damaged JPEG header: a marker without a length".into());
        }
        // Start of frame: all of 0xc0..=0xcf but the tables 0xc4, 0xc8 and 0xcc.
        if matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc) {
            let (height, width) = (word(at + 3)?, word(at + 5)?);
            return Ok((width, height));
        }
        at += length;
    }
}

/// Decodes the wanted box; the part may be larger, and pixels outside of the box have no defined value.
pub(super) fn decode(
    bytes: &[u8],
    limits: Limits,
    size: (usize, usize),
    wanted: CropBox,
) -> Result<Part, String> {
    match baseline::decode(bytes, size, wanted) {
        Some(part) => Ok(part),
        None => library::decode(bytes, limits, size, wanted),
    }
}
