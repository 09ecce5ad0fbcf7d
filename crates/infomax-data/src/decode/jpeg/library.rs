//! Every kind of JPEG file, by a port of libjpeg-turbo that gives the pixels of the original.

use crate::dataset::Part;
use crate::decode::Limits;
use infomax_augment::{CropBox, Image};
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, PixelFormat};

/// Decodes the wanted box, and a margin around it that is thrown away by whoever uses it.
pub(super) fn decode(
    bytes: &[u8],
    limits: Limits,
    (width, height): (usize, usize),
    wanted: CropBox,
) -> Result<Part, String> {
    let damaged = |e: libjpeg_turbo_rs::JpegError| format!("damaged JPEG: {e}");
    let budget =
        DecodeLimits { max_pixels: limits.max_pixels as u64, max_scans: 200, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, budget).map_err(damaged)?;
    let frame = decoder.header();
    if frame.dimensions() != (width, height) {
        return Err(format!("damaged JPEG: two sizes, {width}x{height} and {:?}", frame.dimensions()));
    }
    let sampling = frame.components.iter();
    let most = sampling.map(|c| c.horizontal_sampling.max(c.vertical_sampling)).max().unwrap_or(1);
    let ink = frame.components.len() == 4;
    // RGB is asked for where the decoder has a conversion to it.
    let gray = decoder.jpeg_color_space() == ColorSpace::Grayscale;
    decoder.set_output_format(if gray { PixelFormat::Grayscale } else { PixelFormat::Rgb });
    // Chroma is interpolated across the borders of blocks, and otherwise in very narrow images: one block more
    // on each side makes what is inside independent of where the part ends.
    let block = 8 * usize::from(most);
    let mut x = wanted.x.saturating_sub(block) / block * block;
    let mut y = wanted.y.saturating_sub(block) / block * block;
    let mut right = (wanted.x + wanted.width + block).min(width);
    let mut bottom = (wanted.y + wanted.height + block).min(height);
    // Four inks have no partial path.
    if ink {
        (x, y, right, bottom) = (0, 0, width, height);
    }
    if (x, y, right, bottom) != (0, 0, width, height) {
        // The merged path interpolates differently; the whole image does not take it either.
        decoder.set_merged_upsample(false);
        decoder.set_crop_region(x, y, right - x, bottom - y);
    }
    let image = decoder.decode_image().map_err(damaged)?;
    let (w, h) = (image.width, image.height);
    if image.precision != 8 || (w, h) != (right - x, bottom - y) {
        return Err(format!("a JPEG of {} bits, {w}x{h}: this kind is not supported", image.precision));
    }
    let data = match image.pixel_format {
        PixelFormat::Grayscale => image.data.iter().flat_map(|v| [*v; 3]).collect(),
        _ => image.data,
    };
    let image = Image::new(w, h, 3, data).map_err(|e| e.to_string())?;
    Ok(Part { image, x, y })
}
