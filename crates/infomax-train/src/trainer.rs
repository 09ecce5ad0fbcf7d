//! The training loop.

use crate::capsule::Trace;
use crate::checkpoint::{Checkpoint, FORMAT_VERSION, State, Tensors};
use crate::metrics::{PartValue, StepMetrics, StepTime};
use crate::monitor::{EmbeddingStats, Health, Monitor};
use crate::{EpochSummary, Error, Observer, Result, RunDir, TrainConfig};
use candle_core::{DType, Device, Tensor};
use infomax_core::{BatchSource, Collective, Context, Key, Learner, Local, Mode, Objective, Pass, Report};
use infomax_optim::{Gradients, Optimizer, Schedule};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps were made.
    Finished {
        /// The last checkpoint.
        checkpoint: PathBuf,
        /// The number of steps.
        step: u64,
        /// The monitor's last verdict.
        health: Health,
    },
    /// The stop flag was set; resuming continues with the bits of the uninterrupted run.
    Interrupted {
        /// The checkpoint of the last finished step.
        checkpoint: PathBuf,
        /// The number of finished steps.
        step: u64,
    },
}

/// Where a run was taken up again.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The number of steps that were finished.
    pub step: u64,
    /// What the user should know: damaged checkpoints that were passed over, changed settings.
    pub warnings: Vec<String>,
}

/// All that a [`Trainer`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// What is trained.
    pub learner: Box<dyn Learner>,
    /// The loss.
    pub objective: Box<dyn Objective>,
    /// The rule that changes the parameters.
    pub optimizer: Box<dyn Optimizer>,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// The batches.
    pub source: Box<dyn BatchSource>,
    /// Epochs, checkpoints, logging, guards.
    pub config: TrainConfig,
    /// The folder of the run.
    pub run_dir: RunDir,
    /// What the parts are, for the checkpoints.
    pub identity: Identity,
    /// The processes that share each batch; [`Local`] for one.
    pub collective: Arc<dyn Collective>,
    /// Where the parameters live, and where batches are brought to.
    pub device: Device,
}

/// What a run is made of, in words: it goes into each checkpoint, and a run that continues is held against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What must not change, by name, for example the number of samples: another value is refused.
    pub fixed: BTreeMap<String, String>,
    /// Settings by key: another value is said, and the run continues with it.
    pub settings: BTreeMap<String, String>,
    /// What the model is (architecture, input, versions), as JSON: metadata of `model.safetensors`.
    pub model: String,
}

impl Parts {
    /// The parts of a run of one process, on the device of the learner's parameters.
    pub fn local(
        learner: Box<dyn Learner>,
        objective: Box<dyn Objective>,
        optimizer: Box<dyn Optimizer>,
        schedule: Schedule,
        source: Box<dyn BatchSource>,
        config: TrainConfig,
        run_dir: RunDir,
    ) -> Self {
        let device = learner.params().device().clone();
        let collective = Arc::new(Local);
        let identity = Identity::default();
        Self {
            learner,
            objective,
            optimizer,
            schedule,
            source,
            config,
            run_dir,
            identity,
            collective,
            device,
        }
    }
}

/// Drives a learner, an objective, an optimizer and a source of batches, and knows no more of them than
/// their traits. One step is
///
/// 1. the next batch, its embeddings in training mode, the objective;
/// 2. the guard: every part and the total must be finite (one read from the device);
/// 3. the gradients, averaged over the ranks: every one must be finite; clipping, the optimizer's step;
/// 4. the learner's and the objective's own updates, and the metrics.
///
/// With several ranks each holds a trainer of its own, with the same configuration and its share of every
/// batch: an error or a request to stop on one of them ends all.
#[derive(Debug)]
pub struct Trainer {
    pub(crate) parts: Parts,
    pub(crate) monitor: Monitor,
    pub(crate) trace: RefCell<Trace>,
    key: Key,
    pub(crate) step: u64,
    pub(crate) total_steps: u64,
    saved: Option<(u64, PathBuf)>,
}

/// The words that ranks agree on: the bit of a request to stop, and that of an error.
const STOP: u64 = 1;
const FAILED: u64 = 2;

