//! What a representation learned: the table at the end of a run.

use crate::args::EvaluateArgs;
use crate::config::RunConfig;
use crate::dataset::{self, Images};
use crate::table::table;
use crate::{Status, print};
use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infomax_augment::EvalTransform;
use infomax_core::{Key, Learner, Params};
use infomax_data::{Damaged, Dataset, EvalLoader};
use infomax_eval::{KnnConfig, LinearProbeConfig, knn, linear_probe, spectrum};
use infomax_models::JointEmbedding;
use infomax_train::RunDir;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// `evaluation.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation {
    /// The number of finished steps of the evaluated weights.
    pub(crate) step: u64,
    pub(crate) train_images: usize,
    pub(crate) test_images: usize,
    pub(crate) classes: usize,
    pub(crate) protocol: String,
    /// Why there is no probe, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_probe: Option<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) seconds: f64,
}

/// One representation.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) dim: usize,
    /// Accuracies in 0..1.
    pub(crate) linear: Option<f64>,
    pub(crate) linear_train: Option<f64>,
    pub(crate) knn: Option<f64>,
    pub(crate) rank_me: f64,
    pub(crate) effective_rank: f64,
    pub(crate) participation_ratio: f64,
}

/// `infomax evaluate RUN`.
pub(crate) fn run(args: &EvaluateArgs) -> Result<Status> {
    let mut config = RunConfig::of_run(&args.run)?;
    if let Some(data) = &args.data {
        config.data.source = crate::config::Source::Folder;
        config.data.path = Some(data.clone());
        (config.data.train_images, config.data.test_images) = (0, 0);
    }
    let found = RunDir::latest(&args.run)?.with_context(|| {
        format!("{} has no checkpoint yet; train it with `infomax pretrain --resume`", args.run.display())
    })?;
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    let images = dataset::open(&config.data)?;
    let params = params(&config);
    let learner = JointEmbedding::new(&config.model, &params)?;
    found.checkpoint.load_model(&params)?;
    let evaluation = evaluate(&config, &images, &learner, found.checkpoint.state().step, args.output.quiet)?;
    if args.data.is_none() {
        write(&RunDir::open(&args.run)?, &evaluation)?;
    }
    if args.output.json {
        print(&serde_json::to_string_pretty(&evaluation)?)?;
    } else {
        print(&text(&evaluation))?;
    }
    Ok(Status::Done)
}

/// The parameters of a run, before anything is built: their start is a function of the seed.
pub(crate) fn params(config: &RunConfig) -> Params {
    Params::new(DType::F32, &Device::Cpu, Key::new(config.train.run.seed).fold_named("init"))
}

/// Writes `evaluation.json`.
pub(crate) fn write(run: &RunDir, evaluation: &Evaluation) -> Result<()> {
    let text = serde_json::to_string_pretty(evaluation)? + "\n";
    Ok(run.write_file("evaluation.json", text.as_bytes())?)
}

/// Raw pixels of larger images are not probed: a linear classifier of them takes more memory and time than
/// the training, and says as little as that of small ones.
const MAX_PIXELS: usize = 3 * 64 * 64;

/// Features and labels of one data set.
struct Bank {
    features: Tensor,
    labels: Option<Vec<u32>>,
}

