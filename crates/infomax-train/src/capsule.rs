//! Capsules: the state before a step that failed.

use crate::budget::Clock;
use crate::checkpoint::{State, Tensors};
use crate::metrics::StepMetrics;
use crate::monitor::HealthState;
use crate::replay::Held;
use crate::{Error, Observer, Result, Trainer};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use infomax_core::{Embeddings, Layers, ParamKind, Params, Position, Report, View};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// In which way a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A part of the loss or a gradient was not finite.
    NonFinite,
    /// A parameter was not finite before the step: the update of the step before overflowed.
    Parameter,
    /// The embedding collapsed by the monitor's verdict.
    Collapse,
    /// The model, the objective or an operation refused something.
    Error,
    /// A panic.
    Panic,
}

/// How a step failed, and what it had computed until then.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// The way.
    pub kind: FailureKind,
    /// The reason in words.
    pub reason: String,
    /// The steps of the whole run, as the objective was told.
    pub total_steps: u64,
    /// Checksums of the views, the parts of the objective, its total and the norm of the gradient, as far as the step
    /// came: numbers are the shortest that read as the same bits.
    pub reached: Vec<(String, String)>,
}

impl Failure {
    /// The failure that an error of a step stands for; `None` for one that a replay says nothing about (a full disk, a
    /// wrong setting, another rank).
    pub(crate) fn of(error: &Error, total_steps: u64, reached: Vec<(String, String)>) -> Option<Self> {
        let (kind, reason) = match error {
            // Without the checkpoint that the message names: it is another one at another time.
            Error::NonFinite { what, value, .. } => {
                (FailureKind::NonFinite, format!("{what} is not finite ({value})"))
            }
            Error::Core(_) | Error::Optim(_) | Error::Candle(_) => (FailureKind::Error, error.to_string()),
            _ => return None,
        };
        Some(Self { kind, reason, total_steps, reached })
    }
}

/// What is remembered of the step that is being made.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The batch is there: what fails now is the step.
    started: bool,
    /// Parameters are changing: the state before the step is gone.
    updating: bool,
    /// Scalars of the objective, not read yet.
    scalars: Vec<(String, Tensor)>,
    grad_norm: Option<f64>,
    /// The views of the batch.
    views: Vec<Tensor>,
    /// The buffers that embedding moves; unknown before the first step of this process.
    moving: Option<BTreeSet<String>>,
    /// Buffers before the step.
    buffers: BTreeMap<String, Tensor>,
    /// What the tensors of the step held, if it is replayed.
    held: Option<Vec<Held>>,
    /// What the layers gave since this was last asked for, if the step is replayed.
    layers: Option<Arc<Watched>>,
}

/// What layers gave.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<Vec<Held>>);

impl Layers for Watched {
    fn saw(&self, layer: &str, values: &Tensor) {
        // A tensor that cannot be read is no reason to end the step otherwise than it ended.
        if let Ok(held) = Held::of("layer", layer, values) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(held);
        }
    }
}

impl Trace {
    /// From here on everything is written down, from the state that the step starts from.
    pub(crate) fn write_down(&mut self, start: Vec<Held>) {
        (self.held, self.layers) = (Some(start), Some(Arc::default()));
    }

    /// Everything that was written down.
    pub(crate) fn written(&mut self) -> Vec<Held> {
        self.take_layers();
        self.layers = None;
        self.held.take().unwrap_or_default()
    }

    /// Who looks at the layers of the step.
    pub(crate) fn layers(&self) -> Option<Arc<Watched>> {
        self.layers.clone()
    }

    fn take_layers(&mut self) {
        if let (Some(held), Some(layers)) = (&mut self.held, &self.layers) {
            let mut seen = std::mem::take(&mut *layers.0.lock().unwrap_or_else(PoisonError::into_inner));
            let mut calls = BTreeMap::<String, usize>::new();
            for layer in &mut seen {
                let call = calls.entry(layer.name.clone()).or_default();
                layer.name = format!("{} [{call}]", layer.name);
                *call += 1;
            }
            held.append(&mut seen);
        }
    }

    /// Before the step: copies what embedding may change, which is all buffers in the first step and from then on those
    /// that it did change. A teacher's weights are buffers that only the update moves: they cost nothing.
    fn begin(&mut self, params: &Params) -> Result<()> {
        (self.started, self.updating, self.grad_norm) = (false, false, None);
        self.scalars.clear();
        self.views.clear();
        self.buffers.clear();
        for (name, param) in params.all() {
            let moves = self.moving.as_ref().is_none_or(|moving| moving.contains(&name));
            if param.kind == ParamKind::Buffer && moves {
                self.buffers.insert(name, param.var.as_tensor().detach().copy()?);
            }
        }
        Ok(())
    }

    /// The batch is there.
    pub(crate) fn batch(&mut self, views: &[View]) -> Result<()> {
        self.started = true;
        self.views = views.iter().map(|view| view.values.clone()).collect();
        let Some(held) = &mut self.held else { return Ok(()) };
        for (i, view) in views.iter().enumerate() {
            held.push(Held::of("view", &i.to_string(), &view.values)?);
        }
        Ok(())
    }

