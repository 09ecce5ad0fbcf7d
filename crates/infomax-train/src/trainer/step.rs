//! One step.

use super::accumulate::{Leaves, Parts};
use super::overlap::Flight;
use super::{CHANGED, Trainer, non_finite};
use crate::budget::Clock;
use crate::metrics::{PartValue, StepMetrics, StepTime};
use crate::monitor::EmbeddingStats;
use crate::{Error, Result, Seen};
use candle_core::{DType, Tensor};
use infomax_core::{Batch, Collective, Context, Embeddings, Layers, Mode, Pass, Report, Views};
use infomax_optim::Gradients;
use std::collections::BTreeMap;
use std::time::Instant;

/// Seconds since the last question.
struct Lap(Instant);

impl Lap {
    fn take(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        seconds
    }
}

/// What the forward and backward passes of a step give.
struct Computed {
    embeddings: Embeddings,
    total: f64,
    parts: Vec<PartValue>,
    grads: Gradients,
    /// Sums over the ranks that were started beside the backward pass.
    flight: Option<Flight>,
    /// Whether some rank's gradients were of other parts than in the step before.
    changed: bool,
}

/// The rows of all ranks, without a graph.
fn gathered(embeddings: &Embeddings, ranks: &dyn Collective) -> Result<Embeddings> {
    let rows = |z: &Tensor| Ok(Tensor::cat(&ranks.gather(z)?, 0)?);
    let all = |views: &Views| -> Result<Views> {
        Ok(Views::new(views.iter().map(rows).collect::<Result<Vec<_>>>()?)?)
    };
    let optional = |views: &Option<Views>| views.as_ref().map(all).transpose();
    // Where a rank has samples without a class, none has labels.
    let unlabeled = ranks.agree(u64::from(embeddings.labels.is_none()))? != 0;
    let labels = match &embeddings.labels {
        Some(labels) if !unlabeled => {
            let own = Tensor::from_slice(labels, labels.len(), &candle_core::Device::Cpu)?;
            Some(rows(&own)?.to_vec1::<u32>()?)
        }
        _ => None,
    };
    // Local maps are measured by nobody, and are large.
    Ok(Embeddings {
        projections: all(&embeddings.projections)?,
        predictions: optional(&embeddings.predictions)?,
        targets: optional(&embeddings.targets)?,
        features: optional(&embeddings.features)?,
        globals: embeddings.globals,
        labels,
    })
}

