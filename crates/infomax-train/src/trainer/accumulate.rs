//! The gradient of a batch that is embedded in parts.

use crate::config::InParts;
use crate::{Error, Result, TrainConfig};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use infomax_core::{
    Batch, Collective, Embeddings, Learner, LocalMap, ParamKind, Params, Pass, Result as CoreResult, View,
    Views,
};
use std::sync::Arc;

impl TrainConfig {
    /// That a batch of `batch` samples can be embedded in `accumulate` parts by this learner.
    ///
    /// # Errors
    /// [`Error::Accumulate`] with the reason: parts of unequal size, or a learner that takes statistics of the batch.
    pub fn check_accumulation(&self, learner: &dyn Learner, batch: usize) -> Result<()> {
        let parts = self.accumulate;
        let refuse = |reason: String| Err(Error::Accumulate { parts, reason });
        if parts <= 1 {
            return Ok(());
        }
        let even = usize::try_from(parts).is_ok_and(|parts| batch.is_multiple_of(parts));
        if !even {
            return refuse(format!("a batch of {batch} samples does not split into {parts} equal parts"));
        }
        match (learner.batch_dependence(), self.batch_norm) {
            (Some(why), InParts::Refuse) => refuse(format!(
                "{why}, so that the parts would not give the gradient of the whole batch. Choose a model without batch \
                 normalization (a ViT or ConvNeXt with model.projector_norm = false), or accept statistics of each part \
                 by train.batch_norm = \"micro-batch\""
            )),
            (Some(_), InParts::MicroBatch) if batch as u64 / parts < 2 => refuse(format!(
                "parts of one sample have no statistics; a batch of {batch} has at most {} parts",
                batch / 2
            )),
            _ => Ok(()),
        }
    }
}

/// One part of a batch as a learner sees it: the samples are numbered as in the whole batch, so that what is random for
/// each sample is what it would be there. All else is the processes' own.
#[derive(Debug)]
struct Numbered<'a> {
    inner: &'a dyn Collective,
    rank: usize,
}

impl Collective for Numbered<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn handle(&self) -> Arc<dyn Collective> {
        self.inner.handle()
    }

    fn sum(&self, x: &Tensor) -> CoreResult<Tensor> {
        self.inner.sum(x)
    }

    fn gather(&self, x: &Tensor) -> CoreResult<Vec<Tensor>> {
        self.inner.gather(x)
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> CoreResult<Tensor> {
        self.inner.broadcast(x, root)
    }

    fn barrier(&self) -> CoreResult<()> {
        self.inner.barrier()
    }

    fn agree(&self, word: u64) -> CoreResult<u64> {
        self.inner.agree(word)
    }

    fn sum_in_place(&self, bucket: &mut [Tensor]) -> CoreResult<()> {
        self.inner.sum_in_place(bucket)
    }

    fn all_reduce_sum(&self, x: &Tensor) -> CoreResult<Tensor> {
        self.inner.all_reduce_sum(x)
    }

    fn all_gather(&self, x: &Tensor) -> CoreResult<Tensor> {
        self.inner.all_gather(x)
    }
}

/// A batch in equal parts (GradCache, Gao et al., arXiv:2101.06983):
///
/// 1. every part is embedded, and its graph is dropped: [`Parts::embed`];
/// 2. the objective is evaluated on the embeddings of the whole batch, and differentiated at them: [`Leaves`];
/// 3. every part is embedded again, and the gradient at its embeddings goes on into the parameters:
///    [`Parts::pull_back`].
///
/// The gradient is that of the whole batch, whatever the objective, if a sample's embedding depends on no other
/// sample. Memory is that of the graph of one part; time is one more forward pass.
pub(super) struct Parts<'a> {
    learner: &'a dyn Learner,
    views: Vec<Vec<View>>,
    pass: Pass<'a>,
    /// Running statistics before the first embedding: the second one must not move them again.
    buffers: Vec<(Var, Tensor)>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(learner: &'a dyn Learner, batch: &Batch, parts: u64, pass: Pass<'a>) -> Result<Self> {
        let (count, rows) = (usize::try_from(parts).unwrap_or(usize::MAX), batch.len());
        if !rows.is_multiple_of(count) {
            let reason = format!("the source gave a batch of {rows} samples, which does not split into them");
            return Err(Error::Accumulate { parts, reason });
        }
        let size = rows / count;
        let part = |at: usize| -> Result<Vec<View>> {
            let cut = |view: &View| {
                let cuts = view.cuts.as_ref().and_then(|cuts| cuts.get(at * size..(at + 1) * size));
                let values = view.values.narrow(0, at * size, size)?;
                Ok(View { values, kind: view.kind, cuts: cuts.map(Arc::from) })
            };
            batch.views.iter().map(cut).collect()
        };
        let views = (0..count).map(part).collect::<Result<_>>()?;
        let buffers = match learner.batch_dependence() {
            Some(_) => statistics(learner.params())?,
            None => Vec::new(),
        };
        Ok(Self { learner, views, pass, buffers })
    }

    fn forward(&self, part: usize) -> Result<Embeddings> {
        let rank = self.pass.collective.rank() * self.views.len() + part;
        let numbered = Numbered { inner: self.pass.collective, rank };
        let pass = Pass { collective: &numbered, ..self.pass };
        Ok(self.learner.embed(&self.views[part], &pass)?)
    }

    /// The embeddings of the whole batch, without a graph.
    pub(super) fn embed(&self) -> Result<Embeddings> {
        let parts = (0..self.views.len()).map(|part| Ok(self.forward(part)?.detach()));
        join(&parts.collect::<Result<Vec<_>>>()?)
    }

    /// The gradients of the parameters, a store for each part, from those at the embeddings.
    pub(super) fn pull_back(
        &self,
        slopes: &[Option<Tensor>],
        mut take: impl FnMut(&GradStore) -> Result<()>,
    ) -> Result<()> {
        for (var, before) in &self.buffers {
            var.set(before)?;
        }
        for part in 0..self.views.len() {
            let embeddings = self.forward(part)?;
            let mut total: Option<Tensor> = None;
            for (z, slope) in tensors(&embeddings).into_iter().zip(slopes) {
                let Some(slope) = slope else { continue };
                let rows = z.dims().first().copied().unwrap_or(0);
                let product = (z * slope.narrow(0, part * rows, rows)?)?.sum_all()?;
                total = Some(match total {
                    Some(sum) => (sum + product)?,
                    None => product,
                });
            }
            drop(embeddings);
            if let Some(total) = total {
                take(&infomax_kernels::backward(&total)?)?;
            }
        }
        Ok(())
    }
}

