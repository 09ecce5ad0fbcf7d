//! The training loop.

use crate::checkpoint::{FORMAT_VERSION, State, Tensors};
use crate::metrics::{PartValue, StepMetrics, StepTime};
use crate::monitor::{EmbeddingStats, Health, Monitor};
use crate::{EpochSummary, Error, Observer, Result, RunDir, TrainConfig};
use candle_core::{DType, Tensor};
use infomax_core::{BatchSource, Context, Embeddings, Key, Learner, Local, Mode, Objective, Report, Views};
use infomax_optim::{Optimizer, Schedule, clip_grad_norm, grad_norm, without_gradient};
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    /// What the user should know: damaged checkpoints that were passed over, a changed schedule.
    pub warnings: Vec<String>,
}

/// Drives a learner, an objective, an optimiser and a source of batches, and knows no more of them than
/// their traits. One step is
///
/// 1. the next batch, its embeddings in training mode, the objective;
/// 2. the guard: every part and the total must be finite (one read from the device);
/// 3. the gradient, its norm (every gradient must be finite), clipping, the optimiser's step;
/// 4. the learner's and the objective's own updates, and the metrics.
#[derive(Debug)]
pub struct Trainer {
    learner: Box<dyn Learner>,
    objective: Box<dyn Objective>,
    optimizer: Box<dyn Optimizer>,
    schedule: Schedule,
    source: Box<dyn BatchSource>,
    config: TrainConfig,
    run_dir: RunDir,
    monitor: Monitor,
    key: Key,
    step: u64,
    total_steps: u64,
    saved: Option<(u64, PathBuf)>,
}

impl Trainer {
    /// Puts a run together. Call [`Trainer::resume`] to continue one that is in the folder.
    ///
    /// # Errors
    /// A setting that is out of its range, or a source without batches.
    pub fn new(
        learner: Box<dyn Learner>,
        objective: Box<dyn Objective>,
        optimizer: Box<dyn Optimizer>,
        schedule: Schedule,
        source: Box<dyn BatchSource>,
        config: TrainConfig,
        run_dir: RunDir,
    ) -> Result<Self> {
        config.check()?;
        if source.batches_per_epoch() == 0 {
            let reason = "the source has no batch: is the batch larger than the data set?";
            return Err(Error::Config { key: "batches_per_epoch", value: "0".into(), reason });
        }
        let total_steps = config.total_steps(source.batches_per_epoch());
        let monitor = Monitor::new(config.monitor.clone());
        let key = Key::new(config.seed).fold_named("train");
        Ok(Self {
            learner,
            objective,
            optimizer,
            schedule,
            source,
            config,
            run_dir,
            monitor,
            key,
            step: 0,
            total_steps,
            saved: None,
        })
    }

