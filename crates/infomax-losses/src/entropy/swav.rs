//! SwAV: swapped prediction of balanced cluster assignments.

use crate::{
    Entropy, Error, Estimate, Result,
    entropy::{IntoTerm, Running, entropy_part},
    invariance::normalize_rows,
    moments, op,
    ranks::Ranks,
    settings::{count, none_negative, positive},
};
use candle_core::{D, DType, Device, Tensor, Var};
use infomax_core::{Bound, Collective, Context, Embeddings, Key, Local, Part, Role, Term, TermState};

/// SwAV (Caron et al., arXiv 2006.09882), without a queue: the cross-entropy between the code `q_s` of one view
/// and the prediction of another,
///
/// ```text
/// -mean_i sum_k q_s[i, k] ln softmax(z_v . c_k / t)[i, k]
/// ```
/// on unit rows and unit prototypes `c_k`, averaged over the code views `s` (the first `globals`) and the
/// other views `v`. Codes come from `iterations` rounds of Sinkhorn's algorithm on `exp(z . c / epsilon)`, which
/// fills all clusters alike, in f64 and without gradient.
///
/// The cross-entropy is reported in two parts: `swapped-assignment`, `-sum q z . c / t`, pulls views to one
/// cluster; `prototypes`, the log-sum-exp over the clusters, is what spreads them.
///
/// # State
/// The prototypes `(K, d)` are a part of the objective and not of the model: drawn from `seed` at the first use,
/// moved after each optimizer step by gradient descent with momentum, scaled to unit length, and saved with a
/// checkpoint. They rest during the first `freeze_steps` steps.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Swav {
    /// The factor of both parts.
    pub weight: f64,
    /// The number of clusters `K` (3000).
    pub prototypes: usize,
    /// The temperature of the predictions `t` (0.1).
    pub temperature: f64,
    /// The temperature of the codes (0.05).
    pub epsilon: f64,
    /// The rounds of Sinkhorn's algorithm (3).
    pub iterations: usize,
    /// The number of views whose codes are predicted (2: the global views).
    pub globals: usize,
    /// The learning rate of the prototypes.
    pub learning_rate: f64,
    /// The momentum of the prototypes (0.9).
    pub momentum: f64,
    /// The number of steps before the prototypes move (313).
    pub freeze_steps: u64,
    /// The seed of the prototypes at the start.
    pub seed: u64,
}

impl Default for Swav {
    fn default() -> Self {
        Self {
            weight: 1.0,
            prototypes: 3000,
            temperature: 0.1,
            epsilon: 0.05,
            iterations: 3,
            globals: 2,
            learning_rate: 0.6,
            momentum: 0.9,
            freeze_steps: 313,
            seed: 0,
        }
    }
}

impl Running<Swav> {
    /// The prototypes `(K, d)`, unit rows, f64 on the host.
    ///
    /// # Errors
    /// A saved state of another number of prototypes or dimension.
    pub fn prototypes(&self, d: usize) -> Result<Tensor> {
        match self.state.get("prototypes") {
            Some(saved) if saved.dims() == [self.config.prototypes, d] => {
                Ok(saved.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
            }
            Some(saved) => Err(Error::Shape {
                term: "swav",
                expected: "saved prototypes of the configured number and the embedding's dimension",
                got: saved.dims().to_vec(),
            }),
            None => {
                let key = Key::new(self.seed).fold_named("swav");
                let drawn = key.normal(0.0, 1.0, (self.config.prototypes, d), DType::F64, &Device::Cpu)?;
                normalize_rows(&drawn, 1e-12)
            }
        }
    }
}

impl Swav {
    /// `[swapped assignment, log-sum-exp]` of views `(n, d)` each and prototypes `(K, d)` of unit length: shape
    /// `(2)`; their sum is the cross-entropy. Differentiable in both.
    ///
    /// # Errors
    /// Fewer than two views.
    pub fn parts(&self, views: &[Tensor], prototypes: &Tensor) -> Result<Tensor> {
        self.own_parts(views, prototypes, &Local)
    }

