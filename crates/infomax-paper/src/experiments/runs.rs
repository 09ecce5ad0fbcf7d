//! What several experiments measure of every trained encoder.

use crate::ctx::Ctx;
use crate::encoders::{Model, Trained, all_methods};
use crate::features::{Batch, classes, in_batches, labeled, least_squares, views};
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_core::{Context, Embeddings};
use infomax_eval::{Resampling, bound::generalization_terms, spectrum};
use infomax_losses::ObjectiveConfig;

/// Labeled images, held-out ones, and pairs of views with their labels.
pub(super) struct Material {
    pub(super) train: Batch,
    pub(super) test: Batch,
    pub(super) views: (Tensor, Tensor),
    pub(super) view_labels: Option<Vec<u32>>,
    pub(super) classes: usize,
}

impl Material {
    pub(super) fn new(ctx: &mut Ctx<'_>) -> Result<Self> {
        let (labeled_rows, test_rows, pairs) =
            ctx.pick((64, 64, 64), (1_000, 1_000, 1_000), (5_000, 10_000, 5_000));
        let (train, test) = labeled(ctx, labeled_rows, test_rows)?;
        let (a, b, view_labels) = views(ctx, pairs)?;
        let classes = classes(&[&train.labels, &test.labels, view_labels.as_deref().unwrap_or(&[])]);
        Ok(Self { train, test, views: (a, b), view_labels, classes })
    }
}

/// The terms of the bound and its rivals for one model.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) invariance: f64,
    pub(super) labeled: f64,
    pub(super) unlabeled: Option<f64>,
    pub(super) sum: f64,
    pub(super) vicreg: f64,
    pub(super) rank_me: f64,
    pub(super) account: f64,
    /// The mean of `|W f(x) - y|` on held-out images.
    pub(super) loss: f64,
    /// The accuracy of that classifier.
    pub(super) accuracy: f64,
}

/// The features of the material, each with a constant 1 beside them, and the projections of its views.
pub(super) struct Embedded {
    train: Tensor,
    test: Tensor,
    views: [Tensor; 2],
    projections: [Tensor; 2],
}

impl Embedded {
    /// The theorem's classifier has no intercept. Features that span the constant would fit any labels better, also such as say
    /// nothing of the images, and runs would be ranked by that: all of them get the constant, for which the theorem holds as well.
    pub(super) fn new(model: &Model, m: &Material) -> Result<Self> {
        let features =
            |xs: &Tensor| -> Result<Tensor> { with_constant(&in_batches(xs, |xs| model.features(xs))?) };
        let project = |xs: &Tensor| in_batches(xs, |xs| model.projections(xs));
        Ok(Self {
            train: features(&m.train.xs)?,
            test: features(&m.test.xs)?,
            views: [features(&m.views.0)?, features(&m.views.1)?],
            projections: [project(&m.views.0)?, project(&m.views.1)?],
        })
    }
}

pub(super) fn with_constant(z: &Tensor) -> Result<Tensor> {
    // As large as a feature is: the cut of small singular values is relative.
    let size = z.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
    let ones = (z.narrow(1, 0, 1)?.zeros_like()? + if size > 0.0 { size } else { 1.0 })?;
    Ok(Tensor::cat(&[z, &ones], 1)?)
}

impl Material {
    /// The same images with labels that say nothing of them: those of each part, permuted.
    pub(super) fn shuffled(&self) -> Self {
        let permuted = |labels: &[u32], part: &str| -> Vec<u32> {
            let key = infomax_core::Key::new(0).fold_named("shuffled labels").fold_named(part);
            let mut order: Vec<usize> = (0..labels.len()).collect();
            order.sort_by_key(|i| key.fold_in(*i as u64).words());
            order.into_iter().map(|i| labels[i]).collect()
        };
        let of = |batch: &Batch, part| Batch { labels: permuted(&batch.labels, part), xs: batch.xs.clone() };
        Self {
            train: of(&self.train, "train"),
            test: of(&self.test, "test"),
            views: self.views.clone(),
            view_labels: self.view_labels.as_ref().map(|labels| permuted(labels, "views")),
            classes: self.classes,
        }
    }
}

pub(super) fn terms(model: &Model, m: &Material) -> Result<Terms> {
    terms_of(&Embedded::new(model, m)?, m)
}

pub(super) fn terms_of(embedded: &Embedded, m: &Material) -> Result<Terms> {
    let Embedded { train, test, views: [a, b], projections } = embedded;
    let none = Resampling::none();
    let bound = generalization_terms(train, &m.train.labels, a, b, m.view_labels.as_deref(), &none)?;
    let (loss, accuracy) = least_squares((train, &m.train.labels), (test, &m.test.labels), m.classes)?;
    let pair = Embeddings::pair(projections[0].clone(), projections[1].clone())?;
    let vicreg = ObjectiveConfig::named("vicreg")?;
    let report = vicreg.build()?.evaluate(&pair, &Context::standalone())?;
    let total = report.total.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
    // A collapsed run has no account: it is left out of that predictor, not of the others.
    let account = vicreg.account(&pair).map_or(f64::NAN, |a| a.account.information);
    Ok(Terms {
        invariance: bound.invariance.value,
        labeled: bound.labeled.term,
        unlabeled: bound.unlabeled.as_ref().map(|u| u.term),
        sum: bound.known_sum,
        vicreg: total,
        rank_me: spectrum(&train.narrow(1, 0, train.dim(1)? - 1)?)?.rank_me,
        account,
        loss,
        accuracy,
    })
}

/// Every encoder of the table with what `measure` says of it; an encoder that cannot be measured is missing.
pub(super) fn each<T>(
    ctx: &mut Ctx<'_>,
    what: &str,
    mut measure: impl FnMut(&Trained) -> Result<T>,
) -> Result<Vec<(Trained, T)>> {
    let mut all = Vec::new();
    for seed in ctx.seeds() {
        for method in all_methods() {
            let Some(t) = ctx.encoder(&method, seed)? else { continue };
            match measure(&t) {
                Ok(value) => all.push((t, value)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => ctx.missing.push(format!("{what} of {} seed {seed}: {error}", method.name)),
            }
        }
    }
    Ok(all)
}
