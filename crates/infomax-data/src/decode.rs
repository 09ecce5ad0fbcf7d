//! JPEG and PNG to 8-bit RGB.

use infomax_augment::Image;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Baseline and progressive JPEG: grey, YCbCr, RGB, CMYK and YCCK.
    Jpeg,
    /// PNG of every bit depth and colour type.
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
            Format::Jpeg => {
                let mut decoder = jpeg(bytes);
                decoder.decode_headers().map_err(|e| format!("damaged JPEG header: {e}"))?;
                decoder.dimensions().ok_or("JPEG without a size")?
            }
            Format::Png => {
                let mut decoder = png::Decoder::new(Cursor::new(bytes));
                let info = decoder.read_header_info().map_err(|e| format!("damaged PNG header: {e}"))?;
                (info.width as usize, info.height as usize)
            }
        };
        check_size(width, height, limits)?;
        Ok(Header { format, width, height })
    })
}

/// Decodes an image to 8-bit RGB. Grey is repeated, 16 bits are reduced to the upper 8, an alpha channel is
/// dropped (as Pillow's `convert("RGB")` does), CMYK is converted as `(1 - C) (1 - K)`. The reason of a
/// failure is given in words.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Image, String> {
    guarded(|| {
        let (width, height, data) = match format_of(bytes)? {
            Format::Jpeg => decode_jpeg(bytes, limits)?,
            Format::Png => decode_png(bytes, limits)?,
        };
        Image::new(width, height, 3, data).map_err(|e| e.to_string())
    })
}

type Pixels = (usize, usize, Vec<u8>);

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

fn jpeg(bytes: &[u8]) -> JpegDecoder<ZCursor<&[u8]>> {
    // The sizes are checked against the limits above; strict, so that a cut file is an error.
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

fn decode_jpeg(bytes: &[u8], limits: Limits) -> Result<Pixels, String> {
    let mut decoder = jpeg(bytes);
    decoder.decode_headers().map_err(|e| format!("damaged JPEG header: {e}"))?;
    let (width, height) = decoder.dimensions().ok_or("JPEG without a size")?;
    check_size(width, height, limits)?;
    let data = decoder.decode().map_err(|e| format!("damaged JPEG: {e}"))?;
    let grey = data.len() == width * height;
    let data = if grey { data.iter().flat_map(|v| [*v; 3]).collect() } else { data };
    Ok((width, height, data))
}

fn decode_png(bytes: &[u8], limits: Limits) -> Result<Pixels, String> {
    let damaged = |e: png::DecodingError| format!("damaged PNG: {e}");
    let budget = limits.max_pixels.saturating_mul(8).saturating_add(1 << 20);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: budget });
    let info = decoder.read_header_info().map_err(damaged)?;
    check_size(info.width as usize, info.height as usize, limits)?;
    // Palettes and few bits become 8 bits, 16 bits become their upper 8.
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let mut raw = vec![0; reader.output_buffer_size().ok_or("PNG too large for this machine")?];
    let frame = reader.next_frame(&mut raw).map_err(damaged)?;
    raw.truncate(frame.buffer_size());
    let data = match frame.color_type {
        png::ColorType::Rgb => raw,
        png::ColorType::Grayscale => raw.iter().flat_map(|v| [*v; 3]).collect(),
        png::ColorType::GrayscaleAlpha => raw.chunks_exact(2).flat_map(|v| [v[0]; 3]).collect(),
        png::ColorType::Rgba => raw.chunks_exact(4).flat_map(|v| [v[0], v[1], v[2]]).collect(),
        png::ColorType::Indexed => return Err("PNG palette could not be expanded".into()),
    };
    Ok((frame.width as usize, frame.height as usize, data))
}

/// Turns a panic of a decoder on a damaged file into an error, so that one file cannot end a run.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("damaged: the decoder gave up".into()))
}
