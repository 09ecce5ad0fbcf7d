//! The main job: train without labels, then measure what was learned.

use crate::device::too_large;
use crate::evaluate::{Evaluation, TrainedOn, evaluate_until, write};
use crate::identity::identity;
use crate::ranks::Waited;
use crate::stop::Judged;
use crate::{Assembly, Error, Images, Plan, Result, RunConfig, RunObserver};
use infomax_core::{BatchSource as _, Collective, Learner as _, Local};
use infomax_kernels::{CpuProducts, Single};
use infomax_losses::EntropyConfig;
use infomax_models::Precision;
use infomax_optim::{ScheduleConfig, ScheduleKind};
use infomax_train::{Budget, Parts, RunDir, TimeTotals, Trainer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// How a run goes, beside its configuration: nothing here changes its bits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the run; `None` for the next free `runs/NNN-OBJECTIVE-DATA`.
    pub run: Option<PathBuf>,
    /// Whether the folder holds a run that is continued.
    pub resume: bool,
    /// Of a run that is continued: so many epochs in all, instead of those of its configuration.
    pub epochs: Option<u64>,
    /// Of a run that is continued: this wall time in all, instead of that of its configuration.
    pub budget: Option<Budget>,
    /// Whether the representation is evaluated at the end.
    pub evaluate: bool,
    /// The threads of the loader; 0 for one a core.
    pub workers: usize,
    /// Stops the run after the present step, saved, once it is set; of several ranks, on one of them. An evaluation at the end
    /// is stopped without a result.
    pub stop: Arc<AtomicBool>,
    /// The processes that share the run, each of which calls [`pretrain_with`] with the same configuration. Rank 0
    /// writes the folder and evaluates; the others have to see the folder where a run is continued.
    pub collective: Arc<dyn Collective>,
    /// Of several processes, the number of this one on its host: `train.device = "auto"` and `"cuda"` are the card of this
    /// number then. `None` for one process.
    pub local_rank: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run: None,
            resume: false,
            epochs: None,
            budget: None,
            evaluate: true,
            workers: 0,
            stop: Arc::default(),
            collective: Arc::new(Local),
            local_rank: None,
        }
    }
}

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The folder of the run.
    pub run: PathBuf,
    /// How training ended.
    pub training: infomax_train::Outcome,
    /// The steps of the whole run; of one with a budget, those that it made or was to make.
    pub total_steps: u64,
    /// Where the time of the steps went.
    pub times: TimeTotals,
    /// The seconds from the start to the end of training.
    pub train_seconds: f64,
    /// Samples that this process trained on, by these seconds.
    pub images_per_s: f64,
    /// What was learned; `None` if the run was interrupted or no evaluation was asked for.
    pub evaluation: Option<Evaluation>,
    /// That the evaluation was stopped ([`Options::stop`]) before it had a result: on which ranks, or by the user of a single
    /// process. Training had ended and was saved.
    pub evaluation_stopped: Option<String>,
}

/// Trains a representation in a new folder below `runs/`, and evaluates it.
///
/// # Errors
/// What the configuration, the data or the disk refuses; a value that is not finite stops the run with its name
/// and step.
pub fn pretrain(config: &RunConfig, observer: &mut dyn RunObserver) -> Result<Outcome> {
    pretrain_with(config, &Options::default(), observer)
}