    /// The batch is embedded.
    pub(crate) fn embedded(&mut self, params: &Params, embeddings: &Embeddings) -> Result<()> {
        if self.moving.is_none() {
            let mut moving = BTreeSet::new();
            for (name, before) in &self.buffers {
                let Some(param) = params.get(name) else { continue };
                if bits(before)? != bits(param.var.as_tensor())? {
                    moving.insert(name.clone());
                }
            }
            self.moving = Some(moving);
        }
        self.take_layers();
        let Some(held) = &mut self.held else { return Ok(()) };
        let kinds = [
            ("feature", embeddings.features.as_ref()),
            ("projection", Some(&embeddings.projections)),
            ("prediction", embeddings.predictions.as_ref()),
            ("target", embeddings.targets.as_ref()),
        ];
        for (kind, views) in kinds {
            for (i, z) in views.into_iter().flat_map(|views| views.iter()).enumerate() {
                held.push(Held::of(kind, &i.to_string(), z)?);
            }
        }
        Ok(())
    }

    /// The objective is evaluated. In a replay a total that is not finite is differentiated all the same: which
    /// gradients it spoils says where it comes from.
    pub(crate) fn evaluated(&mut self, params: &Params, report: &Report) -> Result<()> {
        self.terms(report)?;
        let finite = self.values().iter().all(|(_, value)| value.parse::<f64>().is_ok_and(f64::is_finite));
        if self.held.is_some() && !finite {
            self.gradients(params, &infomax_kernels::backward(&report.total)?)?;
        }
        Ok(())
    }

    /// The terms of the objective.
    pub(crate) fn terms(&mut self, report: &Report) -> Result<()> {
        self.scalars =
            report.parts.iter().map(|part| (format!("part {}", part.name), part.value.detach())).collect();
        self.scalars.push(("total".to_owned(), report.total.detach()));
        let Some(held) = &mut self.held else { return Ok(()) };
        for (name, value) in &self.scalars {
            held.push(Held::of("term", name.strip_prefix("part ").unwrap_or(name), value)?);
        }
        Ok(())
    }

    /// The total is differentiated.
    pub(crate) fn gradients(&mut self, params: &Params, store: &GradStore) -> Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        for (name, param) in params.trainable() {
            if let Some(grad) = store.get(&param.var) {
                held.push(Held::of("gradient", &name, grad)?);
            }
        }
        Ok(())
    }

    /// From here on parameters change.
    pub(crate) fn updating(&mut self, grad_norm: f64) {
        (self.updating, self.grad_norm) = (true, Some(grad_norm));
    }

    /// What the step began with and has computed; what cannot be read is left out.
    fn reached(&self) -> Vec<(String, String)> {
        let digest = |(i, view): (usize, &Tensor)| Some((format!("{DIGEST} {i}"), digest(view).ok()?));
        self.views.iter().enumerate().filter_map(digest).chain(self.values()).collect()
    }

    /// What the step has computed.
    fn values(&self) -> Vec<(String, String)> {
        let mut reached: Vec<_> = self
            .scalars
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), format!("{:?}", scalar(value).ok()?))))
            .collect();
        reached.extend(self.grad_norm.map(|norm| ("norm of the gradient".to_owned(), format!("{norm:?}"))));
        reached
    }
}

impl Trainer {
    /// One step, of which a capsule stays if it fails.
    pub(crate) fn guarded(
        &mut self,
        clock: &Clock,
        observer: &mut dyn Observer,
    ) -> Result<(StepMetrics, bool)> {
        if self.parts.config.keep_capsules == 0 || self.parts.collective.size() > 1 {
            let made = self.advance(clock);
            // Nobody asks for the batch: its memory goes.
            self.trace.borrow_mut().views.clear();
            return made;
        }
        let (position, step) = (self.parts.source.position(), self.step);
        self.trace.borrow_mut().begin(self.parts.learner.params())?;
        // The verdict comes after the update: where this step can bring it, its state is copied before.
        let before = if self.monitor.may_collapse(step + 1) { Some(self.copied(clock)?) } else { None };
        match self.attempt(clock) {
            Attempt::Made(metrics, changed) => {
                if let (Some(failure), Some((state, tensors))) = (self.collapse(changed), before) {
                    self.keep_capsule(state, &tensors, failure, observer);
                }
                Ok((*metrics, changed))
            }
            Attempt::Failed(error, failure) => {
                if let Some(failure) = failure {
                    self.capsule_before(position, failure, clock, observer);
                }
                Err(error)
            }
            Attempt::Panicked(payload, failure) => {
                self.capsule_before(position, failure, clock, observer);
                resume_unwind(payload)
            }
        }
    }

    /// One step, whatever becomes of it.
    pub(crate) fn attempt(&mut self, clock: &Clock) -> Attempt {
        match catch_unwind(AssertUnwindSafe(|| self.advance(clock))) {
            Ok(Ok((metrics, changed))) => Attempt::Made(Box::new(metrics), changed),
            Ok(Err(error)) => {
                let failure = Failure::of(&error, self.total_steps, self.trace.borrow().reached())
                    .filter(|_| self.trace.borrow().started);
                Attempt::Failed(error, failure)
            }
            Err(payload) => {
                let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                let reason = text.unwrap_or_else(|| "a panic without a message".to_owned());
                let failure = Failure {
                    kind: FailureKind::Panic,
                    reason,
                    total_steps: self.total_steps,
                    reached: self.trace.borrow().reached(),
                };
                Attempt::Panicked(payload, failure)
            }
        }
    }

