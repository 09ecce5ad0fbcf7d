//! JPEG, PNG and, with the feature `formats`, WebP, GIF, BMP and TIFF to 8-bit RGB, whole or in part.

mod exif;
#[cfg(feature = "formats")]
mod formats;
mod jpeg;
mod png;

pub(crate) use exif::{UPRIGHT, orientation, turn};

use crate::dataset::Part;
use infomax_augment::{CropBox, Image};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Baseline and progressive JPEG: gray, YCbCr, RGB, CMYK and YCCK.
    Jpeg,
    /// PNG of every bit depth and color type.
    Png,
    /// WebP, of an animation the first frame (feature `formats`).
    WebP,
    /// GIF, the first frame (feature `formats`).
    Gif,
    /// BMP (feature `formats`).
    Bmp,
    /// TIFF, the first page (feature `formats`).
    Tiff,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: Format,
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
}

/// What is refused before memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of pixels of an image.
    pub max_pixels: usize,
}

impl Default for Limits {
    /// 100 million pixels, a little above Pillow's warning.
    fn default() -> Self {
        Self { max_pixels: 100_000_000 }
    }
}

/// Finds format and size without decoding. The reason of a failure is given in words.
pub fn probe(bytes: &[u8], limits: Limits) -> Result<Header, String> {
    guarded(|| {
        let format = format_of(bytes)?;
        let (width, height) = match format {
            Format::Jpeg => jpeg::size(bytes)?,
            Format::Png => png::size(bytes)?,
            #[cfg(feature = "formats")]
            other => formats::size(bytes, other, limits)?,
            #[cfg(not(feature = "formats"))]
            other => return Err(not_built(other)),
        };
        check_size(width, height, limits)?;
        Ok(Header { format, width, height })
    })
}

/// Decodes an image to 8-bit RGB. Gray is repeated, 16 bits are reduced to the upper 8, an alpha channel is
/// dropped (as Pillow's `convert("RGB")` does), CMYK is converted as `(1 - C) (1 - K)`. JPEG pixels are those
/// of libjpeg-turbo, which Pillow uses. The reason of a failure is given in words.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Image, String> {
    let header = probe(bytes, limits)?;
    let all = CropBox { x: 0, y: 0, width: header.width, height: header.height };
    Ok(decode_known(bytes, limits, header, all)?.image)
}

/// Decodes a part of an image: the `wanted` pixels are those of [`decode`], bit for bit.
///
/// What lies outside is not computed where the format allows: of a JPEG file, blocks of pixels outside are
/// skipped after their entropy code; of a PNG file, the rows below. The part may be larger than what is
/// wanted; pixels of it outside of the wanted box have no defined value.
pub fn decode_part(bytes: &[u8], limits: Limits, wanted: CropBox) -> Result<Part, String> {
    let header = probe(bytes, limits)?;
    let inside = |start: usize, len: usize, limit: usize| {
        len > 0 && start.checked_add(len).is_some_and(|end| end <= limit)
    };
    if !inside(wanted.x, wanted.width, header.width) || !inside(wanted.y, wanted.height, header.height) {
        return Err(format!(
            "{wanted:?} is empty or reaches beyond {}x{} pixels",
            header.width, header.height
        ));
    }
    decode_known(bytes, limits, header, wanted)
}

fn decode_known(bytes: &[u8], limits: Limits, header: Header, wanted: CropBox) -> Result<Part, String> {
    guarded(|| match header.format {
        Format::Jpeg => jpeg::decode(bytes, limits, (header.width, header.height), wanted),
        Format::Png => png::decode(bytes, limits, wanted),
        #[cfg(feature = "formats")]
        other => Ok(Part { image: formats::decode(bytes, other, limits)?, x: 0, y: 0 }),
        #[cfg(not(feature = "formats"))]
        other => Err(not_built(other)),
    })
}

fn format_of(bytes: &[u8]) -> Result<Format, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    let at = |from: usize, text: &[u8]| bytes.get(from..from + text.len()) == Some(text);
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return Ok(Format::WebP);
    }
    if at(0, b"GIF8") {
        return Ok(Format::Gif);
    }
    if at(0, b"II*\0") || at(0, b"MM\0*") {
        return Ok(Format::Tiff);
    }
    if at(0, b"BM") {
        return Ok(Format::Bmp);
    }
    let brand = bytes.get(8..12).filter(|_| at(4, b"ftyp"));
    let name = match brand {
        Some(b"avif" | b"avis") => Some("an AVIF"),
        Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => Some("a HEIC"),
        Some(_) => Some("a video or HEIF"),
        None if at(0, b"\0\0\0\x0cjP  ") || at(0, b"\xff\x4f\xff\x51") => Some("a JPEG 2000"),
        None if at(0, b"\0\0\0\x0cJXL ") || at(0, b"\xff\x0a") => Some("a JPEG XL"),
        None if at(0, b"<svg") || at(0, b"<?xml") => Some("an SVG"),
        None if bytes.first() == Some(&b'P') && matches!(bytes.get(1), Some(b'1'..=b'7')) => Some("a Netpbm"),
        None if at(0, b"8BPS") => Some("a Photoshop"),
        None if at(0, b"\x76\x2f\x31\x01") => Some("an OpenEXR"),
        None => None,
    };
    Err(match name {
        Some(name) => format!("{name} file, which is not read; convert it to JPEG or PNG"),
        None => "neither a JPEG nor a PNG file, nor WebP, GIF, BMP or TIFF".into(),
    })
}

/// What is said of formats that this build does not read.
#[cfg(not(feature = "formats"))]
fn not_built(format: Format) -> String {
    format!(
        "a {} file; convert it to JPEG or PNG, or build with the feature `formats`",
        format!("{format:?}").to_uppercase()
    )
}

fn check_size(width: usize, height: usize, limits: Limits) -> Result<(), String> {
    match width.checked_mul(height) {
        None | Some(0) => Err(format!("an impossible size of {width}x{height}")),
        Some(n) if n > limits.max_pixels => Err(format!(
            "{width}x{height} pixels are more than the limit of {} (max_pixels)",
            limits.max_pixels
        )),
        Some(_) => Ok(()),
    }
}

/// Turns a panic of a decoder on a damaged file into an error, so that one file cannot end a run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("damaged: the decoder gave up".into()))
}
