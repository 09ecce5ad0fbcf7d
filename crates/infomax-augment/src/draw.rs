//! The random parameters of a view.

use crate::{Affine, Crop, Erase, EraseFill, ViewConfig};
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// A box of pixels within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// One change of color.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// The changes of color of one view, in the order of their application.
pub type Jitter = [JitterStep; 4];

/// One affine transformation about the center of the view, with torchvision's conventions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AffineStep {
    /// The angle in degrees, clockwise.
    pub degrees: f64,
    /// The shift to the right and down, in pixels.
    pub translate: (i32, i32),
    /// The factor of scaling.
    pub scale: f64,
    /// The shear parallel to the x axis, in degrees.
    pub shear: f64,
}

/// One erased box of the view, in the view's own pixels (after the flips).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EraseStep {
    /// The box.
    pub area: CropBox,
    /// What it is filled with.
    pub fill: EraseFill,
    /// The seed of the noise, if it is filled with noise.
    pub seed: u64,
}

/// Gaussian noise of one view.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseStep {
    /// The standard deviation, of values in 0..1.
    pub sigma: f64,
    /// The seed of the values.
    pub seed: u64,
}

/// All that is random about one view. With the image and the recipe it determines every bit of the view.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewParams {
    /// The part of the image that is seen.
    pub crop: CropBox,
    /// Whether it is mirrored left to right.
    pub flip: bool,
    /// Whether it is mirrored top to bottom.
    pub vertical_flip: bool,
    /// The affine transformation.
    pub affine: Option<AffineStep>,
    /// The changes of color.
    pub jitter: Option<Jitter>,
    /// Whether it is turned to gray.
    pub grayscale: bool,
    /// The number of bits that are kept.
    pub posterize: Option<u8>,
    /// Whether the histograms are equalized.
    pub equalize: bool,
    /// The standard deviation of the blur, in pixels.
    pub blur: Option<f64>,
    /// The least value that is inverted.
    pub solarize: Option<u8>,
    /// The noise.
    pub noise: Option<NoiseStep>,
    /// The erased box.
    pub erase: Option<EraseStep>,
}

impl ViewParams {
    /// Parameters that only resize and crop the center of an image of this size to a square.
    pub fn plain(width: usize, height: usize) -> Self {
        Self {
            crop: center_square(width, height),
            flip: false,
            vertical_flip: false,
            affine: None,
            jitter: None,
            grayscale: false,
            posterize: None,
            equalize: false,
            blur: None,
            solarize: None,
            noise: None,
            erase: None,
        }
    }

    /// The point `(x, y)` of the image, in pixels from its upper left corner, that is seen at the point
    /// `(u, v)` of the view, in parts of its width and height from its upper left corner.
    ///
    /// Follows the crop and the flips backwards, for losses that match places of two views (VICRegL,
    /// arXiv 2210.01571). An affine transformation is not followed.
    pub fn source_point(&self, u: f64, v: f64) -> (f64, f64) {
        let u = if self.flip { 1.0 - u } else { u };
        let v = if self.vertical_flip { 1.0 - v } else { v };
        let CropBox { x, y, width, height } = self.crop;
        (x as f64 + u * width as f64, y as f64 + v * height as f64)
    }

    /// Draws the parameters of a view of an image of this size.
    pub(crate) fn draw(
        view: &ViewConfig,
        width: usize,
        height: usize,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        let crop = match (&view.crop, view.resize) {
            (Some(crop), _) => draw_crop(crop, width, height, rng),
            (None, Some(_)) => CropBox { x: 0, y: 0, width, height },
            (None, None) => center_square(width, height),
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
        let affine = view.affine.filter(|a| hit(a.p, rng)).map(|a| draw_affine(&a, view.size, rng));
        let posterize = view.posterize.filter(|s| hit(s.p, rng)).map(|s| s.bits);
        let equalize = hit(view.equalize, rng);
        let noise = view.noise.filter(|n| hit(n.p, rng)).map(|n| {
            let sigma = uniform(n.sigma.0, n.sigma.1, rng);
            NoiseStep { sigma, seed: rng.random() }
        });
        let erase = view.erase.filter(|e| hit(e.p, rng)).and_then(|e| draw_erase(&e, view.size, rng));
        Self {
            crop,
            flip,
            vertical_flip,
            affine,
            jitter,
            grayscale,
            posterize,
            equalize,
            blur,
            solarize,
            noise,
            erase,
        }
    }
}

/// True with probability `p`.
pub(crate) fn hit(p: f64, rng: &mut (impl Rng + ?Sized)) -> bool {
    p > 0.0 && rng.random::<f64>() < p
}

pub(crate) fn uniform(low: f64, high: f64, rng: &mut (impl Rng + ?Sized)) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// Up to ten tries of a random area and aspect ratio, then the largest centered box of an allowed ratio,
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

/// As torchvision's `RandomAffine.get_params`: shifts are whole pixels.
fn draw_affine(affine: &Affine, size: usize, rng: &mut (impl Rng + ?Sized)) -> AffineStep {
    let degrees = uniform(affine.degrees.0, affine.degrees.1, rng);
    let mut shift = |part: f64| {
        let most = part * size as f64;
        uniform(-most, most, rng).round_ties_even() as i32
    };
    let translate = (shift(affine.translate.0), shift(affine.translate.1));
    let scale = uniform(affine.scale.0, affine.scale.1, rng);
    let shear = uniform(affine.shear.0, affine.shear.1, rng);
    AffineStep { degrees, translate, scale, shear }
}

/// Up to ten tries of a box that is smaller than the view on both sides, as torchvision's
/// `RandomErasing.get_params`; `None` if none was.
fn draw_erase(erase: &Erase, size: usize, rng: &mut (impl Rng + ?Sized)) -> Option<EraseStep> {
    let log_ratio = (erase.ratio.0.ln(), erase.ratio.1.ln());
    let seed = rng.random();
    for _ in 0..10 {
        let area = (size * size) as f64 * uniform(erase.scale.0, erase.scale.1, rng);
        let ratio = uniform(log_ratio.0, log_ratio.1, rng).exp();
        let height = (area * ratio).sqrt().round_ties_even() as usize;
        let width = (area / ratio).sqrt().round_ties_even() as usize;
        if height < size && width < size {
            let y = rng.random_range(0..=(size - height) as u64) as usize;
            let x = rng.random_range(0..=(size - width) as u64) as usize;
            return Some(EraseStep { area: CropBox { x, y, width, height }, fill: erase.fill, seed });
        }
    }
    None
}

/// The largest square at the center.
pub(crate) fn center_square(width: usize, height: usize) -> CropBox {
    let side = width.min(height);
    CropBox { x: (width - side) / 2, y: (height - side) / 2, width: side, height: side }
}
