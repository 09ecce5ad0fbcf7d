//! The features of images by the encoder of a run.

use crate::images::damaged;
use crate::opened::{Opened, UseOptions};
use crate::{Result, RunObserver};
use candle_core::{DType, Device, Tensor};
use infomax_augment::EvalTransform;
use infomax_core::{Learner as _, Pass, View};
use infomax_data::{Dataset, EvalLoader};
use infomax_eval::FeatureBank;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What is written for each image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// The encoder's features: what probes and other tasks use.
    #[default]
    Features,
    /// The projections: what the objective acts on.
    Projections,
}

/// What is embedded.
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// Which weights and which images.
    pub of: UseOptions,
    /// Features or projections.
    pub space: Space,
}

/// The embeddings of the images of a data set, with what each row is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Embedded {
    /// `(N, D)`, f32, on the CPU: a row for each image that could be read.
    pub values: Tensor,
    /// What the rows are.
    pub rows: Vec<EmbeddedRow>,
    /// The number of finished steps of the weights.
    pub step: u64,
    /// Images that could not be read, with the reason.
    pub left_out: Vec<String>,
}

/// One row of [`Embedded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EmbeddedRow {
    /// The part of the data: `train` or `test`.
    pub part: &'static str,
    /// The index within the part.
    pub index: usize,
    /// Where the image lies.
    pub place: String,
    /// The number of the class, where it is known.
    pub label: Option<u32>,
    /// Its name.
    pub class: Option<String>,
}

/// The rows that hold a value which is not finite.
pub(crate) fn not_finite(rows: &Tensor) -> Result<usize> {
    let sums = rows.to_dtype(DType::F64)?.abs()?.sum(1)?.to_vec1::<f64>()?;
    Ok(sums.iter().filter(|sum| !sum.is_finite()).count())
}

/// Embeds all images of a run, or those at a path, in evaluation mode: first the part that is trained on, then the
/// held-out one. Images at a path are not split: a folder without a `test/` has the part `train` alone.
///
/// # Errors
/// A folder that is no run or has no checkpoint; images that cannot be opened, or too many that are damaged.
pub fn embed_run(run: &Path, options: &EmbedOptions, observer: &mut dyn RunObserver) -> Result<Embedded> {
    let opened = Opened::new(run, &options.of, observer)?;
    let Opened { config, images, learner, step, .. } = &opened;
    let transform = EvalTransform::for_recipe(&config.augment.resolve()?)?;
    let device = learner.params().device().clone();
    let embed = |xs: &Tensor| -> infomax_eval::Result<Tensor> {
        let xs = xs.to_device(&device)?;
        Ok(match options.space {
            Space::Features => learner.features(&xs)?,
            Space::Projections => learner.embed(&[View::global(xs)], &Pass::eval())?.projections[0].detach(),
        })
    };
    let parts: Vec<(&'static str, &Arc<dyn Dataset>)> =
        [("train", Some(&images.train)), ("test", images.test.as_ref())]
            .into_iter()
            .filter_map(|(part, data)| Some((part, data?)))
            .collect();
    let total: usize = parts.iter().map(|(_, data)| data.len()).sum();
    let (mut values, mut rows, mut left_out) = (Vec::new(), Vec::with_capacity(total), Vec::new());
    for (part, data) in parts {
        let loader = EvalLoader::new((*data).clone(), transform.clone(), config.eval.batch, &Device::Cpu)?
            .with_damaged(damaged(&config.data, data.len()));
        let unread = loader.damaged();
        let before = rows.len();
        let mut done = before;
        let mut failed = None;
        let batches = loader.map_while(|batch| match batch {
            Ok((xs, labels)) => {
                done += labels.len();
                observer.on_evaluation(done as u64, total as u64, part);
                Some(Ok::<_, infomax_eval::Error>((xs, labels)))
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let bank = FeatureBank::collect(batches, embed);
        if let Some(error) = failed {
            return Err(error.into());
        }
        let features = bank?.features;
        let spoiled = not_finite(&features)?;
        if spoiled > 0 {
            observer.on_warning(&format!(
                "the embeddings of {spoiled} of {} images ({part}) hold NaN or infinity: the weights are those of a run that \
                 diverged, perhaps",
                features.dim(0)?
            ));
        }
        values.push(features);
        let unread = unread.list();
        let gaps: BTreeSet<usize> = unread.iter().map(|(index, _)| *index).collect();
        for index in (0..data.len()).filter(|index| !gaps.contains(index)) {
            let label = data.label(index);
            let class = label.and_then(|label| data.classes().get(label as usize).cloned());
            rows.push(EmbeddedRow { part, index, place: data.place(index), label, class });
        }
        for (_, reason) in unread {
            observer.on_warning(&format!("left out: {reason}"));
            left_out.push(reason);
        }
    }
    observer.on_evaluation(total as u64, total as u64, "");
    Ok(Embedded { values: Tensor::cat(&values, 0)?, rows, step: *step, left_out })
}
