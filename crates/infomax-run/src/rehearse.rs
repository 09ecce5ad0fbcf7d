//! A rehearsal of one step: what a run would refuse after it began is refused before.

use crate::config::Source;
use crate::error::of;
use crate::{Error, Images, Result, RunConfig};
use candle_core::{DType, Tensor};
use infomax_augment::{Augmenter, Recipe};
use infomax_core::{Context, Embeddings, Key, Learner, LocalMap, Pass, Report, View, Views};

/// What a rehearsal found.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    /// What is merely idle, in words.
    pub(crate) note: Option<String>,
    /// The parts of the objective by name.
    pub(crate) parts: Vec<String>,
}

/// Embeds two empty samples, and evaluates the objective on as many rows of noise as a batch has, with what the
/// model gives: a method without its teacher, predictor or labels, a batch below the dimension where that cannot
/// be, views that the encoder does not take. What is merely idle comes back in words. Of several ranks, each embeds
/// `share` samples of the batch.
///
/// # Errors
/// What the encoder or the objective refuses, with the section of the configuration.
pub(crate) fn rehearse(
    config: &RunConfig,
    images: &Images,
    recipe: &Recipe,
    learner: &dyn Learner,
    share: usize,
) -> Result<Rehearsal> {
    config.train.run.check_accumulation(learner, share).map_err(of("train"))?;
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
            let larger = match config.data.source {
                Source::Shapes => "; data.shapes.size = 32 draws larger images",
                _ => "",
            };
            Error::Config(format!(
                "the encoder refuses views of {height}x{width} pixels ({key}, [model.encoder]): {error}{larger}"
            ))
        })?;
        views.push(if local { View::local(values) } else { View::global(values) });
    }
    let seen = learner.embed(&views, &Pass::eval()).map_err(of("model"))?;
    let key = Key::new(0).fold_named("rehearsal");
    let batch = config.train.batch;
    let noise = |views: &Views, name: &str| {
        let mut view = 0;
        let rows = views.map(|z| {
            view += 1;
            let shape = (batch, z.dims()[1]);
            key.fold_named(name).fold_in(view).normal(0.0, 1.0, shape, z.dtype(), z.device())
        })?;
        let Some(maps) = views.local() else { return Ok(rows) };
        let maps = maps.iter().enumerate().map(|(view, map)| {
            let (_, patches, dim) = map.values().dims3()?;
            let key = key.fold_named("local").fold_in(view as u64);
            let (dtype, device) = (map.values().dtype(), map.values().device());
            let values = key.normal(0.0, 1.0, (batch, patches, dim), dtype, device)?;
            LocalMap::new(
                values,
                Some(key.fold_named("places").normal(0.0, 1.0, (batch, patches, 2), dtype, device)?),
            )
        });
        rows.with_local(maps.collect::<infomax_core::Result<_>>()?)
    };
    let optional = |views: &Option<Views>, name: &str| views.as_ref().map(|v| noise(v, name)).transpose();
    let embeddings = Embeddings {
        projections: noise(&seen.projections, "projections")?,
        predictions: optional(&seen.predictions, "predictions")?,
        targets: optional(&seen.targets, "targets")?,
        features: optional(&seen.features, "features")?,
        globals: seen.globals,
        labels: labels(images, batch),
    };
    // An objective of its own for each time: running state must not remember the rehearsal.
    let report = |embeddings: &Embeddings| {
        let objective = config.objective.build().map_err(infomax_core::Error::from)?;
        let context = Context { total_steps: Some(1), ..Context::standalone() };
        objective.evaluate(embeddings, &context)
    };
    let number = |report: &Report| -> infomax_core::Result<f64> {
        Ok(report.total.to_dtype(DType::F64)?.to_scalar::<f64>()?)
    };
    let first = report(&embeddings).and_then(|report| Ok((number(&report)?, report)));
    let (whole, report_of_all) = first.map_err(|error| {
        let some = (0..batch as u32).map(|i| i % 2).collect();
        let labeled = Embeddings { labels: Some(some), ..embeddings.clone() };
        if embeddings.labels.is_none() && report(&labeled).is_ok() {
            return without_labels(config, images);
        }
        Error::Config(format!(
            "the objective `{}` refuses what this model gives for a batch of {batch}: {error}",
            config.objective.name
        ))
    })?;
    let same = |other: &Embeddings| {
        report(other).and_then(|report| number(&report)).is_ok_and(|value| value.to_bits() == whole.to_bits())
    };
    one_class(config, images, &embeddings, &same)?;
    let parts = report_of_all.parts.iter().map(|part| part.name.to_string()).collect();
    let note = unused(config, embeddings, &same)?;
    Ok(Rehearsal { note, parts })
}

