//! The training loop.

mod accumulate;
mod local;
mod overlap;
mod resume;
mod step;

use crate::budget::Clock;
use crate::capsule::Trace;
use crate::metrics::TimeTotals;
use crate::monitor::{Health, Monitor};
use crate::{Courses, EpochSummary, Error, Observer, Result, RunDir, TrainConfig, Watcher};
use candle_core::Device;
use infomax_core::{BatchSource, Collective, Key, Learner, Local, Objective};
use infomax_optim::{Optimizer, Schedule};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps were made, or the budget is used up.
    Finished {
        /// The last checkpoint.
        checkpoint: PathBuf,
        /// The number of steps.
        step: u64,
        /// The monitor's last verdict.
        health: Health,
    },
    /// The observer had a reason to end the run.
    Stopped {
        /// The checkpoint of the last finished step.
        checkpoint: PathBuf,
        /// The number of finished steps.
        step: u64,
        /// The reason.
        reason: String,
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
    /// Weight decay and momenta of each step, where they are not constant.
    pub courses: Courses,
    /// What is measured beside the training.
    pub watchers: Vec<Box<dyn Watcher>>,
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
            courses: Courses::default(),
            watchers: Vec::new(),
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
/// With local steps ([`TrainConfig::local_steps`]) every rank makes these by itself, the loss being that of its share of
/// the batch, and all meet in an outer step.
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
    /// The steps of the run; of one with a budget, as far as it can be told.
    pub(crate) total_steps: u64,
    /// The steps after which it ends in any case.
    limit: u64,
    /// Seconds of training before this process took the run up.
    pub(crate) spent: f64,
    /// Of a run with local steps.
    pub(crate) local: Option<local::LocalSteps>,
    /// Of a run of several ranks that sums gradients while they are computed.
    overlap: Option<overlap::Overlap>,
    times: TimeTotals,
    saved: Option<(u64, PathBuf)>,
}

/// The words that ranks agree on: the bits of a request to stop, of an error, of an end that an observer wants, and of a changed graph.
const STOP: u64 = 1;
const FAILED: u64 = 2;
const ENDED: u64 = 4;
/// Gradients are of other parts than in the step before.
const CHANGED: u64 = 8;

