//! The random parameters of a view.

use crate::{Crop, ViewConfig};
use rand::{Rng, RngExt as _};

/// A box of pixels within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// The first column.
    pub x: usize,
    /// The first row.
    pub y: usize,
    /// The number of columns.
    pub width: usize,
    /// The number of rows.
    pub height: usize,
}

/// One change of colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JitterStep {
    /// Every value times the factor.
    Brightness(f32),
    /// The distance of every value to the mean luma times the factor.
    Contrast(f32),
    /// The distance of every value to the luma of its pixel times the factor.
    Saturation(f32),
    /// The hue turned by this part of a full turn.
    Hue(f64),
}

/// The changes of colour of one view, in the order of their application.
pub type Jitter = [JitterStep; 4];

/// All that is random about one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParams {
    /// The part of the image that is seen.
    pub crop: CropBox,
    /// Whether it is mirrored left to right.
    pub flip: bool,
    /// Whether it is mirrored top to bottom.
    pub vertical_flip: bool,
    /// The changes of colour.
    pub jitter: Option<Jitter>,
    /// Whether it is turned to grey.
    pub grayscale: bool,
    /// The standard deviation of the blur, in pixels.
    pub blur: Option<f64>,
    /// The least value that is inverted.
    pub solarize: Option<u8>,
}

impl ViewParams {
    /// Parameters that only resize and crop the centre of an image of this size to a square.
    pub fn plain(width: usize, height: usize) -> Self {
        Self {
            crop: centre_square(width, height),
            flip: false,
            vertical_flip: false,
            jitter: None,
            grayscale: false,
            blur: None,
            solarize: None,
        }
    }

    /// Draws the parameters of a view of an image of this size.
    pub(crate) fn draw(
        view: &ViewConfig,
        width: usize,
        height: usize,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        let crop = match &view.crop {
            Some(crop) => draw_crop(crop, width, height, rng),
            None => centre_square(width, height),
        };
        let flip = hit(view.flip, rng);
        let vertical_flip = hit(view.vertical_flip, rng);
        let jitter = view.jitter.filter(|j| hit(j.p, rng)).map(|j| {
            let mut factor = |strength: f64| uniform((1.0 - strength).max(0.0), 1.0 + strength, rng) as f32;
            let mut steps = [
                JitterStep::Brightness(factor(j.brightness)),
                JitterStep::Contrast(factor(j.contrast)),
                JitterStep::Saturation(factor(j.saturation)),
                JitterStep::Hue(uniform(-j.hue, j.hue, rng)),
            ];
            for i in (1..steps.len()).rev() {
                steps.swap(i, rng.random_range(0..=i as u32) as usize);
            }
            steps
        });
        let grayscale = hit(view.grayscale, rng);
        let blur = view.blur.filter(|b| hit(b.p, rng)).map(|b| uniform(b.sigma.0, b.sigma.1, rng));
        let solarize = view.solarize.filter(|s| hit(s.p, rng)).map(|s| s.threshold);
        Self { crop, flip, vertical_flip, jitter, grayscale, blur, solarize }
    }
}

/// True with probability `p`.
fn hit(p: f64, rng: &mut (impl Rng + ?Sized)) -> bool {
    p > 0.0 && rng.random::<f64>() < p
}

fn uniform(low: f64, high: f64, rng: &mut (impl Rng + ?Sized)) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// Up to ten tries of a random area and aspect ratio, then the largest centred box of an allowed ratio,
/// as torchvision's `RandomResizedCrop.get_params`.
fn draw_crop(crop: &Crop, width: usize, height: usize, rng: &mut (impl Rng + ?Sized)) -> CropBox {
    let (w, h) = (width as f64, height as f64);
    let log_ratio = (crop.ratio.0.ln(), crop.ratio.1.ln());
    for _ in 0..10 {
        let area = w * h * uniform(crop.scale.0, crop.scale.1, rng);
        let ratio = uniform(log_ratio.0, log_ratio.1, rng).exp();
        let cw = (area * ratio).sqrt().round_ties_even() as usize;
        let ch = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&cw) && (1..=height).contains(&ch) {
            let y = rng.random_range(0..=(height - ch) as u64) as usize;
            let x = rng.random_range(0..=(width - cw) as u64) as usize;
            return CropBox { x, y, width: cw, height: ch };
        }
    }
    let (mut cw, mut ch) = (width, height);
    if w / h < crop.ratio.0 {
        ch = ((w / crop.ratio.0).round_ties_even() as usize).clamp(1, height);
    } else if w / h > crop.ratio.1 {
        cw = ((h * crop.ratio.1).round_ties_even() as usize).clamp(1, width);
    }
    CropBox { x: (width - cw) / 2, y: (height - ch) / 2, width: cw, height: ch }
}

/// The largest square at the centre.
pub(crate) fn centre_square(width: usize, height: usize) -> CropBox {
    let side = width.min(height);
    CropBox { x: (width - side) / 2, y: (height - side) / 2, width: side, height: side }
}
