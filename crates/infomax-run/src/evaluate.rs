//! What a representation learned: probes and ranks beside those of a random encoder and of raw pixels.

use crate::assemble::{fit_to_images, params};
use crate::images::damaged;
use crate::opened::{Opened, UseOptions};
use crate::{Error, Images, Result, RunConfig, RunObserver};
use candle_core::{Device, Tensor};
use infomax_augment::EvalTransform;
use infomax_core::Learner;
use infomax_data::{Dataset, EvalLoader};
use infomax_eval::{FeatureBank, knn, linear_probe, spectrum, uniformity};
use infomax_models::JointEmbedding;
use infomax_train::RunDir;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What was measured: `evaluation.json` of a run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// The number of finished steps of the evaluated weights.
    pub step: u64,
    /// What the weights were trained on; `None` for a checkpoint that does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<TrainedOn>,
    /// The data that is evaluated on.
    pub data: String,
    /// The images whose features the probes are trained on.
    pub train_images: usize,
    /// The held-out images; where there is a probe, those that it is tested on.
    pub test_images: usize,
    /// The classes; where there is a probe, those that occur among the images that it is trained on.
    pub classes: usize,
    /// The images that the probes are not trained on, since they have no label.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlabeled_train: usize,
    /// The held-out images that the probes leave out, since they have no label or a class that no training image has.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlabeled_test: usize,
    /// How the probes were made, in words.
    pub protocol: String,
    /// Why there is no probe, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_probe: Option<String>,
    /// One row a representation.
    pub rows: Vec<Row>,
    /// The seconds that it took.
    pub seconds: f64,
}

/// What weights were trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrainedOn {
    /// The name of the data set.
    pub data: String,
    /// The number of its images.
    pub images: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One representation.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Which: `trained encoder`, `random encoder` (as training found it: layers that are set from images are), `raw pixels`.
    pub what: String,
    /// The width of its features.
    pub dim: usize,
    /// The accuracy of the linear probe on held-out images, in 0..1.
    pub linear: Option<f64>,
    /// The same on the images that the probe was trained on.
    pub linear_train: Option<f64>,
    /// The accuracy of the nearest-neighbor classifier, in 0..1.
    pub knn: Option<f64>,
    /// See [`infomax_eval::Spectrum::rank_me`].
    pub rank_me: f64,
    /// See [`infomax_eval::Spectrum::effective_rank`].
    pub effective_rank: f64,
    /// See [`infomax_eval::Spectrum::participation_ratio`].
    pub participation_ratio: f64,
    /// See [`infomax_eval::uniformity`]; of the first 2,048 images.
    pub uniformity: f64,
}

/// Raw pixels of larger images are not probed: a linear classifier of them takes more memory and time than
/// the training, and says as little as that of small ones.
const MAX_PIXELS: usize = 3 * 64 * 64;

/// Rows that the pairwise uniformity looks at: its cost stays bounded.
const UNIFORMITY_ROWS: usize = 2048;

/// Evaluates a checkpoint of a run, the newest unless another is named, on its own images or on those at a path. An
/// evaluation of the newest checkpoint on its own images is written into the run's folder, if that can be written.
///
/// # Errors
/// A folder that is no run or has no checkpoint; images that cannot be opened.
pub fn evaluate_run(run: &Path, options: &UseOptions, observer: &mut dyn RunObserver) -> Result<Evaluation> {
    let Opened { config, images, learner, step, card } = Opened::new(run, options, observer)?;
    let mut evaluation = evaluate(&config, &images, &learner, step, observer)?;
    evaluation.trained_on = card.map(|card| TrainedOn { data: card.data, images: card.images });
    if options.data.is_none() && options.checkpoint.is_none() && options.init.is_none() {
        let written = RunDir::write_into(run, FILE, &encode(&evaluation)?);
        if let Err(error) = written {
            observer.on_warning(&format!("the evaluation is not kept with the run: {error}"));
        }
    }
    Ok(evaluation)
}

/// The file of an evaluation in the folder of its run.
const FILE: &str = "evaluation.json";

/// Writes `evaluation.json`.
pub(crate) fn write(run: &RunDir, evaluation: &Evaluation) -> Result<()> {
    Ok(run.write_file(FILE, &encode(evaluation)?)?)
}

fn encode(evaluation: &Evaluation) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(evaluation);
    Ok((text.map_err(|e| Error::io("encode", Path::new(FILE), e.into()))? + "\n").into_bytes())
}

/// A representation: its name and its features of a batch.
type Subject<'a> = (&'a str, Box<dyn Fn(&Tensor) -> infomax_eval::Result<Tensor> + 'a>);

