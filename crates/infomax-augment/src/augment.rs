//! What images and series have in common.

use crate::{Augmenter, Error, Image, Result, Scratch, ViewParams};
use rand::Rng;

/// Random views of samples of one kind: images ([`Augmenter`]), vectors and time series
/// ([`SeriesAugmenter`](crate::SeriesAugmenter)), or a type of your own.
///
/// All randomness of a view is in its parameters, which are drawn from the generator that is passed in; so
/// a view can be computed again from its sample and its parameters, alone, to the bit. They are drawn from the
/// extent of the sample alone, so that a loader can decode only what the views will see.
pub trait Augment: std::fmt::Debug + Send + Sync {
    /// What views are made of.
    type Sample: ?Sized;
    /// The size of a sample, as far as drawing needs it.
    type Extent;
    /// All that is random about one view.
    type Params;
    /// Buffers that are reused; one for each thread.
    type Scratch: Default + Send;

    /// The number of views of a sample; global ones come first.
    fn views(&self) -> usize;

    /// The shape of a view, its last dimension contiguous.
    ///
    /// # Errors
    /// A view that does not exist.
    fn shape(&self, view: usize) -> Result<Vec<usize>>;

    /// Whether a view is a local one: a small crop that teachers do not embed.
    fn is_local(&self, _view: usize) -> bool {
        false
    }

    /// The extent of a sample.
    fn extent(&self, sample: &Self::Sample) -> Self::Extent;

    /// Draws the parameters of a view of a sample of this extent.
    ///
    /// # Errors
    /// A view that does not exist.
    fn draw(&self, view: usize, extent: Self::Extent, rng: &mut dyn Rng) -> Result<Self::Params>;

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
        let params = self.draw(view, self.extent(sample), rng)?;
        self.render(view, sample, &params, scratch, out)?;
        Ok(params)
    }
}

/// Any augmentation of images: its views are `(channels, height, width)`, and its parameters say where each was
/// cut. The extent is the width and height of the image.
pub type ImageAugment =
    dyn Augment<Sample = Image, Extent = (usize, usize), Params = ViewParams, Scratch = Scratch>;

impl Augment for Augmenter {
    type Sample = Image;
    type Extent = (usize, usize);
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

    fn is_local(&self, view: usize) -> bool {
        Augmenter::is_local(self, view)
    }

    fn extent(&self, image: &Image) -> (usize, usize) {
        (image.width(), image.height())
    }

    fn draw(&self, view: usize, (width, height): (usize, usize), rng: &mut dyn Rng) -> Result<ViewParams> {
        Augmenter::draw(self, view, width, height, rng)
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
