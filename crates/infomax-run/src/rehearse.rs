//! A rehearsal of one step: what a run would refuse after it began is refused before.

use crate::error::of;
use crate::{Error, Images, Result, RunConfig};
use candle_core::{DType, Tensor};
use infomax_augment::{Augmenter, Recipe};
use infomax_core::{Context, Embeddings, Key, Learner, Pass, View, Views};

/// Embeds two empty samples, and evaluates the objective on as many rows of noise as a batch has, with what the
/// model gives: a method without its teacher, predictor or labels, a batch below the dimension where that cannot
/// be, views that the encoder does not take.
///
/// # Errors
/// What the encoder or the objective refuses, with the section of the configuration.
pub(crate) fn rehearse(
    config: &RunConfig,
    images: &Images,
    recipe: &Recipe,
    learner: &dyn Learner,
) -> Result<()> {
    config.train.run.check_accumulation(learner, config.train.batch).map_err(of("train"))?;
    let augmenter = Augmenter::new(recipe)?;
    let device = learner.params().device();
    let kinds = recipe.views.iter().flat_map(|view| std::iter::repeat_n(view.local, view.count));
    let mut views = Vec::new();
    for (view, local) in kinds.enumerate() {
        let (channels, height, width) = augmenter.output(view);
        let values = Tensor::zeros((2, channels, height, width), DType::F32, device)?;
        // Each kind of view by itself: the message names its size.
        learner.features(&values).map_err(|error| {
            let key = match (&config.augment.recipe, config.augment.size) {
                (None, Some(size)) => format!("augment.size = {size}"),
                _ => "[augment]".to_owned(),
            };
            Error::Config(format!(
                "the encoder refuses views of {height}x{width} pixels ({key}, [model.encoder]): {error}"
            ))
        })?;
        views.push(if local { View::local(values) } else { View::global(values) });
    }
    let seen = learner.embed(&views, &Pass::eval()).map_err(of("model"))?;
    let key = Key::new(0).fold_named("rehearsal");
    let noise = |views: &Views, name: &str| {
        let mut view = 0;
        views.map(|z| {
            view += 1;
            let shape = (config.train.batch, z.dims()[1]);
            key.fold_named(name).fold_in(view).normal(0.0, 1.0, shape, z.dtype(), z.device())
        })
    };
    let optional = |views: &Option<Views>, name: &str| views.as_ref().map(|v| noise(v, name)).transpose();
    let embeddings = Embeddings {
        projections: noise(&seen.projections, "projections")?,
        predictions: optional(&seen.predictions, "predictions")?,
        targets: optional(&seen.targets, "targets")?,
        features: optional(&seen.features, "features")?,
        globals: seen.globals,
        labels: labels(images, config.train.batch),
    };
    // An objective of its own: running state must not remember the rehearsal.
    let objective = config.objective.build().map_err(of("objective"))?;
    let context = Context { total_steps: Some(1), ..Context::standalone() };
    objective.evaluate(&embeddings, &context).map(drop).map_err(|error| {
        Error::Config(format!(
            "the objective `{}` refuses what this model gives for a batch of {}: {error}",
            config.objective.name, config.train.batch
        ))
    })
}

/// Labels of a batch, if every sample has one.
fn labels(images: &Images, batch: usize) -> Option<Vec<u32>> {
    let data = &images.train;
    let labels: Option<Vec<u32>> = (0..data.len()).map(|index| data.label(index)).collect();
    labels.filter(|all| !all.is_empty()).map(|all| all.into_iter().cycle().take(batch).collect())
}
