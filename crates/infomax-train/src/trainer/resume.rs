//! Checkpoints of a run: written, and taken up again.

use super::{Resumed, Trainer, local};
use crate::budget::Clock;
use crate::checkpoint::{Checkpoint, FORMAT_VERSION, State, Tensors};
use crate::{History, Observer, Result, RunDir};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The setting that names the number of processes.
const RANKS: &str = "ranks";

impl Trainer {
    /// Continues from the newest good checkpoint of the folder; `None` if there is none yet.
    ///
    /// # Errors
    /// Those of [`RunDir::latest`]; [`crate::Error::OtherRun`] if the checkpoint belongs to another model,
    /// objective, optimizer or seed.
    pub fn resume(&mut self) -> Result<Option<Resumed>> {
        let Some(found) = RunDir::latest(self.parts.run_dir.path())? else {
            // What a process wrote that was killed before its first checkpoint comes again.
            self.parts.run_dir.rewind_to(0)?;
            return Ok(None);
        };
        let checkpoint = &found.checkpoint;
        let mut warnings = found.warnings.clone();
        warnings.extend(self.restore(checkpoint)?);
        self.parts.run_dir.rewind(&found)?;
        if self.parts.config.budget.is_some() && checkpoint.state().trained_s.is_none() {
            // It was begun without a budget: its log has the time that it took.
            self.spent = History::read(self.parts.run_dir.path())?.seconds;
        }
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
        if state.step > self.limit {
            let total = self.limit;
            return Err(checkpoint.other_run(format!(
                "it has made {} steps already, and the run is to have {total}",
                state.step
            )));
        }
        // Everything is read before anything is changed.
        let written = [checkpoint.model()?, checkpoint.optimizer()?, checkpoint.objective()?];
        let watched = checkpoint.watchers()?;
        let (outer, others) = (checkpoint.outer()?, checkpoint.others()?);
        let mut warnings = Vec::new();
        let [model, optimizer, objective] = self.of_this_rank(&outer, &others, written, &mut warnings);
        self.parts.learner.params().load(&model).map_err(|e| checkpoint.other_run(e.to_string()))?;
        self.parts.optimizer.load_state(&optimizer).map_err(|e| checkpoint.other_run(e.to_string()))?;
        let params = self.parts.learner.params();
        self.parts.optimizer.check(params).map_err(|e| checkpoint.other_run(e.to_string()))?;
        let device = params.device();
        let objective = objective.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(device)?)));
        let objective: BTreeMap<_, _> = objective.collect::<candle_core::Result<_>>()?;
        self.parts.objective.load_state(&objective).map_err(|e| checkpoint.other_run(e.to_string()))?;
        for (number, watcher) in self.parts.watchers.iter_mut().enumerate() {
            let prefix = format!("{number}.");
            let own = watched.iter().filter_map(|(name, tensor)| {
                let name = name.strip_prefix(&prefix)?;
                Some((name.to_owned(), tensor.clone()))
            });
            watcher.load_state(&own.collect())?;
        }
        self.parts.source.seek(state.position)?;
        if let Some(local) = &mut self.local {
            local.load(&outer, self.parts.learner.params())?;
        }
        self.monitor.restore(state.monitor.clone(), state.health.clone());
        self.step = state.step;
        self.spent = state.trained_s.unwrap_or(0.0);
        if state.schedule != self.parts.schedule {
            warnings.push(
                "the learning rate schedule differs from that of the checkpoint: the run continues, but not as the \
                 uninterrupted one would have"
                    .to_owned(),
            );
        }
        if state.courses != self.parts.courses {
            warnings.push(
                "the course of the weight decay or of a momentum differs from that of the checkpoint: the run \
                 continues with the new one"
                    .to_owned(),
            );
        }
        let (before, now) = (with_ranks(&state.settings), with_ranks(&identity.settings));
        let changed: Vec<_> = changes(&before, &now)
            .map(|(key, saved, now)| format!("{key} was {saved}, now it is {now}"))
            .collect();
        if !changed.is_empty() {
            warnings.push(format!(
                "settings differ from those of the checkpoint, and the run continues with the new ones: {}",
                changed.join("; ")
            ));
        }
        Ok(warnings)
    }

    /// The state of this rank, of a checkpoint of a run with local steps; else as it was written.
    fn of_this_rank(
        &self,
        outer: &BTreeMap<String, Tensor>,
        others: &BTreeMap<String, Tensor>,
        written: [BTreeMap<String, Tensor>; 3],
        warnings: &mut Vec<String>,
    ) -> [BTreeMap<String, Tensor>; 3] {
        let [mut model, optimizer, objective] = written;
        let (saved, now) = (local::ranks_in(others), self.parts.collective.size());
        match (&self.local, outer.is_empty()) {
            (None, true) => return [model, optimizer, objective],
            (Some(_), true) => {
                warnings.push("the checkpoint is of a run without local steps: the first begin here".to_owned());
                return [model, optimizer, objective];
            }
            (Some(_), false) if saved == now => {
                let own = |what, written| {
                    let own = local::of_rank(others, self.parts.collective.rank(), what);
                    if own.is_empty() { written } else { own }
                };
                return [own("model", model), own("optimizer", optimizer), own("objective", objective)];
            }
            (Some(_), false) => warnings.push(format!(
                "the checkpoint is of {saved} ranks, and there are {now} now: all continue from the parameters of the \
                 last outer step, with the optimizer's state of the rank that wrote it"
            )),
            (None, false) => warnings.push(
                "the checkpoint is of a run with local steps, and this one has none: it continues from the parameters \
                 of the last outer step, without the outer momentum"
                    .to_owned(),
            ),
        }
        for (name, tensor) in &mut model {
            if let Some(start) = outer.get(&local::started(name)) {
                *tensor = start.clone();
            }
        }
        [model, optimizer, objective]
    }

    fn dtype(&self) -> String {
        format!("{:?}", self.parts.learner.params().dtype()).to_lowercase()
    }

    /// Saves the last finished step, unless it is saved already.
    pub(super) fn save(&mut self, clock: &Clock, observer: &mut dyn Observer) -> Result<PathBuf> {
        if let Some((step, path)) = &self.saved
            && *step == self.step
        {
            return Ok(path.clone());
        }
        self.check_parameters()?;
        let (state, tensors) = self.snapshot(self.parts.learner.params().tensors(), clock)?;
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
                return Err(super::non_finite(
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
    pub(crate) fn snapshot(
        &self,
        model: BTreeMap<String, Tensor>,
        clock: &Clock,
    ) -> Result<(State, Tensors)> {
        let (optimizer, objective) = (self.parts.optimizer.state()?, self.parts.objective.state());
        let own = [("model", &model), ("optimizer", &optimizer), ("objective", &objective)];
        let others = self.others(own)?;
        let tensors = Tensors {
            outer: self.local.as_ref().map(local::LocalSteps::state).unwrap_or_default(),
            others,
            model,
            optimizer,
            objective,
            watchers: self
                .parts
                .watchers
                .iter()
                .enumerate()
                .flat_map(|(number, watcher)| {
                    watcher
                        .state()
                        .into_iter()
                        .map(move |(name, tensor)| (format!("{number}.{name}"), tensor))
                })
                .collect(),
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
            courses: self.parts.courses,
            // Only of a run that depends on it: equal runs write equal checkpoints.
            trained_s: self.parts.config.budget.map(|_| clock.spent()),
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

/// Settings with the number of processes, which those of a single process leave out.
fn with_ranks(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut settings = settings.clone();
    // A checkpoint of a program that kept no such table says nothing.
    if !settings.is_empty() {
        settings.entry(RANKS.to_owned()).or_insert_with(|| "1".to_owned());
    }
    settings
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

/// A sum may overflow although all of its summands are finite.
fn has_non_finite(tensor: &Tensor) -> Result<bool> {
    let values =
        tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.iter().any(|value| !value.is_finite()))
}
