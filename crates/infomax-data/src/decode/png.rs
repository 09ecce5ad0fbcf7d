//! PNG files.

use super::{Limits, check_size};
use crate::dataset::Part;
use infomax_augment::{CropBox, Image};
use png::{BitDepth, ColorType, Decoder, DecodingError, Transformations};
use std::io::Cursor;

fn damaged(error: DecodingError) -> String {
    format!("damaged PNG: {error}")
}

/// Width and height out of the header.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    let info = decoder.read_header_info().map_err(|e| format!("damaged PNG header: {e}"))?;
    Ok((info.width as usize, info.height as usize))
}

/// Decodes down to the last row that is wanted.
pub(super) fn decode(bytes: &[u8], limits: Limits, wanted: CropBox) -> Result<Part, String> {
    let budget = limits.max_pixels.saturating_mul(8).saturating_add(1 << 20);
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: budget });
    let info = decoder.read_header_info().map_err(damaged)?;
    let (width, height, interlaced) = (info.width as usize, info.height as usize, info.interlaced);
    check_size(width, height, limits)?;
    // Palettes and few bits become 8 bits, 16 bits become their upper 8.
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (color, depth) = reader.output_color_type();
    if depth != BitDepth::Eight || color == ColorType::Indexed {
        return Err(format!("a PNG of {color:?} could not be expanded to 8 bits"));
    }
    let whole = wanted.height == height && wanted.width == width;
    if interlaced || whole {
        let mut raw = vec![0; reader.output_buffer_size().ok_or("PNG too large for this machine")?];
        let frame = reader.next_frame(&mut raw).map_err(damaged)?;
        raw.truncate(frame.buffer_size());
        let image = Image::new(width, height, 3, rgb(color, raw)).map_err(|e| e.to_string())?;
        return Ok(Part { image, x: 0, y: 0 });
    }
    let samples = color.samples();
    let mut raw = Vec::with_capacity(wanted.width * wanted.height * samples);
    for y in 0..wanted.y + wanted.height {
        let row = reader.next_row().map_err(damaged)?.ok_or("damaged PNG: rows are missing")?;
        if y >= wanted.y {
            let columns = wanted.x * samples..(wanted.x + wanted.width) * samples;
            raw.extend_from_slice(row.data().get(columns).ok_or("damaged PNG: a short row")?);
        }
    }
    let image = Image::new(wanted.width, wanted.height, 3, rgb(color, raw)).map_err(|e| e.to_string())?;
    Ok(Part { image, x: wanted.x, y: wanted.y })
}

fn rgb(color: ColorType, raw: Vec<u8>) -> Vec<u8> {
    match color {
        ColorType::Grayscale => raw.iter().flat_map(|v| [*v; 3]).collect(),
        ColorType::GrayscaleAlpha => raw.chunks_exact(2).flat_map(|v| [v[0]; 3]).collect(),
        ColorType::Rgba => raw.chunks_exact(4).flat_map(|v| [v[0], v[1], v[2]]).collect(),
        ColorType::Rgb | ColorType::Indexed => raw,
    }
}