/// Embeddings as the leaves of a graph.
pub(super) struct Leaves {
    /// What the objective is evaluated on.
    pub(super) embeddings: Embeddings,
    vars: Vec<Var>,
}

impl Leaves {
    pub(super) fn new(embeddings: &Embeddings) -> Result<Self> {
        let mut vars = Vec::new();
        let mut leaf = |z: &Tensor| -> Result<Tensor> {
            let var = Var::from_tensor(z)?;
            let tensor = var.as_tensor().clone();
            vars.push(var);
            Ok(tensor)
        };
        let projections = map(&embeddings.projections, &mut leaf)?;
        let predictions = embeddings.predictions.as_ref().map(|views| map(views, &mut leaf)).transpose()?;
        let features = embeddings.features.as_ref().map(|views| map(views, &mut leaf)).transpose()?;
        let embeddings = Embeddings { projections, predictions, features, ..embeddings.clone() };
        Ok(Self { embeddings, vars })
    }

    /// The gradient at each leaf, in the order of [`tensors`]; `None` where the objective does not look.
    pub(super) fn slopes(&self, store: &GradStore) -> Vec<Option<Tensor>> {
        self.vars.iter().map(|var| store.get(var).map(Tensor::detach)).collect()
    }
}

/// All tensors of embeddings that a gradient may flow through, in the order in which [`Leaves`] makes leaves of them.
fn tensors(embeddings: &Embeddings) -> Vec<&Tensor> {
    let all = [Some(&embeddings.projections), embeddings.predictions.as_ref(), embeddings.features.as_ref()];
    let mut found = Vec::new();
    for views in all.into_iter().flatten() {
        found.extend(views.iter());
        found.extend(views.local().into_iter().flatten().map(LocalMap::values));
    }
    found
}

/// Views with other tensors: first those of the views, then those of their local maps.
fn map(views: &Views, mut f: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Views> {
    let mapped = Views::new(views.iter().map(&mut f).collect::<Result<_>>()?)?;
    let Some(local) = views.local() else { return Ok(mapped) };
    let maps = local.iter().map(|map| Ok(LocalMap::new(f(map.values())?, map.places().cloned())?));
    Ok(mapped.with_local(maps.collect::<Result<_>>()?)?)
}

/// The embeddings of all parts, one under the other.
fn join(parts: &[Embeddings]) -> Result<Embeddings> {
    let Some(first) = parts.first() else {
        return Err(Error::Accumulate { parts: 0, reason: "there is no part".to_owned() });
    };
    let optional = |of: fn(&Embeddings) -> Option<&Views>| -> Result<Option<Views>> {
        let all: Vec<&Views> = parts.iter().filter_map(of).collect();
        (all.len() == parts.len()).then(|| stack(&all)).transpose()
    };
    // All fields by name: a new one must not be forgotten here.
    Ok(Embeddings {
        projections: stack(&parts.iter().map(|part| &part.projections).collect::<Vec<_>>())?,
        predictions: optional(|part| part.predictions.as_ref())?,
        targets: optional(|part| part.targets.as_ref())?,
        features: optional(|part| part.features.as_ref())?,
        globals: first.globals,
        labels: None,
    })
}

fn stack(parts: &[&Views]) -> Result<Views> {
    let Some(first) = parts.first() else { return Ok(Views::new(Vec::new())?) };
    let views =
        (0..first.len()).map(|v| Ok(Tensor::cat(&parts.iter().map(|p| &p[v]).collect::<Vec<_>>(), 0)?));
    let views = Views::new(views.collect::<Result<_>>()?)?;
    let Some(local) = first.local() else { return Ok(views) };
    let map = |v: usize| -> Result<LocalMap> {
        let maps: Vec<&LocalMap> = parts.iter().filter_map(|part| part.local()?.get(v)).collect();
        let values: Vec<&Tensor> = maps.iter().map(|map| map.values()).collect();
        let places: Vec<&Tensor> = maps.iter().filter_map(|map| map.places()).collect();
        let places = (places.len() == parts.len()).then(|| Tensor::cat(&places, 0)).transpose()?;
        Ok(LocalMap::new(Tensor::cat(&values, 0)?, places)?)
    };
    Ok(views.with_local((0..local.len()).map(map).collect::<Result<_>>()?)?)
}

/// Copies of the buffers; a teacher's parameters among them do not move in a forward pass, and cost a copy only.
fn statistics(params: &Params) -> Result<Vec<(Var, Tensor)>> {
    let buffers = params.all().into_iter().filter(|(_, param)| param.kind == ParamKind::Buffer);
    buffers.map(|(_, param)| Ok((param.var.clone(), param.var.as_tensor().detach().copy()?))).collect()
}