impl Trainer {
    /// Puts a run together. Call [`Trainer::resume`] to continue one that is in the folder.
    ///
    /// # Errors
    /// A setting that is out of its range or does not fit the parameters, or a source without batches.
    pub fn new(mut parts: Parts) -> Result<Self> {
        parts.config.check()?;
        parts.run_dir.write_logs(&parts.config.log);
        if parts.config.budget.is_some() && parts.collective.size() > 1 {
            let reason =
                "the clocks of several ranks differ, and so would their learning rates; set max_steps";
            let value = parts.config.budget.map(|budget| budget.to_string()).unwrap_or_default();
            return Err(Error::Config { key: "budget", value, reason });
        }
        parts.courses.check(&mut *parts.optimizer, &mut *parts.learner)?;
        parts.optimizer.check(parts.learner.params())?;
        if parts.source.batches_per_epoch() == 0 {
            let reason = "the source has no batch: is the batch larger than the data set?";
            return Err(Error::Config { key: "batches_per_epoch", value: "0".into(), reason });
        }
        let samples = parts.source.samples_per_epoch() / parts.source.batches_per_epoch();
        let samples = usize::try_from(samples).unwrap_or(usize::MAX);
        parts.config.check_accumulation(&*parts.learner, samples)?;
        let total_steps = parts.config.total_steps(parts.source.batches_per_epoch());
        let monitor = Monitor::new(parts.config.monitor.clone());
        let key = Key::new(parts.config.seed).fold_named("train");
        let limit = match parts.config.budget {
            Some(_) => parts.config.max_steps.unwrap_or(u64::MAX),
            None => total_steps,
        };
        let (every, outer) = (parts.config.local_steps, parts.config.outer_optimizer());
        let local = match outer {
            Some(outer) => Some(local::LocalSteps::new(every, outer, parts.learner.params())?),
            None => None,
        };
        let mut trainer = Self {
            local,
            overlap: None,
            parts,
            monitor,
            trace: RefCell::default(),
            key,
            step: 0,
            total_steps,
            limit,
            spent: 0.0,
            times: TimeTotals::default(),
            saved: None,
        };
        trainer.start_overlap()?;
        Ok(trainer)
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
            let _ = self.parts.run_dir.log(&format!("stopped by an error after step {}: {error}", self.step));
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

    /// The number of steps of the whole run; of one with a budget, as far as it can be told by now.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Seconds of training before this process, of a run with a budget that is continued.
    pub fn trained_before(&self) -> f64 {
        self.spent
    }

    /// Where the time of the steps went that this process made.
    pub fn times(&self) -> TimeTotals {
        self.times
    }

    /// The counters of the source.
    pub fn source_stats(&self) -> infomax_core::SourceStats {
        self.parts.source.stats()
    }

    fn run_inner(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let clock = Clock::new(self.spent, self.parts.config.budget);
        let mut last_save = Instant::now();
        let (mut sum, mut count) = (0.0, 0u64);
        let end = match self.parts.config.budget {
            Some(budget) => format!("until {budget} are over ({:.1} s are)", self.spent),
            None => format!("to {}", self.total_steps),
        };
        self.parts.run_dir.log(&format!("training from step {} {end}", self.step))?;
        if let Some(local) = &self.local {
            let words = local.describe(self.parts.collective.size());
            self.parts.run_dir.log(&words)?;
        }
        while self.step < self.limit && !clock.is_over() {
            if self.agree(u64::from(stop.load(Ordering::Relaxed)) * STOP)? & STOP != 0 {
                let checkpoint = self.save(&clock, observer)?;
                self.parts.run_dir.log(&format!("interrupted at step {}", self.step))?;
                return Ok(Outcome::Interrupted { checkpoint, step: self.step });
            }
            let (metrics, health_changed) = self.guarded(&clock, observer)?;
            (sum, count) = (sum + metrics.total, count + 1);
            self.times.add(&metrics.time);
            let last = self.step == self.limit || clock.is_over();
            observer.on_step(&metrics);
            let reason = observer.stop_reason();
            // What was measured beside the training is written whenever there is some, and so is the step that ended the run.
            let due = metrics.step.is_multiple_of(self.parts.config.log_every) || last;
            if due || reason.is_some() || !metrics.figures.is_empty() {
                self.parts.run_dir.append(&metrics)?;
            }
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
            // Clocks differ: where ranks save together, they agree on it.
            let timed = self.parts.config.checkpoint_every_seconds.is_some() && self.local.is_some();
            let due = if timed { self.agree(u64::from(due))? != 0 } else { due };
            if due {
                self.save(&clock, observer)?;
                last_save = Instant::now();
            }
            let reason = reason.or_else(|| observer.stop_reason());
            if self.agree(u64::from(reason.is_some()) * ENDED)? & ENDED != 0 {
                let reason = reason.unwrap_or_else(|| "another rank ended the run".to_owned());
                let checkpoint = self.save(&clock, observer)?;
                self.parts.run_dir.log(&format!("stopped at step {}: {reason}", self.step))?;
                return Ok(Outcome::Stopped { checkpoint, step: self.step, reason });
            }
        }
        if clock.is_over() {
            self.parts.run_dir.log(&format!("the budget is used up after {:.1} s", clock.spent()))?;
        }
        if self.parts.config.budget.is_some() {
            self.total_steps = self.step;
        }
        let checkpoint = self.save(&clock, observer)?;
        let health = self.monitor.health().clone();
        let judged = match self.monitor.has_judged() {
            true => format!("the embedding is {}", health.state.in_words()),
            false => "too few measurements to judge the embedding".to_owned(),
        };
        self.parts.run_dir.log(&format!("finished at step {}, {judged}", self.step))?;
        Ok(Outcome::Finished { checkpoint, step: self.step, health })
    }

    /// What every rank says, at once; nothing to ask for where there is one.
    fn agree(&self, word: u64) -> Result<u64> {
        Ok(if self.parts.collective.size() == 1 { word } else { self.parts.collective.agree(word)? })
    }

    /// The result, unless another rank failed: then all stop, and none waits for the one that is gone.
    fn together<T>(&self, result: Result<T>) -> Result<T> {
        Ok(self.together_saying(result, 0)?.0)
    }

    /// The same, with a word beside it that the ranks agree on.
    fn together_saying<T>(&self, result: Result<T>, word: u64) -> Result<(T, u64)> {
        let agreed = self.agree(word | (u64::from(result.is_err()) * FAILED))?;
        match result {
            Ok(_) if agreed & FAILED != 0 => Err(Error::OtherRank { step: self.step }),
            result => Ok((result?, agreed)),
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
}

fn non_finite(saved: &Option<(u64, PathBuf)>, step: u64, what: String, value: f64) -> Error {
    Error::NonFinite { what, value, step, last_checkpoint: saved.as_ref().map(|(_, path)| path.clone()) }
}
