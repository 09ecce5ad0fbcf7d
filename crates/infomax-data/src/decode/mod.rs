//! JPEG and PNG to 8-bit RGB, whole or in part.

mod jpeg;
mod png;

use crate::dataset::Part;
use infomax_augment::{CropBox, Image};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Baseline and progressive JPEG: gray, YCbCr, RGB, CMYK and YCCK.
    Jpeg,
    /// PNG of every bit depth and color type.
    Png,
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
    let known: [(&[u8], &str); 4] =
        [(b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF")];
    let name = known.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    let name =
        name.or_else(|| (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")).then_some("WebP"));
    Err(match name {
        Some(name) => format!("a {name} file; convert it to JPEG or PNG"),
        None => "neither a JPEG nor a PNG file".into(),
    })
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
