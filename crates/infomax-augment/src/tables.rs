//! Views of small images as tables of numbers, for a renderer that has no code of ours: a kernel on a device.

use crate::blur::Blurrer;
use crate::resample::{Kernel, Taps, columns_first};
use crate::{Augmenter, Error, JitterStep, Result, Semantics, ViewConfig, ViewParams};

/// What a renderer of one view of a recipe needs: weights of all resizes, normalized values, and for each image the
/// words of what was drawn. A renderer that computes as said below gives the bits of [`Augmenter::render`].
///
/// # Layout
/// Images have three channels of 8 bits, interleaved. [`ViewTables::axes`] starts with the places of one block for each
/// length of a crop's side from 0 on (that of 0 is unused). A block holds the number of weights `k`, the first input
/// pixel of each of the `size` output pixels, and `k` weights for each, with 22 bits behind the binary point:
/// `clamp((2^21 + sum) >> 22, 0, 255)` is one pass, and rows go first unless a flag says otherwise.
/// [`ViewTables::normalized`] holds the normalized value of each of 256 values, for each channel.
/// The words of a view are those of [`ViewTables::words`].
#[derive(Clone, Debug)]
pub struct ViewTables {
    size: usize,
    extent: (usize, usize),
    blur_kernel: Option<usize>,
    axes: Vec<i32>,
    normalized: Vec<f32>,
}

impl ViewTables {
    /// The number of words of a view.
    pub const WORDS: usize = 26;
    /// The longest side of images and views.
    pub const LONGEST: usize = 96;
    /// The largest standard deviation of a blur: eight pixels to each side.
    const WIDEST_BLUR: f64 = 2.0;

    /// The tables of a view of a recipe, of images of this width and height.
    ///
    /// # Errors
    /// A view that does not exist, or one that tables do not describe: other semantics than Pillow's, other than three
    /// channels, long sides, affine transformations, posterization, equalization, noise, erasing, wide blurs, `resize`.
    pub fn new(augmenter: &Augmenter, view: usize, extent: (usize, usize)) -> Result<Self> {
        let recipe = augmenter.recipe();
        let config =
            augmenter.config(view).ok_or(Error::View { view, views: Augmenter::views(augmenter) })?;
        let refuse = |reason: String| Err(Error::Tables { view, reason });
        if recipe.semantics != Semantics::Pil {
            return refuse("semantics other than \"pil\" are computed on the host".into());
        }
        if augmenter.channels() != 3 {
            return refuse(format!("images of {} channels are computed on the host", augmenter.channels()));
        }
        let (size, longest) = (config.size, Self::LONGEST);
        let (width, height) = extent;
        if size > longest || width.max(height) > longest || size.min(width).min(height) == 0 {
            return refuse(format!(
                "sides of 1 to {longest} pixels fit, not views of {size} from {width}x{height}"
            ));
        }
        if let Some(setting) = undescribed(config) {
            return refuse(format!("`{setting}` is computed on the host"));
        }
        let (mut axes, mut taps) = (vec![0; width.max(height) + 1], Taps::default());
        let kernel = Kernel { filter: config.filter, semantics: recipe.semantics };
        for length in 1..=width.max(height) {
            axes[length] = axes.len() as i32;
            taps.set(kernel, length, size, 0, size);
            axes.push(taps.count() as i32);
            axes.extend((0..size).map(|x| taps.at(x).0 as i32));
            axes.extend((0..size).flat_map(|x| taps.at(x).1));
        }
        let normalized = augmenter.normalized();
        Ok(Self { size, extent, blur_kernel: config.blur.and_then(|b| b.kernel), axes, normalized })
    }

    /// The side of the view.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Width and height of the images.
    pub fn extent(&self) -> (usize, usize) {
        self.extent
    }

    /// The weights of the resizes.
    pub fn axes(&self) -> &[i32] {
        &self.axes
    }

    /// The normalized values, 256 of each channel.
    pub fn normalized(&self) -> &[f32] {
        &self.normalized
    }

