//! Views that are computed elsewhere than on the loader's threads.

use crate::Result;
use candle_core::Tensor;
use infomax_augment::ViewParams;
use std::fmt::Debug;

/// Computes views from what the loader drew: on a device that holds all images, for example.
///
/// It must give what [`Augment::render`](infomax_augment::Augment::render) gives, as everything else (the order of samples,
/// what is drawn, where a view was cut) does not depend on it.
pub trait Renderer: Debug + Send + Sync {
    /// Width and height of all images.
    fn extent(&self) -> (usize, usize);

    /// View `view` of these samples, `(B, C, H, W)` in `f32`.
    ///
    /// # Errors
    /// What the device refuses; parameters that do not fit.
    fn render(&self, view: usize, samples: &[u64], params: &[ViewParams]) -> Result<Tensor>;
}