impl Trainer {
    /// Puts a run together. Call [`Trainer::resume`] to continue one that is in the folder.
    ///
    /// # Errors
    /// A setting that is out of its range or does not fit the parameters, or a source without batches.
    pub fn new(mut parts: Parts) -> Result<Self> {
        parts.config.check()?;
        parts.run_dir.write_logs(&parts.config.log);
        parts.optimizer.check(parts.learner.params())?;
        if parts.source.batches_per_epoch() == 0 {
            let reason = "the source has no batch: is the batch larger than the data set?";
            return Err(Error::Config { key: "batches_per_epoch", value: "0".into(), reason });
        }
        let total_steps = parts.config.total_steps(parts.source.batches_per_epoch());
        let monitor = Monitor::new(parts.config.monitor.clone());
        let key = Key::new(parts.config.seed).fold_named("train");
        Ok(Self { parts, monitor, trace: RefCell::default(), key, step: 0, total_steps, saved: None })
    }

    /// Continues from the newest good checkpoint of the folder; `None` if there is none yet.
    ///
    /// # Errors
    /// Those of [`RunDir::latest`]; [`Error::OtherRun`] if the checkpoint belongs to another model,
    /// objective, optimizer or seed.
    pub fn resume(&mut self) -> Result<Option<Resumed>> {
        let Some(found) = RunDir::latest(self.parts.run_dir.path())? else { return Ok(None) };
        let checkpoint = &found.checkpoint;
        let mut warnings = found.warnings.clone();
        warnings.extend(self.restore(checkpoint)?);
        self.parts.run_dir.rewind(&found)?;
        let path = checkpoint.path().to_owned();
        self.parts.run_dir.log(&format!("resumed at step {} from {}", self.step, path.display()))?;
        for warning in &warnings {
            self.parts.run_dir.log(&format!("warning: {warning}"))?;
        }
        self.saved = Some((self.step, path.clone()));
        Ok(Some(Resumed { checkpoint: path, step: self.step, warnings }))
    }

