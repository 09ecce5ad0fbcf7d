//! Images of 8 bits per channel.

use crate::{Error, Result};

/// The most channels of an image.
pub(crate) const MAX_CHANNELS: usize = 256;

/// An image of `u8`, rows of pixels of interleaved channels (`HWC`): 1 (gray), 3 (RGB), 4 (RGB and one
/// more), or any number of bands up to 256 (multispectral).
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    data: Vec<u8>,
}

impl Image {
    /// Wraps pixels in the order rows, columns, channels.
    ///
    /// # Errors
    /// An empty image, more than 256 channels, or data of another length than `width * height * channels`.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Result<Self> {
        let bytes = data.len();
        let wrong = |reason| Err(Error::Image { width, height, channels, bytes, reason });
        if channels == 0 || channels > MAX_CHANNELS {
            return wrong("an image has 1 to 256 channels");
        }
        if width == 0 || height == 0 {
            return wrong("an image needs at least one pixel");
        }
        match width.checked_mul(height).and_then(|n| n.checked_mul(channels)) {
            Some(n) if n == bytes => Ok(Self { width, height, channels, data }),
            _ => wrong("the data must hold width x height x channels bytes"),
        }
    }

    /// The width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The pixels, in the order rows, columns, channels.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The pixels, to change.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The pixels, taken out.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The channels of the pixel in column `x` of row `y`.
    pub fn pixel(&self, x: usize, y: usize) -> Option<&[u8]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y * self.width + x) * self.channels;
        self.data.get(at..at + self.channels)
    }

    /// The image with another number of channels: gray is repeated, color is reduced to PIL's luma
    /// `(19595 R + 38470 G + 7471 B + 32768) >> 16`, a fourth channel is dropped or added as 255.
    ///
    /// # Errors
    /// Either number is not 1, 3 or 4 and they differ: bands have no conversion.
    pub fn to_channels(&self, channels: usize) -> Result<Self> {
        if channels == self.channels {
            return Ok(self.clone());
        }
        if !matches!(self.channels, 1 | 3 | 4) || !matches!(channels, 1 | 3 | 4) {
            let (width, height, bytes) = (self.width, self.height, self.data.len());
            let reason = "only 1 (gray), 3 (RGB) and 4 channels (RGB and one more) convert into each other";
            return Err(Error::Image { width, height, channels: self.channels, bytes, reason });
        }
        let (width, height) = (self.width, self.height);
        let mut data = Vec::with_capacity(width * height * channels);
        for px in self.data.chunks_exact(self.channels) {
            let rgb = if self.channels == 1 { [px[0]; 3] } else { [px[0], px[1], px[2]] };
            match channels {
                1 => data.push(luma(rgb[0], rgb[1], rgb[2])),
                3 => data.extend(rgb),
                4 => data.extend([rgb[0], rgb[1], rgb[2], 255]),
                _ => break,
            }
        }
        Self::new(width, height, channels, data)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{}x{})", self.width, self.height, self.channels)
    }
}

/// The luma of Pillow's conversion from `RGB` to `L` (ITU-R 601-2 in 16-bit fixed point).
#[inline(always)]
pub(crate) fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_sizes_that_do_not_fit() {
        assert!(Image::new(2, 2, 3, vec![0; 12]).is_ok());
        for (w, h, c, n) in
            [(2, 2, 3, 11), (0, 2, 3, 0), (2, 2, 0, 0), (1, 1, 257, 257), (usize::MAX, 2, 1, 2)]
        {
            assert!(Image::new(w, h, c, vec![0; n]).is_err(), "{w} {h} {c} {n}");
        }
    }

    #[test]
    fn channels_convert() {
        let rgb = Image::new(2, 1, 3, vec![255, 0, 0, 10, 10, 10]).unwrap();
        assert_eq!(rgb.to_channels(1).unwrap().data(), [76, 10]);
        assert_eq!(rgb.to_channels(4).unwrap().data(), [255, 0, 0, 255, 10, 10, 10, 255]);
        assert_eq!(rgb.to_channels(4).unwrap().to_channels(3).unwrap(), rgb);
        assert_eq!(rgb.to_channels(1).unwrap().to_channels(3).unwrap().data(), [76, 76, 76, 10, 10, 10]);
        assert!(rgb.to_channels(2).is_err());
        let bands = Image::new(1, 1, 5, vec![1, 2, 3, 4, 5]).unwrap();
        assert_eq!(bands.to_channels(5).unwrap(), bands);
        assert!(bands.to_channels(3).is_err());
        assert_eq!(rgb.pixel(1, 0), Some(&[10u8, 10, 10][..]));
        assert_eq!(rgb.pixel(2, 0), None);
    }
}