/// [`pretrain`] with a folder, a continuation, a flag to stop.
///
/// # Errors
/// As [`pretrain`]; a continuation without a folder, or of another run; ranks with other settings, images or
/// parameters, and a batch that does not divide among them: on every rank, before the first step.
pub fn pretrain_with(
    config: &RunConfig,
    options: &Options,
    observer: &mut dyn RunObserver,
) -> Result<Outcome> {
    let start = Instant::now();
    // Everything that can be refused is refused before the folder of the run is made.
    let mut config = config.clone();
    match options.epochs {
        Some(0) => return Err(Error::Config("0 epochs: a run has at least 1".into())),
        // The steps of an epoch are counted in epochs again: a limit in steps would cut them off.
        Some(epochs) => {
            (config.train.run.epochs, config.train.run.max_steps) = (epochs, None);
            config.train.run.budget = None;
        }
        None => {}
    }
    config.train.run.budget = options.budget.or(config.train.run.budget);
    let continued = match (&options.run, options.resume) {
        (Some(run), true) => RunDir::latest_model(run)?.is_some(),
        _ => false,
    };
    let ranks = &*options.collective;
    let assembly = Assembly::with_start(&config, options.workers, !continued, ranks, options.local_rank)?;
    let config = &assembly.config;
    announce(config, &assembly, observer);
    let identity = identity(config, &assembly.images, assembly.learner.feature_dim(), ranks.size())?;
    crate::ranks::same_start(ranks, &identity, &*assembly.images.train, &assembly.params)?;
    let images = assembly.images.clone();
    let (damaged, total_steps, device) =
        (assembly.damaged.clone(), assembly.total_steps, assembly.device.clone());
    let place = device.clone();

    let (mut dir, path) = match (&options.run, options.resume) {
        (None, true) => return Err(Error::Config("a run is continued in its own folder; name it".into())),
        // The folder is that of rank 0, which chose it below.
        _ if ranks.rank() > 0 => {
            let path = PathBuf::from(crate::ranks::of_rank_0(ranks, "")?);
            (RunDir::follow(&path), path)
        }
        (Some(path), true) => (RunDir::open(path)?, path.clone()),
        (chosen, false) => {
            let name = format!("{}-{}", assembly.objective.name(), images.name);
            let path = chosen.clone().map_or_else(|| next_run(Path::new("runs"), &name), Ok)?;
            (RunDir::create(&path, &config.to_toml()?)?, path)
        }
    };
    if ranks.rank() == 0 {
        crate::ranks::of_rank_0(ranks, &path.to_string_lossy())?;
    }
    observer.on_note(&format!("run: {}", path.display()));
    assembly.notes.iter().try_for_each(|note| dir.log(note))?;
    log_images(&mut dir, &images, observer)?;
    dir.log(&config.optim.lr_in_words(config.train.batch))?;
    let per_epoch = assembly.loader.batches_per_epoch();

    let mut trainer = Trainer::new(Parts {
        learner: Box::new(assembly.learner),
        objective: assembly.objective,
        optimizer: assembly.optimizer,
        schedule: assembly.schedule,
        courses: assembly.courses,
        watchers: vec![Box::new(assembly.online)],
        source: crate::ahead::source(assembly.loader, &device)?,
        config: config.train.run.clone(),
        run_dir: dir,
        identity,
        collective: options.collective.clone(),
        device,
    })?;
    let timed = config.train.run.budget.is_some();
    if options.resume {
        // Rank 0 sets damaged checkpoints aside before the others look.
        if ranks.rank() > 0 {
            ranks.barrier()?;
        }
        let resumed = trainer.resume()?;
        if ranks.rank() == 0 {
            ranks.barrier()?;
        }
        crate::ranks::same_checkpoint(ranks, resumed.as_ref())?;
        match resumed {
            Some(resumed) => {
                let spent = trainer.trained_before();
                let used_up = config.train.run.budget.filter(|budget| spent >= budget.as_seconds());
                if let Some(budget) = used_up.filter(|_| options.budget.is_some()) {
                    return Err(Error::Config(format!(
                        "a budget of {budget}: the run has trained for {spent:.1} s already; give more"
                    )));
                }
                resumed.warnings.iter().for_each(|warning| observer.on_warning(warning));
                let of = if timed { String::new() } else { format!(" of {total_steps}") };
                observer.on_note(&format!("resumed at step {}{of}", resumed.step));
                if resumed.step == total_steps && !timed {
                    observer.on_note("all of its steps are made; `--epochs N` with a larger N goes on");
                }
                if let Some(budget) = used_up {
                    observer.on_note(&format!(
                        "its budget of {budget} is used up: it has trained for {spent:.1} s; `--budget TIME` with more goes on"
                    ));
                }
                // Now that it is known to fit.
                trainer.run_dir().replace_config(&config.to_toml()?)?;
            }
            None => observer.on_warning("there is no checkpoint: starting at step 0"),
        }
    }
    observer.on_start(&Plan {
        epochs: config.train.run.epochs,
        per_epoch,
        timed,
        steps: total_steps,
        done: trainer.step(),
        batch: config.train.batch,
    });
    let begun = trainer.step();
    let mut judged = Judged { inner: observer, stop: assembly.stop };
    let training = trainer.run(&options.stop, &mut judged);
    let unjudged = judged.stop.unjudged();
    let total_steps = trainer.total_steps();
    observer.on_trained();
    // After an error the others may be gone: then each rank knows its own samples only.
    let damaged = match training.is_ok() {
        true => crate::ranks::damaged(ranks, &damaged.list())?,
        false => damaged.list().into_iter().map(|(_, reason)| reason).collect(),
    };
    for reason in &damaged {
        trainer.run_dir_mut().log(&format!("replaced a sample that could not be read: {reason}"))?;
    }
    warn_damaged(&damaged, &path, observer);
    let training = training.map_err(|error| too_large(error.into(), config.train.batch, &place))?;
    unjudged.iter().for_each(|warning| observer.on_warning(warning));
    let times = trainer.times();
    let train_seconds = start.elapsed().as_secs_f64();

    let finished = matches!(training, infomax_train::Outcome::Finished { .. });
    // Evaluation is in f32, whatever the precision of training.
    CpuProducts { single: Single::Exact, ..CpuProducts::current() }
        .apply()
        .map_err(crate::error::of("train"))?;
    let waited = if finished && options.evaluate {
        crate::ranks::while_others_wait(ranks, &options.stop, |stop| {
            let learner = trainer.learner();
            let mut evaluation = evaluate_until(config, &images, learner, total_steps, observer, stop)?;
            evaluation.trained_on = Some(TrainedOn { data: images.name.clone(), images: images.train.len() });
            write(trainer.run_dir(), &evaluation)?;
            Ok(evaluation)
        })?
    } else {
        Waited::Done(None)
    };
    let (evaluation, evaluation_stopped) = match waited {
        Waited::Done(evaluation) => (evaluation, None),
        Waited::Stopped(by) => (None, Some(by.unwrap_or_else(|| "the user".into()))),
    };
    let made = (trainer.step() - begun) * config.train.batch as u64;
    let images_per_s = made as f64 / train_seconds.max(1e-9);
    Ok(Outcome {
        run: path,
        training,
        total_steps,
        times,
        train_seconds,
        images_per_s,
        evaluation,
        evaluation_stopped,
    })
}

