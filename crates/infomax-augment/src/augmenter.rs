//! Draws and computes views.

use crate::finish::Finish;
use crate::render::{Render, check};
use crate::{Error, Image, Recipe, Result, Scratch, ViewConfig, ViewParams};

/// Computes the views of a [`Recipe`]. Shared by all threads; each thread has its own [`Scratch`].
#[derive(Clone, Debug)]
pub struct Augmenter {
    recipe: Recipe,
    views: Vec<ViewConfig>,
    finish: Finish,
}

impl Augmenter {
    /// Checks a recipe and prepares it.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn new(recipe: &Recipe) -> Result<Self> {
        recipe.check()?;
        let views = recipe.views.iter().flat_map(|v| std::iter::repeat_n(v.clone(), v.count)).collect();
        Ok(Self { recipe: recipe.clone(), views, finish: Finish::new(&recipe.mean, &recipe.std) })
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The number of views.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// Whether a view is a local one: a small crop that teachers do not embed.
    pub fn is_local(&self, view: usize) -> bool {
        self.views.get(view).is_some_and(|v| v.local)
    }

    /// The number of channels, of images and of views.
    pub fn channels(&self) -> usize {
        self.finish.channels()
    }

    /// The shape `(channels, height, width)` of a view; zeros for a view that does not exist.
    pub fn output(&self, view: usize) -> (usize, usize, usize) {
        self.views.get(view).map_or((0, 0, 0), |v| (self.channels(), v.size, v.size))
    }

    /// Draws the parameters of a view of an image of this size.
    ///
    /// # Errors
    /// A view that does not exist.
    pub fn draw(
        &self,
        view: usize,
        width: usize,
        height: usize,
        rng: &mut (impl rand::Rng + ?Sized),
    ) -> Result<ViewParams> {
        Ok(ViewParams::draw(self.view(view)?, width, height, rng))
    }

    /// Computes a view with given parameters into `out`, `(C, H, W)` and normalized.
    ///
    /// # Errors
    /// A view that does not exist, an image of another number of channels, a crop beyond the image, an
    /// output of another length.
    pub fn render(
        &self,
        view: usize,
        image: &Image,
        params: &ViewParams,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let config = self.view(view)?;
        check(image, params.crop, self.channels(), config.size, out.len())?;
        let (semantics, finish) = (self.recipe.semantics, &self.finish);
        infomax_simd::bytes::dispatch(Render { config, semantics, image, params, finish, scratch, out });
        Ok(())
    }

    /// Draws the parameters of a view and computes it into `out`, `(C, H, W)` and normalized. The parameters
    /// come back, with the crop's box among them.
    ///
    /// # Errors
    /// As [`Augmenter::render`].
    pub fn apply(
        &self,
        view: usize,
        image: &Image,
        rng: &mut (impl rand::Rng + ?Sized),
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<ViewParams> {
        let params = self.draw(view, image.width(), image.height(), rng)?;
        self.render(view, image, &params, scratch, out)?;
        Ok(params)
    }

    /// The settings of a view.
    pub(crate) fn config(&self, view: usize) -> Option<&ViewConfig> {
        self.views.get(view)
    }

    /// The normalized values, 256 of each channel.
    pub(crate) fn normalized(&self) -> Vec<f32> {
        self.finish.normalized()
    }

    fn view(&self, view: usize) -> Result<&ViewConfig> {
        self.views.get(view).ok_or(Error::View { view, views: self.views.len() })
    }
}