fn bank(
    images: &Arc<dyn Dataset>,
    transform: &EvalTransform,
    batch: usize,
    damaged: Damaged,
    bar: &ProgressBar,
    f: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<Bank> {
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    let pass = EvalLoader::new(images.clone(), transform.clone(), batch, &Device::Cpu)?.with_damaged(damaged);
    let left_out = pass.damaged();
    for part in pass {
        let (xs, ys) = part?;
        bar.inc(ys.len() as u64);
        features.push(f(&xs)?);
        labels.extend(ys);
    }
    for (_, reason) in left_out.list() {
        bar.suspend(|| eprintln!("warning: left out of the evaluation: {reason}"));
    }
    Ok(Bank { features: Tensor::cat(&features, 0)?, labels: labels.into_iter().collect() })
}

/// Evaluates a learner against the same encoder at its random start and against raw pixels.
pub(crate) fn evaluate(
    config: &RunConfig,
    images: &Images,
    learner: &dyn Learner,
    step: u64,
    quiet: bool,
) -> Result<Evaluation> {
    let start = Instant::now();
    let recipe = config.augment.resolve()?;
    let transform = EvalTransform::for_recipe(&recipe)?;
    let random = JointEmbedding::new(&config.model, &params(config))?;
    type Features<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>;
    let mut subjects: Vec<(String, Features<'_>)> =
        vec![("trained encoder".into(), Box::new(|xs| Ok(learner.features(xs)?)))];
    if config.eval.random_baseline {
        subjects.push(("random encoder".into(), Box::new(|xs| Ok(random.features(xs)?))));
    }
    let (channels, height, width) = transform.output();
    if config.eval.pixel_baseline && channels * height * width <= MAX_PIXELS {
        subjects.push(("raw pixels".into(), Box::new(|xs| Ok(xs.flatten_from(1)?))));
    }

    let no_probe = images.no_probe();
    let test = images.test.as_ref().filter(|_| no_probe.is_none());
    let per_subject = images.labelled.len() + test.map_or(0, |t| t.len());
    let bar = ProgressBar::new((per_subject * subjects.len()) as u64);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("evaluate [{bar:24}] {pos}/{len} images  {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut protocol = String::new();
    let mut rows = Vec::new();
    for (what, f) in &subjects {
        bar.set_message(what.clone());
        let damaged = |data: &Arc<dyn Dataset>| dataset::damaged(&config.data, data.len());
        let train =
            bank(&images.labelled, &transform, config.eval.batch, damaged(&images.labelled), &bar, f)?;
        let spectrum = spectrum(&train.features)?;
        let mut row = Row {
            what: what.clone(),
            dim: train.features.dims()[1],
            linear: None,
            linear_train: None,
            knn: None,
            rank_me: spectrum.rank_me,
            effective_rank: spectrum.effective_rank,
            participation_ratio: spectrum.participation_ratio,
        };
        if let (Some(test), Some(train_labels)) = (test, &train.labels) {
            let held_out = bank(test, &transform, config.eval.batch, damaged(test), &bar, f)?;
            let test_labels = held_out.labels.context("the held-out images have no labels")?;
            bar.set_message(format!("{what}: probes"));
            let neighbours = KnnConfig { k: config.eval.knn_k, temperature: config.eval.knn_temperature };
            let near = knn(&train.features, train_labels, &held_out.features, &test_labels, &neighbours)?;
            let linear = LinearProbeConfig::default();
            let probe =
                linear_probe(&train.features, train_labels, &held_out.features, &test_labels, &linear)?;
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
    bar.finish_and_clear();
    Ok(Evaluation {
        step,
        train_images: images.labelled.len(),
        test_images: images.test.as_ref().map_or(0, |t| t.len()),
        classes: images.labelled.classes().len(),
        protocol,
        no_probe,
        rows,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The evaluation as a table.
pub(crate) fn text(evaluation: &Evaluation) -> String {
    let percent = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{:.1} %", 100.0 * x));
    let rows: Vec<Vec<String>> = evaluation
        .rows
        .iter()
        .map(|row| {
            vec![
                row.what.clone(),
                row.dim.to_string(),
                percent(row.linear),
                percent(row.knn),
                format!("{:.1}", row.effective_rank),
                format!("{:.1}", row.participation_ratio),
            ]
        })
        .collect();
    let header = ["representation", "dim", "linear", "kNN", "effective rank", "participation"];
    let mut text = match (&evaluation.no_probe, evaluation.test_images) {
        (None, test) => format!(
            "Held-out accuracy on {test} images of {} classes, after {} steps on {} images without labels:\n",
            evaluation.classes, evaluation.step, evaluation.train_images
        ),
        (Some(why), _) => format!("No probe: {why}.\n"),
    };
    text += &table(&header, &rows);
    if !evaluation.protocol.is_empty() {
        text += &format!("\n{}", evaluation.protocol);
    }
    text
}