/// What a configuration says without effect, or will regret.
fn doubts(config: &RunConfig) -> Vec<String> {
    let (schedule, usual) = (&config.optim.schedule, ScheduleConfig::default());
    let (warmup, epochs) = (schedule.warmup_epochs, config.train.run.epochs as f64);
    let (by_epochs, steps) = (config.train.run.budget.is_none(), schedule.kind == ScheduleKind::Step);
    let drops = schedule.step_epochs != usual.step_epochs || schedule.step_factor != usual.step_factor;
    let mut doubts = Vec::new();
    if by_epochs && warmup >= epochs {
        doubts.push(format!(
            "optim.warmup_epochs = {warmup} of {epochs} epochs: the learning rate is still rising at the end"
        ));
    }
    if by_epochs && steps && schedule.step_epochs >= epochs {
        doubts.push(format!(
            "optim.kind = \"step\" with optim.step_epochs = {} of {epochs} epochs: the learning rate never drops",
            schedule.step_epochs
        ));
    }
    if !steps && drops {
        doubts.push("optim.step_epochs and optim.step_factor act with optim.kind = \"step\" only".to_owned());
    }
    if (steps || schedule.kind == ScheduleKind::Constant) && schedule.final_lr_ratio != usual.final_lr_ratio {
        doubts.push("optim.final_lr_ratio has no effect with this optim.kind".to_owned());
    }
    if config.model.teacher_momentum == Some(1.0) {
        doubts.push("model.teacher_momentum = 1: the teacher stays as it began".to_owned());
    }
    let objective = &config.objective;
    if matches!(objective.entropy, EntropyConfig::None(_)) && objective.invariance.pulls_alone() {
        doubts.push(format!(
            "the objective `{}` has neither an entropy term nor a teacher or predictor: nothing in it resists collapse",
            objective.name
        ));
    }
    doubts
}