    /// The words of the view of an image:
    ///
    /// | word | |
    /// |---|---|
    /// | 0 to 4 | the number of the image; the crop: first column, first row, width, height |
    /// | 5 | flags: 1 mirrored left to right, 2 top to bottom, 4 gray, 8 columns are resized first, 16 solarized |
    /// | 6, 7 | the least value that solarization inverts; 0 |
    /// | 8 to 15 | four changes of color: 0 none, 1 brightness, 2 contrast, 3 saturation (each with the bits of its factor), 4 hue (with its offset in 1/255 of a turn, modulo 256) |
    /// | 16, 17 to 25 | the radius of the blur, and its weights from the center on, with 16 bits behind the point |
    ///
    /// # Errors
    /// A crop beyond the image, or parameters that tables do not describe.
    pub fn words(&self, image: u32, params: &ViewParams) -> Result<[u32; Self::WORDS]> {
        let (width, height) = self.extent;
        let crop = params.crop;
        let inside = |start: usize, len: usize, limit: usize| {
            len > 0 && start.checked_add(len).is_some_and(|e| e <= limit)
        };
        if !inside(crop.x, crop.width, width) || !inside(crop.y, crop.height, height) {
            return Err(Error::CropBox { crop: format!("{crop:?}"), width, height });
        }
        let other = params.affine.is_some()
            || params.posterize.is_some()
            || params.equalize
            || params.noise.is_some()
            || params.erase.is_some()
            || params.blur.is_some_and(|sigma| sigma > Self::WIDEST_BLUR);
        if other {
            let reason = format!("these parameters are computed on the host: {params:?}");
            return Err(Error::Tables { view: 0, reason });
        }
        let mut words = [0; Self::WORDS];
        let place = [crop.x, crop.y, crop.width, crop.height].map(|n| n as u32);
        words[0] = image;
        words[1..5].copy_from_slice(&place);
        let first = columns_first(crop.width, crop.height, (self.size, self.size));
        let flags = [params.flip, params.vertical_flip, params.grayscale, first, params.solarize.is_some()];
        words[5] = flags.iter().enumerate().map(|(bit, set)| u32::from(*set) << bit).sum();
        words[6] = params.solarize.map_or(0, u32::from);
        for (step, to) in params.jitter.iter().flatten().zip(words[8..16].chunks_exact_mut(2)) {
            let (kind, value) = match *step {
                JitterStep::Brightness(factor) => (1, factor.to_bits()),
                JitterStep::Contrast(factor) => (2, factor.to_bits()),
                JitterStep::Saturation(factor) => (3, factor.to_bits()),
                // A turn of exactly nothing is left out; any other goes through 8 bits.
                JitterStep::Hue(0.0) => (0, 0),
                JitterStep::Hue(turns) => (4, u32::from((turns * 255.0) as i32 as u8)),
            };
            to.copy_from_slice(&[kind, value]);
        }
        if let Some(sigma) = params.blur {
            let weights = Blurrer::weights(sigma, self.blur_kernel);
            words[16] = weights.len() as u32 - 1;
            for (word, weight) in words[17..].iter_mut().zip(weights) {
                *word = u32::from(weight);
            }
        }
        Ok(words)
    }
}

/// The first setting of a view that no table describes.
fn undescribed(config: &ViewConfig) -> Option<&'static str> {
    let wide = |blur: &crate::Blur| blur.sigma.1 > ViewTables::WIDEST_BLUR;
    let all = [
        (config.resize.is_some(), "resize"),
        (config.affine.is_some(), "affine"),
        (config.posterize.is_some(), "posterize"),
        (config.equalize > 0.0, "equalize"),
        (config.blur.as_ref().is_some_and(wide), "blur of more than 2 pixels"),
        (config.noise.is_some(), "noise"),
        (config.erase.is_some(), "erase"),
    ];
    all.iter().find(|(is, _)| *is).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CropBox, Recipe};

    #[test]
    fn presets_of_small_images_are_described_and_others_say_why_not() {
        for name in ["vicreg-cifar", "simclr-cifar", "byol-cifar", "swav-multicrop-cifar", "vicreg-shapes"] {
            let augmenter = Augmenter::new(&Recipe::preset(name).unwrap()).unwrap();
            for view in 0..augmenter.views() {
                let tables = ViewTables::new(&augmenter, view, (32, 32)).unwrap();
                assert_eq!(tables.axes().len(), 33 + (1..=32).map(|l| block(&tables, l)).sum::<usize>());
            }
        }
        let large = Augmenter::new(&Recipe::preset("vicreg-imagenet").unwrap()).unwrap();
        let message = ViewTables::new(&large, 0, (32, 32)).unwrap_err().to_string();
        assert!(message.contains("224") && message.contains("96"), "{message}");
        let small = Augmenter::new(&Recipe::preset("vicreg-cifar").unwrap()).unwrap();
        assert!(ViewTables::new(&small, 2, (32, 32)).is_err());
        assert!(ViewTables::new(&small, 0, (500, 32)).is_err());
    }

    /// The length of the block of a length.
    fn block(tables: &ViewTables, length: usize) -> usize {
        let at = tables.axes()[length] as usize;
        1 + tables.size() * (1 + tables.axes()[at] as usize)
    }

    #[test]
    fn words_hold_what_was_drawn_and_refuse_what_they_cannot() {
        let augmenter = Augmenter::new(&Recipe::preset("simclr-cifar").unwrap()).unwrap();
        let tables = ViewTables::new(&augmenter, 0, (32, 32)).unwrap();
        let crop = CropBox { x: 3, y: 4, width: 20, height: 10 };
        let jitter = [
            JitterStep::Hue(-0.1),
            JitterStep::Contrast(1.5),
            JitterStep::Hue(0.0),
            JitterStep::Brightness(0.5),
        ];
        let plain = ViewParams { crop, ..ViewParams::plain(32, 32) };
        let params =
            ViewParams { flip: true, solarize: Some(128), jitter: Some(jitter), blur: Some(0.5), ..plain };
        let words = tables.words(7, &params).unwrap();
        assert_eq!(words[..8], [7, 3, 4, 20, 10, 1 + 16, 128, 0]);
        // -25.5 of 255 is cut off towards zero.
        assert_eq!(words[8..16], [4, 256 - 25, 2, 1.5f32.to_bits(), 0, 0, 1, 0.5f32.to_bits()]);
        assert_eq!(words[16], 2);
        assert_eq!(words[17] + 2 * (words[18] + words[19]), 65536);
        let outside = CropBox { x: 20, ..crop };
        assert!(tables.words(0, &ViewParams { crop: outside, ..plain }).is_err());
        assert!(tables.words(0, &ViewParams { equalize: true, ..plain }).is_err());
        assert!(tables.words(0, &ViewParams { blur: Some(3.0), ..plain }).is_err());
    }
}