/// Evaluates a learner against the same encoder at its random start and against raw pixels, as `[eval]` says.
///
/// # Errors
/// Images that cannot be read, features that are not finite.
pub fn evaluate(
    config: &RunConfig,
    images: &Images,
    learner: &dyn Learner,
    step: u64,
    observer: &mut dyn RunObserver,
) -> Result<Evaluation> {
    evaluate_until(config, images, learner, step, observer, &AtomicBool::new(false))
}

/// [`evaluate`], which ends within a batch or a probe once `stop` is set.
///
/// # Errors
/// As [`evaluate`]; [`Error::Stopped`].
pub(crate) fn evaluate_until(
    config: &RunConfig,
    images: &Images,
    learner: &dyn Learner,
    step: u64,
    observer: &mut dyn RunObserver,
    stop: &AtomicBool,
) -> Result<Evaluation> {
    let start = Instant::now();
    let recipe = config.augment.resolve()?;
    let transform = EvalTransform::for_recipe(&recipe)?;
    let device = learner.params().device().clone();
    let start_params = params(config, &device);
    let random = JointEmbedding::new(&config.model, &start_params)?;
    if config.eval.random_baseline {
        fit_to_images(config, images, &start_params)?;
    }
    let on_device = |xs: &Tensor| xs.to_device(&device);
    let mut subjects: Vec<Subject<'_>> =
        vec![("trained encoder", Box::new(|xs| Ok(learner.features(&on_device(xs)?)?)))];
    if config.eval.random_baseline {
        subjects.push(("random encoder", Box::new(|xs| Ok(random.features(&on_device(xs)?)?))));
    }
    let (channels, height, width) = transform.output();
    if config.eval.pixel_baseline && channels * height * width <= MAX_PIXELS {
        subjects.push(("raw pixels", Box::new(|xs| Ok(xs.clone()))));
    }

    let no_probe = images.no_probe();
    let test = images.test.as_ref().filter(|_| no_probe.is_none());
    let per_subject = images.labeled.len() + test.map_or(0, |t| t.len());
    let mut pass =
        Pass { transform, config, done: 0, total: (per_subject * subjects.len()) as u64, observer, stop };
    let (mut protocol, mut rows, mut probed) = (String::new(), Vec::new(), None);
    let mut spectrum_notes = Vec::new();
    for (what, f) in &subjects {
        let train = pass.bank(&images.labeled, what, f)?;
        let (some, note) = spectrum_rows(&train.features)?;
        spectrum_notes.extend(note.map(|note| format!("{what}: {note}")));
        let spectrum = spectrum(&some)?;
        let some = train.features.narrow(0, 0, train.features.dims()[0].min(UNIFORMITY_ROWS))?;
        let mut row = Row {
            what: (*what).to_owned(),
            dim: train.features.dims()[1],
            linear: None,
            linear_train: None,
            knn: None,
            rank_me: spectrum.rank_me,
            effective_rank: spectrum.effective_rank,
            participation_ratio: spectrum.participation_ratio,
            uniformity: uniformity(&some)?,
        };
        // Classes are numbered as they occur: neither gaps nor classes of other parts cost anything.
        let classes: BTreeSet<u32> = train.labels.iter().flatten().copied().collect();
        let classes: BTreeMap<u32, u32> = classes.into_iter().zip(0..).collect();
        if let (Some(test), true) = (test, classes.len() > 1) {
            let held_out = pass.bank(test, what, f)?;
            let (train, train_labels) = labeled_rows(&train, &classes)?;
            let (held_out, test_labels) = labeled_rows(&held_out, &classes)?;
            if test_labels.is_empty() {
                rows.push(row);
                continue;
            }
            probed = Some((train_labels.len(), test_labels.len(), classes.len()));
            pass.observer.on_evaluation(pass.done, pass.total, &format!("{what}: probes"));
            let (knn_config, linear) = (&config.eval.knn, &config.eval.linear);
            let near = knn(&train, &train_labels, &held_out, &test_labels, knn_config)?;
            pass.go_on()?;
            let probe = linear_probe(&train, &train_labels, &held_out, &test_labels, linear)?;
            row.knn = Some(near.accuracy);
            row.linear = Some(probe.accuracy);
            row.linear_train = Some(probe.train_accuracy);
            protocol = format!(
                "linear: {}\nkNN: k = {}, cosine similarity, votes weighted by exp(similarity / {})",
                probe.protocol, near.k, near.temperature
            );
        }
        rows.push(row);
    }
    for note in spectrum_notes {
        protocol.push_str(&format!("{}{note}", if protocol.is_empty() { "" } else { "\n" }));
    }
    let total = pass.total;
    observer.on_evaluation(total, total, "");
    let (all_train, all_test) = (images.labeled.len(), images.test.as_ref().map_or(0, |t| t.len()));
    let (train_images, test_images, classes) =
        probed.unwrap_or((all_train, all_test, images.labeled.classes().len()));
    Ok(Evaluation {
        step,
        trained_on: None,
        data: images.name.clone(),
        train_images: all_train,
        test_images,
        classes,
        unlabeled_train: all_train.saturating_sub(train_images),
        unlabeled_test: all_test.saturating_sub(test_images),
        protocol,
        no_probe,
        rows,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The rows that ranks are taken of: all, but of wide features so many that their Gram matrix has its eigenvalues in
/// seconds; then what to say of it.
fn spectrum_rows(features: &Tensor) -> Result<(Tensor, Option<String>)> {
    const WIDE: usize = 2048;
    let (n, d) = features.dims2()?;
    if d <= WIDE || n <= WIDE {
        return Ok((features.clone(), None));
    }
    let rows: Vec<u32> = (0..WIDE).map(|i| (i * n / WIDE) as u32).collect();
    let some = features.index_select(&Tensor::from_vec(rows, WIDE, features.device())?, 0)?;
    Ok((some, Some(format!("ranks of {d} features from {WIDE} rows, evenly through the {n}"))))
}

/// The rows whose class is one of these, with its new number.
pub(crate) fn labeled_rows(bank: &FeatureBank, classes: &BTreeMap<u32, u32>) -> Result<(Tensor, Vec<u32>)> {
    let number = |label: &Option<u32>| label.and_then(|label| classes.get(&label).copied());
    let known = bank.labels.iter().zip(0u32..).filter_map(|(label, row)| Some((row, number(label)?)));
    let (rows, labels): (Vec<u32>, Vec<u32>) = known.unzip();
    if rows.len() == bank.labels.len() || rows.is_empty() {
        return Ok((bank.features.clone(), labels));
    }
    let count = rows.len();
    let rows = Tensor::from_vec(rows, count, bank.features.device())?;
    Ok((bank.features.index_select(&rows, 0)?, labels))
}

/// Passes over data sets, counted.
struct Pass<'a> {
    transform: EvalTransform,
    config: &'a RunConfig,
    done: u64,
    total: u64,
    observer: &'a mut dyn RunObserver,
    stop: &'a AtomicBool,
}

impl Pass<'_> {
    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::SeqCst) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// The features of a data set, with its labels.
    fn bank(
        &mut self,
        images: &Arc<dyn Dataset>,
        what: &str,
        f: &dyn Fn(&Tensor) -> infomax_eval::Result<Tensor>,
    ) -> Result<FeatureBank> {
        let policy = damaged(&self.config.data, images.len());
        let batch = self.config.eval.batch;
        let pass = EvalLoader::new(images.clone(), self.transform.clone(), batch, &Device::Cpu)?;
        let pass = pass.with_damaged(policy);
        let left_out = pass.damaged();
        // An error of the data is kept as what it is: the bank knows errors of evaluations only.
        let mut failed: Option<Error> = None;
        let batches = pass.map_while(|part| match part {
            Ok(_) if self.go_on().is_err() => {
                failed = Some(Error::Stopped);
                None
            }
            Ok((xs, labels)) => {
                self.done += labels.len() as u64;
                self.observer.on_evaluation(self.done, self.total, what);
                Some(Ok::<_, infomax_eval::Error>((xs, labels)))
            }
            Err(error) => {
                failed = Some(error.into());
                None
            }
        });
        let bank = FeatureBank::collect(batches, f);
        if let Some(error) = failed {
            return Err(error);
        }
        self.go_on()?;
        for (_, reason) in left_out.list() {
            self.observer.on_warning(&format!("left out of the evaluation: {reason}"));
        }
        Ok(bank?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wide_features_of_many_rows_are_thinned_evenly_and_it_is_said() {
        let column = |n: u32| Tensor::arange(0, n, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let wide = |n: u32, d: usize| column(n).broadcast_as((n as usize, d)).unwrap().contiguous().unwrap();
        for (n, d) in [(4096, 2048), (2048, 3000), (10, 3000)] {
            let (some, note) = spectrum_rows(&wide(n, d)).unwrap();
            assert_eq!((some.dims2().unwrap(), note), ((n as usize, d), None));
        }
        let (some, note) = spectrum_rows(&wide(4096, 2049)).unwrap();
        let rows = some.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(rows, (0..2048).map(|i| 2 * i).collect::<Vec<u32>>());
        assert!(note.unwrap().contains("2048 rows, evenly through the 4096"));
    }
}