impl Trainer {
    pub(crate) fn advance(&mut self, clock: &Clock) -> Result<(StepMetrics, bool)> {
        let began = Instant::now();
        let mut lap = Lap(began);
        let mut time = StepTime::default();
        let horizon = clock.horizon(self.step, self.total_steps).map(|steps| steps.min(self.limit));
        self.total_steps = horizon.unwrap_or(self.total_steps);
        let epoch = self.parts.source.position().epoch;
        let batch = self.parts.source.next_batch().and_then(|batch| batch.to_device(&self.parts.device));
        let batch = self.together(batch.map_err(Error::from))?;
        time.data_wait_s = lap.take();
        let samples = batch.len();
        let key = self.key.fold_in(self.step);
        let collective = self.seen_ranks();
        let ranks = &*collective;
        let ctx = Context { step: self.step, total_steps: Some(self.total_steps), key, collective: ranks };
        let layers = self.trace.borrow().layers();
        let layers = layers.as_deref().map(|layers| layers as &dyn Layers);
        let pass = Pass { mode: Mode::Train, key: key.fold_named("pass"), collective: ranks, layers };

        self.trace.borrow_mut().batch(&batch.views)?;
        let computed = match self.parts.config.accumulate {
            0 | 1 => self.whole(batch, &pass, &ctx, &mut lap, &mut time)?,
            parts => self.in_parts(batch, parts, &pass, &ctx, &mut lap, &mut time)?,
        };
        let Computed { embeddings, total, parts, mut grads, flight, changed: learn } = computed;
        let params = self.parts.learner.params();
        if self.step == 0 && !self.parts.config.allow_unused_parameters {
            let mut names = grads.missing(params);
            if !names.is_empty() {
                names.truncate(8);
                return Err(Error::Unused { names, total: params.trainable().len() });
            }
        }
        time.backward_s += lap.take();
        let sums = flight.as_ref().map(Flight::land).transpose()?.unwrap_or_default();
        grads.average_rest(&sums, ranks).map_err(|e| self.name_step(e))?;
        drop(sums);
        if let (true, Some(overlap), Some(flight)) = (learn, &mut self.overlap, &flight) {
            overlap.learn(flight)?;
        }
        drop(flight);
        let grad_norm = grads.norm();
        if let Some(max) = self.parts.config.clip_grad_norm {
            grads.clip(max)?;
        }
        self.trace.borrow_mut().updating(grad_norm);
        let schedule = self.parts.schedule;
        let lr = horizon.map_or(schedule, |steps| schedule.over(steps)).lr(self.step);
        let values = self.parts.courses.at(self.step, horizon);
        values.set(&mut *self.parts.optimizer, &mut *self.parts.learner)?;
        self.parts.optimizer.step(self.parts.learner.params(), &grads, lr)?;
        drop(grads);
        time.optimizer_s = lap.take();
        let teacher_momentum = self.parts.learner.teacher_momentum(&ctx);
        self.parts.learner.after_step(&ctx)?;
        self.parts.objective.update(&embeddings, &ctx)?;
        self.step += 1;
        self.meet()?;

        let (mut embedding, mut features, mut health, mut changed) = (None, None, None, false);
        let mut account = None;
        let watched = !self.parts.watchers.is_empty();
        // What is measured is measured of the whole batch.
        let embeddings = match ranks.size() > 1 && (self.monitor.is_due(self.step) || watched) {
            true => gathered(&embeddings, ranks)?,
            false => embeddings,
        };
        if self.monitor.is_due(self.step) {
            let stats = EmbeddingStats::of(&embeddings.projections[0])?;
            changed = self.monitor.observe(self.step, &stats);
            embedding = Some(stats);
            features = embeddings.features.as_ref().map(|views| EmbeddingStats::of(&views[0])).transpose()?;
            health = Some(self.monitor.health().state);
            // A measurement: what it refuses (equal rows, one view) is left out and stops nothing.
            account = self.parts.objective.account(&embeddings).ok().flatten();
        }
        let mut figures = BTreeMap::new();
        for watcher in &mut self.parts.watchers {
            let (learner, labels) = (&*self.parts.learner, embeddings.labels.as_deref());
            figures.extend(watcher.watch(&Seen {
                step: self.step,
                embeddings: &embeddings,
                labels,
                learner,
            })?);
        }
        let source = self.parts.source.stats();
        time.step_s = began.elapsed().as_secs_f64();
        time.elapsed_s = clock.elapsed();
        time.images_per_s = (samples * ranks.size()) as f64 / time.step_s.max(1e-9);
        (time.decode_s, time.augment_s) = (source.decode_s, source.augment_s);
        let metrics = StepMetrics {
            step: self.step,
            epoch,
            total_steps: self.total_steps,
            lr,
            weight_decay: values.weight_decay,
            momentum: values.momentum,
            teacher_momentum,
            total,
            parts,
            grad_norm,
            embedding,
            features,
            account,
            health,
            figures,
            time,
        };
        Ok((metrics, changed))
    }

    /// The batch in one piece.
    fn whole(
        &self,
        batch: Batch,
        pass: &Pass<'_>,
        ctx: &Context<'_>,
        lap: &mut Lap,
        time: &mut StepTime,
    ) -> Result<Computed> {
        let params = self.parts.learner.params();
        let mut embeddings = self.parts.learner.embed(&batch.views, pass)?;
        self.trace.borrow_mut().embedded(params, &embeddings)?;
        embeddings.labels = batch.labels;
        drop(batch.views);
        time.forward_s = lap.take();
        let report = self.parts.objective.evaluate(&embeddings, ctx);
        let report = report.map_err(|error| self.of_objective(error, &embeddings))?;
        self.trace.borrow_mut().evaluated(params, &report)?;
        let (total, parts) = self.agreed_values(&report)?;
        time.loss_s = lap.take();
        let (store, flight) = match &self.overlap {
            Some(overlap) => {
                let (store, flight) = overlap.backward(&report.total, params)?;
                (store, Some(flight))
            }
            None => (infomax_kernels::backward(&report.total)?, None),
        };
        // What follows needs values only: with the report and the embeddings goes the whole graph.
        drop(report);
        let embeddings = embeddings.detach();
        self.trace.borrow_mut().gradients(params, &store)?;
        let grads = Gradients::of(params, &store).map_err(|e| self.name_step(e));
        drop(store);
        let changed = flight.as_ref().is_some_and(|flight| flight.changed);
        let (grads, agreed) = self.together_saying(grads, u64::from(changed) * CHANGED)?;
        time.backward_s = lap.take();
        Ok(Computed { embeddings, total, parts, grads, flight, changed: agreed & CHANGED != 0 })
    }

