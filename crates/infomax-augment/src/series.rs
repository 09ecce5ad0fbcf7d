//! Views of time series and of vectors.

use crate::draw::{NoiseStep, hit, uniform};
use crate::{Augment, Error, Noise, Result};
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};
use serde::{Deserialize, Serialize};

/// A time series of `channels x length` numbers. A vector is a series of length 1 with one channel for each
/// feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    channels: usize,
    length: usize,
    data: Vec<f32>,
}

impl Series {
    /// Wraps numbers, one channel after the other.
    ///
    /// # Errors
    /// An empty series, data of another length than `channels * length`, numbers that are not finite.
    pub fn new(channels: usize, length: usize, data: Vec<f32>) -> Result<Self> {
        let wrong = |reason: String| Err(Error::Series { channels, length, numbers: data.len(), reason });
        if channels == 0 || length == 0 {
            return wrong("a series has at least one channel and one step".into());
        }
        if channels.checked_mul(length) != Some(data.len()) {
            return wrong("the data must hold channels x length numbers".into());
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            let (c, t) = (at / length, at % length);
            return wrong(format!("channel {c} is {} at step {t}; fill gaps beforehand", data[at]));
        }
        Ok(Self { channels, length, data })
    }

    /// A vector of features.
    ///
    /// # Errors
    /// As [`Series::new`].
    pub fn vector(features: Vec<f32>) -> Result<Self> {
        Self::new(features.len(), 1, features)
    }

    /// The number of channels, or of the features of a vector.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of steps.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// The views of a series.
///
/// In TOML:
/// ```toml
/// channels = 6
/// [[views]]
/// count = 2
/// length = 128
/// crop = [0.5, 1.0]
/// scale = { p = 0.5, sigma = [0.1, 0.1] }
/// noise = { p = 1.0, sigma = [0.0, 0.05] }
/// mask = { p = 0.5, part = [0.1, 0.3], axis = "time" }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesRecipe {
    /// The number of channels, or of the features of a vector.
    pub channels: usize,
    /// The views, in order; an entry with `count = n` stands for `n` of them.
    pub views: Vec<SeriesView>,
}

/// One view of a series. The operations follow one another in the order of the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesView {
    /// How many views of this kind there are.
    #[serde(default = "one")]
    pub count: usize,
    /// The number of steps of the view; 1 for vectors.
    pub length: usize,
    /// The range of the length of a random span, as a part of the series; the span is resampled to the
    /// view by linear interpolation. Without it the whole series is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<(f64, f64)>,
    /// The probability that time runs backwards.
    #[serde(default)]
    pub reverse: f64,
    /// A factor `1 + sigma n` for each channel, `n` standard normal (Um et al. 2017, arXiv 1706.00527).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Noise>,
    /// `sigma n` is added to each number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// Numbers that are set to zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
}

/// A part of the numbers of a series that is set to zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// The probability of a mask.
    pub p: f64,
    /// The range of the part that is masked.
    pub part: (f64, f64),
    /// What is masked.
    #[serde(default)]
    pub axis: MaskAxis,
}

/// What a mask covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskAxis {
    /// One span of time, of that part of the view (rounded), in all channels.
    Time,
    /// Each channel with that probability, at all times.
    Channels,
    /// Each number with that probability.
    #[default]
    Values,
}

/// One mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskStep {
    /// The part that is masked.
    pub part: f64,
    /// Where a span begins, as a part of the time that is left.
    pub place: f64,
    /// The seed of independent choices.
    pub seed: u64,
}

/// All that is random about one view of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesParams {
    /// Where the span begins, in steps.
    pub start: f64,
    /// The length of the span, in steps.
    pub span: f64,
    /// Whether time runs backwards.
    pub reverse: bool,
    /// The scaling of the channels.
    pub scale: Option<NoiseStep>,
    /// The noise.
    pub noise: Option<NoiseStep>,
    /// The mask.
    pub mask: Option<MaskStep>,
}

fn one() -> usize {
    1
}

impl SeriesView {
    /// A view that is only resampled.
    pub fn plain(length: usize) -> Self {
        Self { count: 1, length, crop: None, reverse: 0.0, scale: None, noise: None, mask: None }
    }

    fn check(&self, at: usize) -> Result<()> {
        let wrong = |name: &str, value: String, reason: &str| {
            Err(Error::config(format!("views[{at}].{name}"), value, reason))
        };
        if self.count == 0 || self.length == 0 {
            return wrong("count, length", "0".into(), "both are at least 1");
        }
        let range = |(low, high): (f64, f64), most: f64| low >= 0.0 && low <= high && high <= most;
        if let Some(crop) = self.crop.filter(|c| !(c.0 > 0.0 && range(*c, 1.0))) {
            return wrong("crop", format!("{crop:?}"), "two parts of the series, the smaller first, above 0");
        }
        for (name, noise) in [("scale", self.scale), ("noise", self.noise)] {
            if let Some(n) = noise.filter(|n| !(range(n.sigma, f64::MAX) && (0.0..=1.0).contains(&n.p))) {
                return wrong(name, format!("{n:?}"), "p in 0..=1 and two sigmas, the smaller first");
            }
        }
        if let Some(m) = self.mask.filter(|m| !(range(m.part, 1.0) && (0.0..=1.0).contains(&m.p))) {
            return wrong("mask", format!("{m:?}"), "p in 0..=1 and two parts, the smaller first");
        }
        if !(0.0..=1.0).contains(&self.reverse) {
            return wrong("reverse", self.reverse.to_string(), "a probability lies in 0..=1");
        }
        Ok(())
    }
}

