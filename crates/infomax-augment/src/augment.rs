//! What images and series have in common.

use crate::{Augmenter, Error, Image, Result, Scratch, ViewParams};
use rand::Rng;

/// Random views of samples of one kind: images ([`Augmenter`]), vectors and time series
/// ([`SeriesAugmenter`](crate::SeriesAugmenter)).
///
/// All randomness of a view is in its parameters, which are drawn from the generator that is passed in; so
/// a view can be computed again from its sample and its parameters, alone, to the bit.
pub trait Augment: Send + Sync {
    /// What views are made of.
    type Sample: ?Sized;
    /// All that is random about one view.
    type Params;
    /// Buffers that are reused; one for each thread.
    type Scratch: Default + Send;

    /// The number of views of a sample.
    fn views(&self) -> usize;

    /// The shape of a view, its last dimension contiguous.
    ///
    /// # Errors
    /// A view that does not exist.
    fn shape(&self, view: usize) -> Result<Vec<usize>>;

    /// Draws the parameters of a view of this sample.
    ///
    /// # Errors
    /// A view that does not exist.
    fn draw(&self, view: usize, sample: &Self::Sample, rng: &mut dyn Rng) -> Result<Self::Params>;

    /// Computes a view with given parameters.
    ///
    /// # Errors
    /// A view that does not exist, a sample or an output of another size, parameters that do not fit.
    fn render(
        &self,
        view: usize,
        sample: &Self::Sample,
        params: &Self::Params,
        scratch: &mut Self::Scratch,
        out: &mut [f32],
    ) -> Result<()>;

    /// Draws the parameters of a view, computes it, and returns the parameters.
    ///
    /// # Errors
    /// As [`Augment::draw`] and [`Augment::render`].
    fn apply(
        &self,
        view: usize,
        sample: &Self::Sample,
        rng: &mut dyn Rng,
        scratch: &mut Self::Scratch,
        out: &mut [f32],
    ) -> Result<Self::Params> {
        let params = self.draw(view, sample, rng)?;
        self.render(view, sample, &params, scratch, out)?;
        Ok(params)
    }
}

impl Augment for Augmenter {
    type Sample = Image;
    type Params = ViewParams;
    type Scratch = Scratch;

    fn views(&self) -> usize {
        Augmenter::views(self)
    }

    fn shape(&self, view: usize) -> Result<Vec<usize>> {
        if view >= Augmenter::views(self) {
            return Err(Error::View { view, views: Augmenter::views(self) });
        }
        let (c, h, w) = self.output(view);
        Ok(vec![c, h, w])
    }

    fn draw(&self, view: usize, sample: &Image, rng: &mut dyn Rng) -> Result<ViewParams> {
        Augmenter::draw(self, view, sample.width(), sample.height(), rng)
    }

    fn render(
        &self,
        view: usize,
        sample: &Image,
        params: &ViewParams,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        Augmenter::render(self, view, sample, params, scratch, out)
    }
}