    /// [`Swav::parts`] of the rows of this process, with codes that are balanced over all of them.
    fn own_parts(
        &self,
        views: &[Tensor],
        prototypes: &Tensor,
        collective: &dyn Collective,
    ) -> Result<Tensor> {
        crate::error::views("swav", 2, views.len())?;
        let scores = views
            .iter()
            .map(|v| Ok(normalize_rows(v, 1e-12)?.matmul(&prototypes.t()?)?))
            .collect::<Result<Vec<_>>>()?;
        let globals = self.globals.min(views.len());
        let weight = 1.0 / (globals * (views.len() - 1)) as f64;
        let (mut assigned, mut sums) = (Vec::new(), Vec::new());
        for (s, code) in scores.iter().take(globals).enumerate() {
            let code = balanced(&code.detach(), self.epsilon, self.iterations, collective)?;
            for (v, score) in scores.iter().enumerate() {
                if v != s {
                    let logits = (score / self.temperature)?;
                    assigned.push((&code * &logits)?.sum(1)?.mean_all()?);
                    let max = logits.max_keepdim(D::Minus1)?.detach();
                    let sum = logits.broadcast_sub(&max)?.exp()?.sum(D::Minus1)?.log()?;
                    sums.push((sum + max.squeeze(D::Minus1)?)?.mean_all()?);
                }
            }
        }
        let assigned = (Tensor::stack(&assigned, 0)?.sum_all()? * -weight)?;
        let sums = (Tensor::stack(&sums, 0)?.sum_all()? * weight)?;
        Ok(Tensor::stack(&[assigned, sums], 0)?)
    }
}

impl IntoTerm for Swav {
    fn into_term(self) -> Box<dyn Entropy> {
        Box::new(Running::new(self))
    }
}

impl Term for Running<Swav> {
    fn name(&self) -> &str {
        "swav"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let views = z.projections.iter().map(op::widen).collect::<candle_core::Result<Vec<_>>>()?;
        let prototypes = self.prototypes(views[0].dim(1)?)?;
        let prototypes = prototypes.to_dtype(views[0].dtype())?.to_device(views[0].device())?;
        // Sums over the columns of the codes travel, not the rows.
        let own = self.own_parts(&views, &prototypes, ctx.collective)?;
        let parts = crate::ranks::mean(&own, z.projections.batch(), ctx)?;
        Ok(vec![
            Part {
                name: "swapped-assignment".into(),
                role: Role::Invariance,
                weight: self.weight,
                value: parts.get(0)?,
            },
            entropy_part("prototypes", self.weight, parts.get(1)?),
        ])
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<()> {
        let views = &z.projections;
        let old = self.prototypes(views[0].dim(1)?)?;
        if ctx.step < self.freeze_steps || self.learning_rate == 0.0 {
            self.state.insert("prototypes".into(), old);
            return Ok(());
        }
        let ranks = Ranks::of(ctx, views.batch())?;
        // The gradient of the prototypes travels, or the rows: whichever is less.
        let rows = views.len() * ranks.total * views.dtype().size_in_bytes();
        let sums = ranks.alone() || 16 * old.dim(0)? < rows;
        let own = |v: &Tensor| -> Result<Tensor> {
            let v = if sums { v.detach() } else { ranks.gather(&v.detach())? };
            Ok(v.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
        };
        let views = views.iter().map(own).collect::<Result<Vec<_>>>()?;
        let var = Var::from_tensor(&old)?;
        let parts = match sums {
            true => self.own_parts(&views, var.as_tensor(), ctx.collective)?,
            false => self.parts(&views, var.as_tensor())?,
        };
        let grads = (parts.sum_all()? * self.weight)?.backward()?;
        let grad = grads.get(&var).cloned().map_or_else(|| old.zeros_like(), Ok)?;
        let mut velocity = if sums { ranks.mean(&grad)? } else { grad }.detach();
        if let Some(saved) = self.state.get("velocity") {
            velocity = (velocity + (saved.to_dtype(DType::F64)? * self.momentum)?)?;
        }
        let moved = (&old - (&velocity * self.learning_rate)?)?;
        self.state.insert("prototypes".into(), normalize_rows(&moved, 1e-12)?.detach());
        self.state.insert("velocity".into(), velocity.detach());
        Ok(())
    }

    fn state(&self) -> TermState {
        self.state.clone()
    }

    fn load_state(&mut self, state: &TermState) -> infomax_core::Result<()> {
        self.state = state.clone();
        Ok(())
    }
}

impl Entropy for Running<Swav> {
    fn check(&self) -> Result<()> {
        none_negative("swav", [("weight", self.weight), ("learning_rate", self.learning_rate)])?;
        positive("swav", "temperature", self.temperature)?;
        positive("swav", "epsilon", self.epsilon)?;
        count("swav", "globals", self.globals, 1)?;
        count("swav", "iterations", self.iterations, 1)?;
        count("swav", "prototypes", self.config.prototypes, 2)?;
        if (0.0..1.0).contains(&self.momentum) {
            return Ok(());
        }
        Err(Error::Config {
            term: "swav",
            key: "momentum",
            value: self.momentum.to_string(),
            reason: "must be in [0, 1)",
        })
    }

    /// The information between a sample and its cluster, `H(mean_i p_i) - mean_i H(p_i)` with
    /// `p_i = softmax(z_i . c / t)`: in `[0, ln min(n, K)]`, 0 for a collapsed batch.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let z = moments::matrix("swav", z, 1)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
        let logits =
            (normalize_rows(&z, 1e-12)?.matmul(&self.prototypes(z.dim(1)?)?.t()?)? / self.temperature)?;
        let (n, k) = logits.dims2()?;
        let mut mean = vec![0f64; k];
        let mut within = 0.0;
        let entropy = |p: &[f64]| -> f64 { p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum() };
        for row in op::host(&logits)?.chunks_exact(k) {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            let mut p: Vec<f64> = row.iter().map(|v| (v - max).exp()).collect();
            let sum: f64 = p.iter().sum();
            for (p, m) in p.iter_mut().zip(&mut mean) {
                *p /= sum;
                *m += *p / n as f64;
            }
            within += entropy(&p) / n as f64;
        }
        Ok(Estimate { nats: entropy(&mean) - within, bound: Bound::Surrogate })
    }
}

/// Codes `(n, K)` of scores `(n, K)`: Sinkhorn's algorithm on `exp(scores / epsilon)`, rows that sum to 1 and
/// columns of about equal weight; no gradient.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn sinkhorn(scores: &Tensor, epsilon: f64, iterations: usize) -> Result<Tensor> {
    balanced(scores, epsilon, iterations, &Local)
}

/// [`sinkhorn`] of the scores of all processes: the codes of the own rows. A message of one number for the largest score,
/// and one of `K` an iteration.
fn balanced(scores: &Tensor, epsilon: f64, iterations: usize, collective: &dyn Collective) -> Result<Tensor> {
    let (n, k) = crate::moments::matrix("sinkhorn", scores, 1)?.dims2()?;
    let values = op::host(scores)?;
    let own = values.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let mut max = own;
    for other in collective.gather(&Tensor::new(&[own], &Device::Cpu)?)? {
        max = op::host(&other)?.into_iter().fold(max, f64::max);
    }
    // A floor instead of 0 keeps a column that no sample is near to from dividing 0 by 0.
    let mut q: Vec<f64> = values.iter().map(|v| ((v - max) / epsilon).exp().max(1e-300)).collect();
    for _ in 0..iterations.max(1) {
        let mut columns = vec![0f64; k];
        for row in q.chunks_exact(k) {
            for (c, v) in columns.iter_mut().zip(row) {
                *c += v;
            }
        }
        let columns = collective.sum(&Tensor::from_vec(columns, k, &Device::Cpu)?)?.to_vec1::<f64>()?;
        for row in q.chunks_exact_mut(k) {
            for (v, c) in row.iter_mut().zip(&columns) {
                *v /= c;
            }
            let sum: f64 = row.iter().sum();
            for v in row {
                *v /= sum;
            }
        }
    }
    Ok(Tensor::from_vec(q, (n, k), &Device::Cpu)?.to_dtype(scores.dtype())?.to_device(scores.device())?)
}