/// Computes the views of a [`SeriesRecipe`].
#[derive(Clone, Debug)]
pub struct SeriesAugmenter {
    channels: usize,
    views: Vec<SeriesView>,
}

impl SeriesAugmenter {
    /// Checks a recipe and prepares it.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn new(recipe: &SeriesRecipe) -> Result<Self> {
        if recipe.channels == 0 {
            return Err(Error::config("channels", 0, "a series has at least one channel"));
        }
        if recipe.views.is_empty() {
            return Err(Error::config("views", "[]", "a recipe needs at least one view"));
        }
        recipe.views.iter().enumerate().try_for_each(|(i, v)| v.check(i))?;
        let views = recipe.views.iter().flat_map(|v| std::iter::repeat_n(v.clone(), v.count)).collect();
        Ok(Self { channels: recipe.channels, views })
    }

    fn view(&self, view: usize) -> Result<&SeriesView> {
        self.views.get(view).ok_or(Error::View { view, views: self.views.len() })
    }
}

impl Augment for SeriesAugmenter {
    type Sample = Series;
    /// The number of steps.
    type Extent = usize;
    type Params = SeriesParams;
    type Scratch = ();

    fn views(&self) -> usize {
        self.views.len()
    }

    /// `[channels, length]`.
    fn shape(&self, view: usize) -> Result<Vec<usize>> {
        Ok(vec![self.channels, self.view(view)?.length])
    }

    fn extent(&self, series: &Series) -> usize {
        series.length
    }

    fn draw(&self, view: usize, length: usize, mut rng: &mut dyn Rng) -> Result<SeriesParams> {
        let view = self.view(view)?;
        let rng = &mut rng;
        let length = length as f64;
        let (start, span) = view.crop.map_or((0.0, length), |(low, high)| {
            let span = length * uniform(low, high, rng);
            (uniform(0.0, length - span, rng), span)
        });
        let reverse = hit(view.reverse, rng);
        let mut noise = |config: Option<Noise>| {
            config.filter(|n| hit(n.p, rng)).map(|n| {
                let sigma = uniform(n.sigma.0, n.sigma.1, rng);
                NoiseStep { sigma, seed: rng.random() }
            })
        };
        let (scale, noise) = (noise(view.scale), noise(view.noise));
        let mask = view.mask.filter(|m| hit(m.p, rng)).map(|m| MaskStep {
            part: uniform(m.part.0, m.part.1, rng),
            place: rng.random(),
            seed: rng.random(),
        });
        Ok(SeriesParams { start, span, reverse, scale, noise, mask })
    }

    fn render(
        &self,
        view: usize,
        sample: &Series,
        params: &SeriesParams,
        _scratch: &mut (),
        out: &mut [f32],
    ) -> Result<()> {
        let view = self.view(view)?;
        if sample.channels != self.channels {
            return Err(Error::Channels { image: sample.channels, recipe: self.channels });
        }
        let expected = self.channels * view.length;
        if out.len() != expected {
            return Err(Error::Output { expected, got: out.len() });
        }
        let inside = params.start >= 0.0 && params.span > 0.0;
        if !(inside && params.start + params.span <= sample.length as f64 * (1.0 + 1e-12)) {
            let reason = format!("a span inside of the {} steps of the series", sample.length);
            return Err(Error::config("span", format!("{params:?}"), reason));
        }
        for (out, values) in out.chunks_exact_mut(view.length).zip(sample.data.chunks_exact(sample.length)) {
            resample(values, params, out);
        }
        if let Some(step) = &params.scale {
            let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
            for channel in out.chunks_exact_mut(view.length) {
                let n: f32 = StandardNormal.sample(&mut rng);
                channel.iter_mut().for_each(|v| *v *= 1.0 + step.sigma as f32 * n);
            }
        }
        if let Some(step) = &params.noise {
            let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
            for v in out.iter_mut() {
                let n: f32 = StandardNormal.sample(&mut rng);
                *v += step.sigma as f32 * n;
            }
        }
        if let (Some(step), Some(config)) = (&params.mask, &view.mask) {
            mask(step, config.axis, view.length, out);
        }
        Ok(())
    }
}

/// Linear interpolation at the centers of the steps of the view; the first and last value continue.
fn resample(values: &[f32], params: &SeriesParams, out: &mut [f32]) {
    let (last, count) = (values.len() - 1, out.len());
    for (t, out) in out.iter_mut().enumerate() {
        let t = if params.reverse { count - 1 - t } else { t };
        let x = params.start + (t as f64 + 0.5) * params.span / count as f64 - 0.5;
        let x = x.clamp(0.0, last as f64);
        let at = x as usize;
        let (a, b) = (values[at], values[(at + 1).min(last)]);
        *out = a + (b - a) * (x - at as f64) as f32;
    }
}

fn mask(step: &MaskStep, axis: MaskAxis, length: usize, out: &mut [f32]) {
    let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
    match axis {
        MaskAxis::Time => {
            let span = ((step.part * length as f64).round() as usize).min(length);
            let start = (step.place * (length - span + 1) as f64) as usize;
            let start = start.min(length - span);
            for channel in out.chunks_exact_mut(length) {
                channel[start..start + span].fill(0.0);
            }
        }
        MaskAxis::Channels => {
            for channel in out.chunks_exact_mut(length) {
                if rng.random::<f64>() < step.part {
                    channel.fill(0.0);
                }
            }
        }
        MaskAxis::Values => {
            for v in out {
                *v = if rng.random::<f64>() < step.part { 0.0 } else { *v };
            }
        }
    }
}