/// Refuses a head that the objective does not look at: without it nothing changes, and it would never learn. A teacher
/// of that kind is an average of the weights, which may be wanted: it is said.
fn unused(
    config: &RunConfig,
    embeddings: Embeddings,
    same: &dyn Fn(&Embeddings) -> bool,
) -> Result<Option<String>> {
    let text = |key: &str, what: &str, remedy: &str| {
        format!("model.{key}: the objective `{}` does not look at {what}; {remedy}", config.objective.name)
    };
    let teacher = embeddings.targets.is_some() && same(&Embeddings { targets: None, ..embeddings.clone() });
    let note = teacher.then(|| {
        text("teacher_momentum", "the targets of a teacher", "it is an average of the weights and no more")
    });
    if config.train.run.allow_unused_parameters {
        return Ok(note);
    }
    let refuse = |key, what| {
        let leave = "leave it out, or choose a method that has it (`infomax methods`)";
        Err(Error::Config(text(key, what, leave)))
    };
    if embeddings.projections.local().is_some() {
        let projections = embeddings.projections.map(|z| Ok(z.clone()))?;
        if same(&Embeddings { projections, ..embeddings.clone() }) {
            return refuse("local_projector", "local embeddings");
        }
    }
    if embeddings.predictions.is_some() && same(&Embeddings { predictions: None, ..embeddings.clone() }) {
        return refuse("predictor", "predictions");
    }
    Ok(note)
}

/// What an objective that learns from labels says of images without.
fn without_labels(config: &RunConfig, images: &Images) -> Error {
    let data = &images.train;
    let missing: Vec<usize> = (0..data.len()).filter(|index| data.label(*index).is_none()).collect();
    let first =
        missing.first().map(|index| format!(" (the first: {})", data.place(*index))).unwrap_or_default();
    Error::Config(format!(
        "the objective `{}` learns from labels, and {} of {} training images have none{first}: put a folder a class into \
         the training folder (or `labels` into the file of arrays), leave the images without a class out, or choose a method without labels (`infomax methods`)",
        config.objective.name,
        missing.len(),
        data.len()
    ))
}

/// Refuses an objective that looks at labels where all images have the same one: there are no classes to tell apart.
fn one_class(
    config: &RunConfig,
    images: &Images,
    embeddings: &Embeddings,
    same: &dyn Fn(&Embeddings) -> bool,
) -> Result<()> {
    let data = &images.train;
    let first = (!data.is_empty()).then(|| data.label(0)).flatten();
    let Some(label) = first.filter(|_| (1..data.len()).all(|index| data.label(index) == first)) else {
        return Ok(());
    };
    let unlabeled = Embeddings { labels: None, ..embeddings.clone() };
    if same(&unlabeled) {
        return Ok(());
    }
    let name = data.classes().get(label as usize).map(|name| format!(" (`{name}`)")).unwrap_or_default();
    Err(Error::Config(format!(
        "the objective `{}` learns from labels, and all {} training images have the same class{name}: put a folder \
         a class into the training folder, or choose a method without labels (`infomax methods`)",
        config.objective.name,
        data.len()
    )))
}

/// Labels of a batch, if every sample has one.
fn labels(images: &Images, batch: usize) -> Option<Vec<u32>> {
    let data = &images.train;
    let labels: Option<Vec<u32>> = (0..data.len()).map(|index| data.label(index)).collect();
    labels.filter(|all| !all.is_empty()).map(|all| all.into_iter().cycle().take(batch).collect())
}