    /// What made an objective refuse: embeddings that are not finite, where there are some, since a decomposition that fails
    /// of them says less.
    fn of_objective(&self, error: infomax_core::Error, embeddings: &Embeddings) -> Error {
        let kinds = [
            ("projection", Some(&embeddings.projections)),
            ("prediction", embeddings.predictions.as_ref()),
            ("target", embeddings.targets.as_ref()),
        ];
        for (kind, views) in kinds {
            for (i, z) in views.into_iter().flat_map(|views| views.iter()).enumerate() {
                // A sum of absolute values in f64 is finite if they are.
                let sum =
                    z.detach().to_dtype(DType::F64).and_then(|z| z.abs()?.sum_all()?.to_scalar::<f64>());
                if let Some(sum) = sum.ok().filter(|sum| !sum.is_finite()) {
                    return non_finite(&self.saved, self.step, format!("the {kind} of view {i}"), sum);
                }
            }
        }
        error.into()
    }

    /// The batch in parts, with the gradient of the whole.
    fn in_parts(
        &self,
        batch: Batch,
        count: u64,
        pass: &Pass<'_>,
        ctx: &Context<'_>,
        lap: &mut Lap,
        time: &mut StepTime,
    ) -> Result<Computed> {
        let params = self.parts.learner.params();
        let pieces = Parts::new(&*self.parts.learner, &batch, count, *pass)?;
        let mut embeddings = pieces.embed()?;
        self.trace.borrow_mut().embedded(params, &embeddings)?;
        embeddings.labels = batch.labels;
        time.forward_s = lap.take();
        let leaves = Leaves::new(&embeddings)?;
        let report = self.parts.objective.evaluate(&leaves.embeddings, ctx);
        let report = report.map_err(|error| self.of_objective(error, &leaves.embeddings))?;
        let (total, parts) = self.agreed_values(&report)?;
        // The graph ends at the embeddings: the gradients of the parts come one after the other.
        self.trace.borrow_mut().terms(&report)?;
        let slopes = leaves.slopes(&infomax_kernels::backward(&report.total)?);
        drop((report, leaves));
        time.loss_s = lap.take();
        let mut sum: Option<Gradients> = None;
        let pulled = pieces.pull_back(&slopes, |store| {
            self.trace.borrow_mut().gradients(params, store)?;
            let grads = Gradients::of(params, store).map_err(|e| self.name_step(e))?;
            match &mut sum {
                Some(sum) => sum.add(&grads).map_err(|e| self.name_step(e)),
                None => {
                    sum = Some(grads);
                    Ok(())
                }
            }
        });
        let none = infomax_optim::Error::NoGradients { parameters: params.trainable().len() };
        let grads = pulled.and_then(|()| sum.ok_or_else(|| none.into()));
        let grads = self.together(grads)?;
        time.backward_s = lap.take();
        Ok(Computed { embeddings, total, parts, grads, flight: None, changed: false })
    }

    /// [`Trainer::values`], as the mean over the ranks: a term of the whole batch is the same on each, one of the rows
    /// of a rank is not.
    fn agreed_values(&self, report: &Report) -> Result<(f64, Vec<PartValue>)> {
        let (mut total, mut parts) = self.together(self.values(report))?;
        let ranks = &*self.parts.collective;
        if ranks.size() > 1 {
            let mut own: Vec<f64> = parts.iter().map(|part| part.value).collect();
            own.push(total);
            let own = Tensor::from_vec(own, parts.len() + 1, &candle_core::Device::Cpu)?;
            let mean = (ranks.sum(&own)? / ranks.size() as f64)?.to_vec1::<f64>()?;
            total = mean.last().copied().unwrap_or(total);
            parts.iter_mut().zip(mean).for_each(|(part, value)| part.value = value);
        }
        Ok((total, parts))
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
}