/// Says what is trained on what.
fn announce(config: &RunConfig, assembly: &Assembly, observer: &mut dyn RunObserver) {
    assembly.images.describe().iter().chain(&assembly.notes).for_each(|line| observer.on_note(line));
    assembly.images.notes.iter().for_each(|note| observer.on_note(&format!("note: {note}")));
    if let Some(why) = assembly.images.no_probe() {
        observer.on_note(&format!("note: {why}; training does not need labels"));
    }
    doubts(config).iter().for_each(|doubt| observer.on_warning(doubt));
    // What is meant for bytes: pixels are values in 0..1 when they are normalized.
    for (key, values) in [("mean", &config.augment.mean), ("std", &config.augment.std)] {
        if values.iter().flatten().any(|value| value.abs() > 2.0) {
            observer.on_warning(&format!(
                "augment.{key} = {values:?}: pixels are values in 0..1, not in 0..255; divide it by 255",
                values = values.as_deref().unwrap_or_default()
            ));
        }
    }
    if let Some(warning) = &assembly.device_warning {
        observer.on_warning(warning);
    }
    if config.train.run.accumulate > 1 {
        let parts = config.train.run.accumulate;
        let size = config.train.batch as u64 / parts;
        let statistics = match assembly.learner.batch_dependence() {
            Some(_) => {
                "; batch normalization takes the statistics of each part (train.batch_norm = \"micro-batch\")"
            }
            None => ", with the gradient of the whole batch",
        };
        observer.on_note(&format!(
            "train.accumulate = {parts}: batches are embedded in parts of {size}{statistics}"
        ));
    }
    let place = match assembly.device.is_cpu() {
        true => String::new(),
        false => format!(", on {}", crate::device::describe(&assembly.device)),
    };
    observer.on_note(&format!(
        "model: {} parameters, {} features{}{place}; objective: {}; optimizer: {}, {}; {} of {} steps of {}",
        assembly.params.count(),
        assembly.learner.feature_dim(),
        match config.train.precision {
            Precision::Bf16 => ", trained in bf16",
            Precision::Tf32 => ", trained in tf32",
            Precision::Bf16x3 => ", trained in bf16x3",
            Precision::F32 => "",
        },
        assembly.objective.name(),
        assembly.optimizer.name(),
        config.optim.lr_in_words(config.train.batch),
        match config.train.run.budget {
            Some(budget) => format!("{budget} of epochs"),
            None => match config.train.run.max_steps {
                Some(most) => format!("at most {most} steps, {} epochs", config.train.run.epochs),
                None => format!("{} epochs", config.train.run.epochs),
            },
        },
        assembly.loader.batches_per_epoch(),
        config.train.batch,
    ));
}

/// The next free `runs/NNN-NAME`.
fn next_run(root: &Path, name: &str) -> Result<PathBuf> {
    let mut last = 0u32;
    match std::fs::read_dir(root) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(|e| Error::io("read", root, e))?.file_name();
                let number = name.to_string_lossy().split('-').next().and_then(|n| n.parse().ok());
                last = last.max(number.unwrap_or(0));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", root, e)),
    }
    Ok(root.join(format!("{:03}-{name}", last + 1)))
}

/// Writes what the run was given into its log, and says which files were left out.
fn log_images(dir: &mut RunDir, images: &Images, observer: &mut dyn RunObserver) -> Result<()> {
    for line in images.describe() {
        dir.log(&line)?;
    }
    for note in &images.notes {
        dir.log(note)?;
    }
    for (path, reason) in &images.skipped {
        dir.log(&format!("skipped {}: {reason}", path.display()))?;
    }
    if !images.skipped.is_empty() {
        observer.on_note(&format!(
            "{} damaged files were left out (all are in {}):",
            images.skipped.len(),
            dir.path().join("log.txt").display()
        ));
        for (path, reason) in images.skipped.iter().take(5) {
            observer.on_note(&format!("  {}: {reason}", path.display()));
        }
    }
    Ok(())
}

/// Says which samples could not be read while the run went on, and were replaced by others.
fn warn_damaged(list: &[String], run: &Path, observer: &mut dyn RunObserver) {
    if list.is_empty() {
        return;
    }
    let mut text = format!(
        "{} samples could not be read and were replaced by others ({}):",
        list.len(),
        run.join("log.txt").display()
    );
    for reason in list.iter().take(5) {
        text += &format!("\n  {reason}");
    }
    observer.on_warning(&text);
}