    /// The collapse that a step brought, if its verdict is a new one.
    pub(crate) fn collapse(&self, changed: bool) -> Option<Failure> {
        let health = self.monitor.health();
        (changed && health.state == HealthState::Collapsed).then(|| Failure {
            kind: FailureKind::Collapse,
            reason: health.advice.clone(),
            total_steps: self.total_steps,
            reached: self.trace.borrow().reached(),
        })
    }

    /// The end of a run in which a parameter was found that is not finite: its capsule holds the state as it is.
    pub(crate) fn capsule_of_parameter(&mut self, error: &Error, observer: &mut dyn Observer) {
        let clock = &Clock::new(self.spent, self.parts.config.budget);
        let single = self.parts.config.keep_capsules > 0 && self.parts.collective.size() == 1;
        let Error::NonFinite { what, value, .. } = error else { return };
        if !single || !what.starts_with("the parameter") {
            return;
        }
        let reason = format!("{what} is not finite ({value})");
        let failure = Failure {
            kind: FailureKind::Parameter,
            reason,
            total_steps: self.total_steps,
            reached: Vec::new(),
        };
        if let Ok((state, tensors)) = self.snapshot(self.parts.learner.params().tensors(), clock) {
            self.keep_capsule(state, &tensors, failure, observer);
        }
    }

    /// The capsule of a step that failed before anything but the buffers changed.
    fn capsule_before(
        &mut self,
        position: Position,
        failure: Failure,
        clock: &Clock,
        observer: &mut dyn Observer,
    ) {
        if self.trace.borrow().updating {
            self.no_capsule("the step failed after it began to change parameters", observer);
            return;
        }
        let mut model = self.parts.learner.params().tensors();
        model.extend(self.trace.borrow().buffers.clone());
        // An error here must not hide the one of the step.
        match self.snapshot(model, clock) {
            Ok((state, tensors)) => {
                self.keep_capsule(State { position, ..state }, &tensors, failure, observer)
            }
            Err(error) => self.no_capsule(&error.to_string(), observer),
        }
    }

    /// Says that a step that failed has no capsule.
    fn no_capsule(&mut self, reason: &str, observer: &mut dyn Observer) {
        observer.on_no_capsule(reason);
        let _ = self.parts.run_dir.log(&format!("warning: no capsule: {reason}"));
    }

    fn keep_capsule(
        &mut self,
        state: State,
        tensors: &Tensors,
        failure: Failure,
        observer: &mut dyn Observer,
    ) {
        let reason = failure.reason.clone();
        let state = State { failure: Some(failure), ..state };
        match self.parts.run_dir.save_capsule(state, tensors, self.parts.config.keep_capsules) {
            Ok((path, bytes)) => {
                observer.on_capsule(&path, bytes);
                let size = bytes as f64 / 1048576.0;
                let _ =
                    self.parts.run_dir.log(&format!("capsule {} ({size:.1} MiB): {reason}", path.display()));
            }
            Err(error) => self.no_capsule(&error.to_string(), observer),
        }
    }

    /// The state with memory of its own.
    fn copied(&self, clock: &Clock) -> Result<(State, Tensors)> {
        let (state, tensors) = self.snapshot(self.parts.learner.params().tensors(), clock)?;
        let copy = |all: BTreeMap<String, Tensor>| -> Result<BTreeMap<String, Tensor>> {
            all.into_iter().map(|(name, tensor)| Ok((name, tensor.detach().copy()?))).collect()
        };
        let Tensors { model, optimizer, objective, watchers, outer, others, description } = tensors;
        let (model, optimizer, objective) = (copy(model)?, copy(optimizer)?, copy(objective)?);
        let (watchers, outer, others) = (copy(watchers)?, copy(outer)?, copy(others)?);
        Ok((state, Tensors { model, optimizer, objective, watchers, outer, others, description }))
    }
}

/// What became of a step.
pub(crate) enum Attempt {
    Made(Box<StepMetrics>, bool),
    Failed(Error, Option<Failure>),
    Panicked(Box<dyn Any + Send>, Failure),
}

/// The name of a checksum of a view, in front of its number.
pub(crate) const DIGEST: &str = "checksum of view";

/// A checksum of the bits of a tensor (FNV-1a), which is no number.
fn digest(tensor: &Tensor) -> Result<String> {
    let step = |hash: u64, bits: u64| (hash ^ bits).wrapping_mul(0x0000_0100_0000_01b3);
    Ok(format!("#{:016x}", bits(tensor)?.into_iter().fold(0xcbf2_9ce4_8422_2325, step)))
}

fn scalar(value: &Tensor) -> Result<f64> {
    Ok(value.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// The values of a tensor, in f64, by their bits: NaN is equal to itself.
fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}
