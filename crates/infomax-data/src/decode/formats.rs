//! WebP, GIF, BMP and TIFF, by the crate `image`: the first frame, the first page.

use super::{Format, Limits, check_size};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use infomax_augment::Image;
use std::io::Cursor;

fn reader(bytes: &[u8], format: Format, limits: Limits) -> Option<ImageReader<Cursor<&[u8]>>> {
    let kind = match format {
        Format::WebP => ImageFormat::WebP,
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
        _ => return None,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    let mut most = image::Limits::default();
    most.max_alloc = Some((limits.max_pixels as u64).saturating_mul(16).saturating_add(1 << 20));
    reader.limits(most);
    Some(reader)
}

/// Width and height out of the header. These containers need the whole file.
pub(super) fn size(bytes: &[u8], format: Format, limits: Limits) -> Result<(usize, usize), String> {
    let reader = reader(bytes, format, limits).ok_or("a format that is not read")?;
    let decoder = reader.into_decoder().map_err(|e| format!("damaged {format:?} header: {e}"))?;
    let (width, height) = decoder.dimensions();
    Ok((width as usize, height as usize))
}

/// Decodes a whole image to 8-bit RGB as PNG is: alpha is dropped, 16 bits are reduced to the upper 8.
pub(super) fn decode(bytes: &[u8], format: Format, limits: Limits) -> Result<Image, String> {
    let damaged = |e: image::ImageError| format!("damaged {format:?}: {e}");
    let reader = reader(bytes, format, limits).ok_or("a format that is not read")?;
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, limits)?;
    let whole = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let high = |v: u16| (v >> 8) as u8;
    let data: Vec<u8> = match whole {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect()
        }
        other => {
            return Err(format!("{format:?} with pixels {:?}; convert it to 8 bits", other.color()));
        }
    };
    Image::new(width, height, 3, data).map_err(|e| e.to_string())
}