    /// Takes over the state of a checkpoint; the settings that differ come back in words.
    pub(crate) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<Vec<String>> {
        let state = checkpoint.state();
        for (what, saved, now) in [
            ("the objective", state.objective.clone(), self.parts.objective.name().to_owned()),
            ("the optimizer", state.optimizer.clone(), self.parts.optimizer.name().to_owned()),
            ("the seed", state.seed.to_string(), self.parts.config.seed.to_string()),
            ("the dtype", state.dtype.clone(), self.dtype()),
        ] {
            if saved != now {
                return Err(checkpoint.other_run(format!("{what} was `{saved}`, now it is `{now}`")));
            }
        }
        let identity = &self.parts.identity;
        if let Some((name, saved, now)) = changes(&state.fixed, &identity.fixed).next() {
            return Err(checkpoint.other_run(format!("{name}: it was {saved}, now it is {now}")));
        }
        if state.step > self.total_steps {
            let total = self.total_steps;
            return Err(checkpoint.other_run(format!(
                "it has made {} steps already, and the run is to have {total}",
                state.step
            )));
        }
        // Everything is read before anything is changed.
        let (model, optimizer, objective) =
            (checkpoint.model()?, checkpoint.optimizer()?, checkpoint.objective()?);
        self.parts.learner.params().load(&model).map_err(|e| checkpoint.other_run(e.to_string()))?;
        self.parts.optimizer.load_state(&optimizer).map_err(|e| checkpoint.other_run(e.to_string()))?;
        let params = self.parts.learner.params();
        self.parts.optimizer.check(params).map_err(|e| checkpoint.other_run(e.to_string()))?;
        let device = params.device();
        let objective = objective.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(device)?)));
        let objective: BTreeMap<_, _> = objective.collect::<candle_core::Result<_>>()?;
        self.parts.objective.load_state(&objective).map_err(|e| checkpoint.other_run(e.to_string()))?;
        self.parts.source.seek(state.position)?;
        self.monitor.restore(state.monitor.clone(), state.health.clone());
        self.step = state.step;
        let mut warnings = Vec::new();
        if state.schedule != self.parts.schedule {
            warnings.push(
                "the learning rate schedule differs from that of the checkpoint: the run continues, but not as the \
                 uninterrupted one would have"
                    .to_owned(),
            );
        }
        let changed = changes(&state.settings, &identity.settings);
        let changed: Vec<_> =
            changed.map(|(key, saved, now)| format!("{key} was {saved}, now it is {now}")).collect();
        if !changed.is_empty() {
            warnings.push(format!(
                "settings differ from those of the checkpoint, and the run continues with the new ones: {}",
                changed.join("; ")
            ));
        }
        Ok(warnings)
    }

    /// Trains until all steps are made or `stop` is set; either way the last finished step is saved.
    ///
    /// # Errors
    /// [`Error::NonFinite`] names the part, gradient or parameter and leaves the checkpoints as they were;
    /// [`Error::Unused`] in the first step; errors of the disk, the data and the model.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let result = self.run_inner(stop, observer);
        if let Err(error) = &result {
            self.capsule_of_parameter(error, observer);
            // The error itself goes to the caller; a log that cannot be written must not hide it.
            let _ = self.parts.run_dir.log(&format!("stopped by an error: {error}"));
        }
        result
    }

    /// The learner, for evaluation after training.
    pub fn learner(&self) -> &dyn Learner {
        &*self.parts.learner
    }

    /// The processes of the run.
    pub fn collective(&self) -> &dyn Collective {
        &*self.parts.collective
    }

    /// The folder of the run.
    pub fn run_dir(&self) -> &RunDir {
        &self.parts.run_dir
    }

    /// The folder of the run, for logging.
    pub fn run_dir_mut(&mut self) -> &mut RunDir {
        &mut self.parts.run_dir
    }

    /// The number of finished steps.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The number of steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The counters of the source.
    pub fn source_stats(&self) -> infomax_core::SourceStats {
        self.parts.source.stats()
    }

    fn run_inner(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let start = Instant::now();
        let mut last_save = start;
        let (mut sum, mut count) = (0.0, 0u64);
        self.parts.run_dir.log(&format!("training from step {} to {}", self.step, self.total_steps))?;
        while self.step < self.total_steps {
            if self.agree(u64::from(stop.load(Ordering::Relaxed)) * STOP)? & STOP != 0 {
                let checkpoint = self.save(observer)?;
                self.parts.run_dir.log(&format!("interrupted at step {}", self.step))?;
                return Ok(Outcome::Interrupted { checkpoint, step: self.step });
            }
            let (metrics, health_changed) = self.guarded(start, observer)?;
            (sum, count) = (sum + metrics.total, count + 1);
            if metrics.step.is_multiple_of(self.parts.config.log_every) || metrics.step == self.total_steps {
                self.parts.run_dir.append(&metrics)?;
            }
            observer.on_step(&metrics);
            if health_changed {
                let health = self.monitor.health().clone();
                self.parts.run_dir.log(&format!(
                    "embedding {:?} at step {}: {}",
                    health.state, health.step, health.advice
                ))?;
                observer.on_health(&health);
            }
            // The source is at the first batch of the next epoch once this one is through.
            let position = self.parts.source.position();
            let epoch_ended = position.batch == 0;
            if epoch_ended {
                let mean_total = sum / count as f64;
                observer.on_epoch(&EpochSummary { epoch: metrics.epoch, step: self.step, mean_total });
                (sum, count) = (0.0, 0);
            }
            let every = self.parts.config.checkpoint_every_epochs;
            let due = epoch_ended && every > 0 && position.epoch.is_multiple_of(every)
                || self
                    .parts
                    .config
                    .checkpoint_every_steps
                    .is_some_and(|every| self.step.is_multiple_of(every))
                || self
                    .parts
                    .config
                    .checkpoint_every_seconds
                    .is_some_and(|s| last_save.elapsed().as_secs_f64() >= s);
            if due {
                self.save(observer)?;
                last_save = Instant::now();
            }
        }
        let checkpoint = self.save(observer)?;
        let health = self.monitor.health().clone();
        let judged = match self.monitor.has_judged() {
            true => format!("embedding {:?}", health.state),
            false => "too few measurements to judge the embedding".to_owned(),
        };
        self.parts.run_dir.log(&format!("finished at step {}, {judged}", self.step))?;
        Ok(Outcome::Finished { checkpoint, step: self.step, health })
    }

    /// One step.
    pub(crate) fn advance(&mut self, start: Instant) -> Result<(StepMetrics, bool)> {
        let began = Instant::now();
        let epoch = self.parts.source.position().epoch;
        let batch = self.parts.source.next_batch().and_then(|batch| batch.to_device(&self.parts.device));
        let batch = self.together(batch.map_err(Error::from))?;
        let data_wait_s = began.elapsed().as_secs_f64();
        let samples = batch.len();
        let key = self.key.fold_in(self.step);
        let collective = self.parts.collective.clone();
        let ranks = &*collective;
        let ctx = Context { step: self.step, total_steps: Some(self.total_steps), key, collective: ranks };
        let pass = Pass { mode: Mode::Train, key: key.fold_named("pass"), collective: ranks };

        self.trace.borrow_mut().batch(&batch.views)?;
        let mut embeddings = self.parts.learner.embed(&batch.views, &pass)?;
        self.trace.borrow_mut().embedded(self.parts.learner.params(), &embeddings)?;
        embeddings.labels = batch.labels;
        drop(batch.views);
        let report = self.parts.objective.evaluate(&embeddings, &ctx)?;
        self.trace.borrow_mut().evaluated(self.parts.learner.params(), &report)?;
        let values = self.values(&report);
        let (total, parts) = self.together(values)?;
        let store = infomax_kernels::backward(&report.total)?;
        // What follows needs values only: with the report and the embeddings goes the whole graph.
        drop(report);
        let embeddings = embeddings.detach();

        let params = self.parts.learner.params();
        self.trace.borrow_mut().gradients(params, &store)?;
        let grads = Gradients::of(params, &store).map_err(|e| self.name_step(e));
        drop(store);
        let mut grads = self.together(grads)?;
        if self.step == 0 && !self.parts.config.allow_unused_parameters {
            let mut names = grads.missing(params);
            if !names.is_empty() {
                names.truncate(8);
                return Err(Error::Unused { names, total: params.trainable().len() });
            }
        }
        grads.average(ranks).map_err(|e| self.name_step(e))?;
        let grad_norm = grads.norm();
        if let Some(max) = self.parts.config.clip_grad_norm {
            grads.clip(max)?;
        }
        let lr = self.parts.schedule.lr(self.step);
        self.trace.borrow_mut().updating(grad_norm);
        self.parts.optimizer.step(params, &grads, lr)?;
        drop(grads);
        self.parts.learner.after_step(&ctx)?;
        self.parts.objective.update(&embeddings, &ctx)?;
        self.step += 1;

        let (mut embedding, mut features, mut health, mut changed) = (None, None, None, false);
        let mut account = None;
        if self.monitor.is_due(self.step) {
            let stats = EmbeddingStats::of(&embeddings.projections[0])?;
            changed = self.monitor.observe(self.step, &stats);
            embedding = Some(stats);
            features = embeddings.features.as_ref().map(|views| EmbeddingStats::of(&views[0])).transpose()?;
            health = Some(self.monitor.health().state);
            // A measurement: what it refuses (equal rows, one view) is left out and stops nothing.
            account = self.parts.objective.account(&embeddings).ok().flatten();
        }
        let step_s = began.elapsed().as_secs_f64();
        let source = self.parts.source.stats();
        let time = StepTime {
            elapsed_s: start.elapsed().as_secs_f64(),
            step_s,
            data_wait_s,
            images_per_s: samples as f64 / step_s.max(1e-9),
            decode_s: source.decode_s,
            augment_s: source.augment_s,
        };
        let metrics = StepMetrics {
            step: self.step,
            epoch,
            total_steps: self.total_steps,
            lr,
            total,
            parts,
            grad_norm,
            embedding,
            features,
            account,
            health,
            time,
        };
        Ok((metrics, changed))
    }

    /// Reads the total and the parts in one transfer, and refuses what is not finite. Parts come first: they
    /// say more than the total.
    fn values(&self, report: &Report) -> Result<(f64, Vec<PartValue>)> {
        let dtype = report.total.dtype();
        let scalars = report.parts.iter().map(|part| part.value.detach().to_dtype(dtype));
        let mut scalars = scalars.collect::<candle_core::Result<Vec<_>>>()?;
        scalars.push(report.total.detach());
        let host = Tensor::stack(&scalars, 0)?.to_device(&candle_core::Device::Cpu)?;
        let values = host.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut parts = Vec::with_capacity(report.parts.len());
        for (part, &value) in report.parts.iter().zip(&values) {
            if !value.is_finite() {
                return Err(non_finite(&self.saved, self.step, format!("the part `{}`", part.name), value));
            }
            parts.push(PartValue { name: part.name.clone(), value, weight: part.weight });
        }
        let total = values.last().copied().unwrap_or(f64::NAN);
        if !total.is_finite() {
            return Err(non_finite(&self.saved, self.step, "the total of the objective".into(), total));
        }
        Ok((total, parts))
    }

    /// What every rank says, at once; nothing to ask for where there is one.
    fn agree(&self, word: u64) -> Result<u64> {
        Ok(if self.parts.collective.size() == 1 { word } else { self.parts.collective.agree(word)? })
    }

    /// The result, unless another rank failed: then all stop, and none waits for the one that is gone.
    fn together<T>(&self, result: Result<T>) -> Result<T> {
        let failed = self.agree(u64::from(result.is_err()) * FAILED)? & FAILED != 0;
        match result {
            Ok(_) if failed => Err(Error::OtherRank { step: self.step }),
            result => result,
        }
    }

    fn name_step(&self, error: infomax_optim::Error) -> Error {
        match error {
            infomax_optim::Error::NonFiniteGradient { name, norm } => {
                non_finite(&self.saved, self.step, format!("the gradient of `{name}`"), norm)
            }
            error => error.into(),
        }
    }

    fn dtype(&self) -> String {
        format!("{:?}", self.parts.learner.params().dtype()).to_lowercase()
    }

    /// Saves the last finished step, unless it is saved already.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<PathBuf> {
        if let Some((step, path)) = &self.saved
            && *step == self.step
        {
            return Ok(path.clone());
        }
        self.check_parameters()?;
        let (state, tensors) = self.snapshot(self.parts.learner.params().tensors())?;
        let (keep, every) = (self.parts.config.keep_checkpoints, self.parts.config.keep_every_steps);
        let path = self.parts.run_dir.save(state, &tensors, keep, every)?;
        self.parts.run_dir.log(&format!("checkpoint {}", path.display()))?;
        self.saved = Some((self.step, path.clone()));
        observer.on_checkpoint(&path, self.step);
        Ok(path)
    }

    /// Refuses parameters that are not finite.
    pub(crate) fn check_parameters(&self) -> Result<()> {
        for (name, tensor) in &self.parts.learner.params().tensors() {
            // The last update may have overflowed; such a checkpoint must not push out a good one.
            let sum = tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
            if !sum.is_finite() && has_non_finite(tensor)? {
                return Err(non_finite(
                    &self.saved,
                    self.step,
                    format!("the parameter `{name}`"),
                    sum.into(),
                ));
            }
        }
        Ok(())
    }

    /// The state with these parameters and buffers, as a checkpoint holds it.
    pub(crate) fn snapshot(&self, model: BTreeMap<String, Tensor>) -> Result<(State, Tensors)> {
        let tensors = Tensors {
            model,
            optimizer: self.parts.optimizer.state()?,
            objective: self.parts.objective.state(),
            description: self.parts.identity.model.clone(),
        };
        let (monitor, health) = self.monitor.memory();
        let state = State {
            format_version: FORMAT_VERSION,
            step: self.step,
            position: self.parts.source.position(),
            seed: self.parts.config.seed,
            key: self.key,
            schedule: self.parts.schedule,
            dtype: self.dtype(),
            objective: self.parts.objective.name().to_owned(),
            optimizer: self.parts.optimizer.name().to_owned(),
            health: health.clone(),
            monitor: monitor.to_vec(),
            fixed: self.parts.identity.fixed.clone(),
            settings: self.parts.identity.settings.clone(),
            failure: None,
            files: BTreeMap::new(),
            crc32: 0,
        };
        Ok((state, tensors))
    }
}

/// What differs between two tables that both have a value for it: name, value before, value now. What only one of
/// them has is new or gone with its choice, and is said as such.
fn changes<'a>(
    saved: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    const UNSET: &str = "unset";
    // A checkpoint of a program that kept no such table says nothing.
    let names: std::collections::BTreeSet<&String> =
        if saved.is_empty() { Default::default() } else { saved.keys().chain(now.keys()).collect() };
    names.into_iter().filter_map(move |name| {
        let of = |table: &'a BTreeMap<String, String>| table.get(name).map_or(UNSET, String::as_str);
        (of(saved) != of(now)).then(|| (name.as_str(), of(saved), of(now)))
    })
}

fn non_finite(saved: &Option<(u64, PathBuf)>, step: u64, what: String, value: f64) -> Error {
    Error::NonFinite { what, value, step, last_checkpoint: saved.as_ref().map(|(_, path)| path.clone()) }
}

/// A sum may overflow although all of its summands are finite.
fn has_non_finite(tensor: &Tensor) -> Result<bool> {
    let values =
        tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.iter().any(|value| !value.is_finite()))
}