    /// Continues from the newest good checkpoint of the folder; `None` if there is none yet.
    ///
    /// # Errors
    /// Those of [`RunDir::latest`]; [`Error::OtherRun`] if the checkpoint belongs to another model,
    /// objective, optimiser or seed.
    pub fn resume(&mut self) -> Result<Option<Resumed>> {
        let Some(found) = RunDir::latest(self.run_dir.path())? else { return Ok(None) };
        let (checkpoint, state) = (&found.checkpoint, found.checkpoint.state());
        for (what, saved, now) in [
            ("the objective", state.objective.clone(), self.objective.name().to_owned()),
            ("the optimiser", state.optimizer.clone(), self.optimizer.name().to_owned()),
            ("the seed", state.seed.to_string(), self.config.seed.to_string()),
            ("the dtype", state.dtype.clone(), self.dtype()),
        ] {
            if saved != now {
                return Err(checkpoint.other_run(format!("{what} was `{saved}`, now it is `{now}`")));
            }
        }
        // Everything is read before anything is changed.
        let (model, optimizer, objective) =
            (checkpoint.model()?, checkpoint.optimizer()?, checkpoint.objective()?);
        self.learner.params().load(&model).map_err(|e| checkpoint.other_run(e.to_string()))?;
        self.optimizer.load_state(&optimizer).map_err(|e| checkpoint.other_run(e.to_string()))?;
        let device = self.learner.params().device();
        let objective = objective.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(device)?)));
        let objective: BTreeMap<_, _> = objective.collect::<candle_core::Result<_>>()?;
        self.objective.load_state(&objective).map_err(|e| checkpoint.other_run(e.to_string()))?;
        self.source.seek(state.position)?;
        self.monitor.restore(state.monitor.clone(), state.health.clone());
        self.step = state.step;
        let mut warnings = found.warnings.clone();
        if state.schedule != self.schedule {
            warnings.push(
                "the learning rate schedule differs from that of the checkpoint: the run continues, but not as the \
                 uninterrupted one would have"
                    .to_owned(),
            );
        }
        self.run_dir.rewind(&found)?;
        let path = checkpoint.path().to_owned();
        self.run_dir.log(&format!("resumed at step {} from {}", self.step, path.display()))?;
        for warning in &warnings {
            self.run_dir.log(&format!("warning: {warning}"))?;
        }
        self.saved = Some((self.step, path.clone()));
        Ok(Some(Resumed { checkpoint: path, step: self.step, warnings }))
    }

    /// Trains until all steps are made or `stop` is set; either way the last finished step is saved.
    ///
    /// # Errors
    /// [`Error::NonFinite`] names the part, gradient or parameter and leaves the checkpoints as they were;
    /// [`Error::Unused`] in the first step; errors of the disk, the data and the model.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let result = self.run_inner(stop, observer);
        if let Err(error) = &result {
            // The error itself goes to the caller; a log that cannot be written must not hide it.
            let _ = self.run_dir.log(&format!("stopped by an error: {error}"));
        }
        result
    }

    /// The learner, for evaluation after training.
    pub fn learner(&self) -> &dyn Learner {
        &*self.learner
    }

    /// The folder of the run.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// The folder of the run, for logging.
    pub fn run_dir_mut(&mut self) -> &mut RunDir {
        &mut self.run_dir
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
        self.source.stats()
    }

    fn run_inner(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let start = Instant::now();
        let mut last_save = start;
        let (mut sum, mut count) = (0.0, 0u64);
        self.run_dir.log(&format!("training from step {} to {}", self.step, self.total_steps))?;
        while self.step < self.total_steps {
            if stop.load(Ordering::Relaxed) {
                let checkpoint = self.save(observer)?;
                self.run_dir.log(&format!("interrupted at step {}", self.step))?;
                return Ok(Outcome::Interrupted { checkpoint, step: self.step });
            }
            let (metrics, health_changed) = self.advance(start)?;
            (sum, count) = (sum + metrics.total, count + 1);
            if metrics.step.is_multiple_of(self.config.log_every) || metrics.step == self.total_steps {
                self.run_dir.append(&metrics)?;
            }
            observer.on_step(&metrics);
            if health_changed {
                let health = self.monitor.health().clone();
                self.run_dir.log(&format!(
                    "embedding {:?} at step {}: {}",
                    health.state, health.step, health.advice
                ))?;
                observer.on_health(&health);
            }
            // The source is at the first batch of the next epoch once this one is through.
            let position = self.source.position();
            let epoch_ended = position.batch == 0;
            if epoch_ended {
                let mean_total = sum / count as f64;
                observer.on_epoch(&EpochSummary { epoch: metrics.epoch, step: self.step, mean_total });
                (sum, count) = (0.0, 0);
            }
            let every = self.config.checkpoint_every_epochs;
            let due = epoch_ended && every > 0 && position.epoch.is_multiple_of(every)
                || self.config.checkpoint_every_steps.is_some_and(|every| self.step.is_multiple_of(every))
                || self
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
        self.run_dir.log(&format!("finished at step {}, embedding {:?}", self.step, health.state))?;
        Ok(Outcome::Finished { checkpoint, step: self.step, health })
    }

    /// One step.
    fn advance(&mut self, start: Instant) -> Result<(StepMetrics, bool)> {
        let began = Instant::now();
        let epoch = self.source.position().epoch;
        let batch = self.source.next_batch()?;
        let data_wait_s = began.elapsed().as_secs_f64();
        let samples = batch.len();
        let key = self.key.fold_in(self.step);
        let ctx = Context { step: self.step, total_steps: Some(self.total_steps), key, collective: &Local };

        let embeddings = self.learner.embed(&batch.views, Mode::Train)?;
        drop(batch);
        let report = self.objective.evaluate(&embeddings, &ctx)?;
        let (total, parts) = self.values(&report)?;
        let mut grads = infomax_kernels::backward(&report.total)?;
        // What follows needs values only: with the report and the embeddings goes the whole graph.
        drop(report);
        let embeddings = detach(embeddings);

        let params = self.learner.params();
        if self.step == 0 && !self.config.allow_unused_parameters {
            let mut names = without_gradient(params, &grads);
            if !names.is_empty() {
                names.truncate(8);
                return Err(Error::Unused { names, total: params.trainable().len() });
            }
        }
        let norm = match self.config.clip_grad_norm {
            Some(max) => clip_grad_norm(params, &mut grads, max),
            None => grad_norm(params, &grads),
        };
        let grad_norm = norm.map_err(|e| self.name_step(e))?;
        let lr = self.schedule.lr(self.step);
        self.optimizer.step(params, &grads, lr).map_err(|e| self.name_step(e))?;
        drop(grads);
        self.learner.after_step(&ctx)?;
        self.objective.update(&embeddings, &ctx)?;
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
            account = self.objective.account(&embeddings).ok().flatten();
        }
        let step_s = began.elapsed().as_secs_f64();
        let source = self.source.stats();
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

    fn name_step(&self, error: infomax_optim::Error) -> Error {
        match error {
            infomax_optim::Error::NonFiniteGradient { name, norm } => {
                non_finite(&self.saved, self.step, format!("the gradient of `{name}`"), norm)
            }
            error => error.into(),
        }
    }

    fn dtype(&self) -> String {
        format!("{:?}", self.learner.params().dtype()).to_lowercase()
    }

    /// Saves the last finished step, unless it is saved already.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<PathBuf> {
        if let Some((step, path)) = &self.saved
            && *step == self.step
        {
            return Ok(path.clone());
        }
        let model = self.learner.params().tensors();
        for (name, tensor) in &model {
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
        let tensors =
            Tensors { model, optimizer: self.optimizer.state()?, objective: self.objective.state() };
        let (monitor, health) = self.monitor.memory();
        let state = State {
            format_version: FORMAT_VERSION,
            step: self.step,
            position: self.source.position(),
            seed: self.config.seed,
            key: self.key,
            schedule: self.schedule,
            dtype: self.dtype(),
            objective: self.objective.name().to_owned(),
            optimizer: self.optimizer.name().to_owned(),
            health: health.clone(),
            monitor: monitor.to_vec(),
            files: BTreeMap::new(),
            crc32: 0,
        };
        let (keep, every) = (self.config.keep_checkpoints, self.config.keep_every_steps);
        let path = self.run_dir.save(state, &tensors, keep, every)?;
        self.run_dir.log(&format!("checkpoint {}", path.display()))?;
        self.saved = Some((self.step, path.clone()));
        observer.on_checkpoint(&path, self.step);
        Ok(path)
    }
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

fn detach(embeddings: Embeddings) -> Embeddings {
    let detached = |views: Option<Views>| views.map(|views| views.detach());
    Embeddings {
        projections: embeddings.projections.detach(),
        predictions: detached(embeddings.predictions),
        targets: detached(embeddings.targets),
        features: detached(embeddings.features),
    }
}
