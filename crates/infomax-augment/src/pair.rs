//! Operations on two views of different samples: mixup and cutmix.

use crate::{CropBox, Error, Result};
use rand::{Rng, RngExt as _};
use rand_distr::{Beta, Distribution as _};
use serde::{Deserialize, Serialize};

/// How two views are mixed. The share `lambda` of the first has the distribution `Beta(alpha, alpha)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mix {
    /// `lambda a + (1 - lambda) b` (arXiv 1710.09412).
    Mixup {
        /// The parameter of the distribution, above 0.
        alpha: f64,
    },
    /// A box of the second view, of the part `1 - lambda` of the area, replaces that of the first
    /// (arXiv 1905.04899). The box is cut off at the edges, and `lambda` becomes what is left of `a`.
    Cutmix {
        /// The parameter of the distribution, above 0.
        alpha: f64,
    },
}

/// All that is random about one mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixParams {
    /// The share of the first view, for the loss.
    pub lambda: f64,
    /// The box that comes from the second view.
    pub area: Option<CropBox>,
}

impl Mix {
    /// Draws the parameters of a mixture of views of `width x height` pixels.
    ///
    /// # Errors
    /// An `alpha` that is not above 0, an empty view.
    pub fn draw(&self, width: usize, height: usize, rng: &mut (impl Rng + ?Sized)) -> Result<MixParams> {
        let (Self::Mixup { alpha } | Self::Cutmix { alpha }) = *self;
        let beta = (alpha.is_finite()).then(|| Beta::new(alpha, alpha).ok()).flatten();
        let beta = beta.ok_or_else(|| Error::config("alpha", alpha, "a finite number above 0"))?;
        if width == 0 || height == 0 {
            return Err(Error::config("size", format!("{width}x{height}"), "a view has at least one pixel"));
        }
        let lambda = beta.sample(rng);
        if matches!(self, Self::Mixup { .. }) {
            return Ok(MixParams { lambda, area: None });
        }
        // As torchvision's `v2.CutMix`: half sides are cut off to integers around a uniform centre.
        let part = 0.5 * (1.0 - lambda).sqrt();
        let mut span = |size: usize| {
            let (centre, half) = (rng.random_range(0..size as u64) as usize, (part * size as f64) as usize);
            let start = centre.saturating_sub(half);
            (start, (centre + half).min(size) - start)
        };
        let ((x, w), (y, h)) = (span(width), span(height));
        let lambda = 1.0 - (w * h) as f64 / (width * height) as f64;
        Ok(MixParams { lambda, area: Some(CropBox { x, y, width: w, height: h }) })
    }
}

impl MixParams {
    /// Mixes `b` into `a`, both `(C, H, W)` with rows of `width` and planes of `width * height` numbers.
    ///
    /// # Errors
    /// Views of different lengths or not of whole planes, a box beyond them.
    pub fn apply(&self, a: &mut [f32], b: &[f32], width: usize, height: usize) -> Result<()> {
        if a.len() != b.len() {
            return Err(Error::Output { expected: a.len(), got: b.len() });
        }
        let plane = width.saturating_mul(height).max(1);
        if !a.len().is_multiple_of(plane) {
            return Err(Error::Output { expected: a.len().next_multiple_of(plane), got: a.len() });
        }
        let Some(area) = self.area else {
            let (first, second) = (self.lambda as f32, (1.0 - self.lambda) as f32);
            a.iter_mut().zip(b).for_each(|(a, b)| *a = first * *a + second * b);
            return Ok(());
        };
        let fits = |start: usize, len: usize, size: usize| start.checked_add(len).is_some_and(|e| e <= size);
        if !fits(area.x, area.width, width) || !fits(area.y, area.height, height) {
            return Err(Error::CropBox { crop: format!("{area:?}"), width, height });
        }
        for (a, b) in a.chunks_exact_mut(plane).zip(b.chunks_exact(plane)) {
            for y in area.y..area.y + area.height {
                let row = y * width + area.x..y * width + area.x + area.width;
                a[row.clone()].copy_from_slice(&b[row]);
            }
        }
        Ok(())
    }
}
