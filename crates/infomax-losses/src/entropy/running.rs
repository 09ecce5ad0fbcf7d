//! Estimators that carry second moments from step to step.

use crate::{
    Entropy, Error, Estimate, Result,
    entropy::{IntoTerm, entropy_part},
    invariance::normalize_rows,
    op,
    ranks::Ranks,
    settings::{none_negative, share},
};
use candle_core::{DType, Tensor};
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term, TermState};
use infomax_kernels::linalg;

/// A term with its configuration and what it carries from step to step.
///
/// Configurations hold no state, so that they can be compared, copied and written; this is what
/// [`IntoTerm`](super::IntoTerm) makes of one.
#[derive(Clone, Debug)]
pub struct Running<C> {
    /// The configuration.
    pub config: C,
    pub(crate) state: TermState,
}

impl<C> Running<C> {
    /// A term that has seen nothing yet.
    pub fn new(config: C) -> Self {
        Self { config, state: TermState::new() }
    }
}

impl<C> std::ops::Deref for Running<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.config
    }
}

/// CorInfoMax (Ozsoy et al., arXiv 2209.07999): `-(sum over views of ln det(R_v + eps I)) / d` of running
/// covariances `R <- l R + (1 - l) Zc^T Zc / n`, with running means, `R = I` at the start, in f64.
///
/// Gradients flow through the present batch only. The state is saved with a checkpoint.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CorInfoMax {
    /// The factor in the total.
    pub weight: f64,
    /// The forgetting factor `l` (0.01; ImageNet 0.1).
    pub forget: f64,
    /// Added to the diagonal (1e-8).
    pub eps: f64,
    /// Whether rows are scaled to unit length first; the official code does so in the model, before the loss.
    pub normalize: bool,
}

impl Default for CorInfoMax {
    fn default() -> Self {
        Self { weight: 1.0, forget: 0.01, eps: 1e-8, normalize: false }
    }
}

impl Running<CorInfoMax> {
    /// The running mean `(1, d)` and covariance `(d, d)` of a view with the batch `z` taken in, in f64.
    fn advance(&self, view: usize, z: &Tensor) -> Result<(Tensor, Tensor)> {
        self.over_ranks(view, z, &Ranks::of(&Context::standalone(), z.dim(0)?)?)
    }

    /// [`Running::advance`] with the rows of all ranks.
    fn over_ranks(&self, view: usize, z: &Tensor, ranks: &Ranks<'_>) -> Result<(Tensor, Tensor)> {
        let d = z.dim(1)?;
        let sums = ranks.sums_pay(d * d, z);
        let z = if sums { z.clone() } else { ranks.gather(z)? }.to_dtype(DType::F64)?;
        let z = if self.normalize { normalize_rows(&z, 1e-12)? } else { z };
        let n = ranks.total;
        let old = |name: &str, start: Tensor| -> Result<Tensor> {
            match self.state.get(&format!("{name}.{view}")) {
                Some(saved) => Ok(saved.to_device(z.device())?),
                None => Ok(start),
            }
        };
        let mut mean = old("mean", Tensor::zeros((1, d), DType::F64, z.device())?)?;
        let covariance = old("covariance", Tensor::eye(d, DType::F64, z.device())?)?;
        let scatter = if sums {
            // About the running mean: that about the mean of the batch, and the difference of both.
            let zc = ranks.centered(&z)?;
            let batch = (ranks.sum(&z.sum_keepdim(0)?)? / n as f64)?;
            let off = ((&batch - &mean)? * self.forget)?;
            let scatter = (ranks.sum(&zc.t()?.matmul(&zc)?)? + (off.t()?.matmul(&off)? * n as f64)?)?;
            mean = ((mean * self.forget)? + (batch * (1.0 - self.forget))?)?;
            scatter
        } else {
            mean = ((mean * self.forget)? + (z.mean_keepdim(0)? * (1.0 - self.forget))?)?;
            let zc = z.broadcast_sub(&mean)?;
            zc.t()?.matmul(&zc)?
        };
        let fresh = (scatter * ((1.0 - self.forget) / n as f64))?;
        Ok((mean, ((covariance * self.forget)? + fresh)?))
    }

    fn log_det(&self, covariance: &Tensor) -> Result<Tensor> {
        let d = covariance.dim(0)?;
        let eye = Tensor::eye(d, DType::F64, covariance.device())?;
        Ok((linalg::log_det_spd(&(covariance + (eye * self.eps)?)?)? / d as f64)?)
    }
}

impl IntoTerm for CorInfoMax {
    fn into_term(self) -> Box<dyn Entropy> {
        Box::new(Running::new(self))
    }
}

impl Term for Running<CorInfoMax> {
    fn name(&self) -> &str {
        "corinfomax"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut values = Vec::new();
        for (v, view) in z.projections.iter().enumerate() {
            values.push(self.log_det(&self.over_ranks(v, view, &ranks)?.1)?);
        }
        let value = Tensor::stack(&values, 0)?.sum_all()?.neg()?;
        let dtype = op::widen(&z.projections[0])?.dtype();
        Ok(vec![entropy_part("corinfomax", self.weight, value.to_dtype(dtype)?)])
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<()> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut state = TermState::new();
        for (v, view) in z.projections.iter().enumerate() {
            let (mean, covariance) = self.over_ranks(v, &view.detach(), &ranks)?;
            state.insert(format!("mean.{v}"), mean.detach());
            state.insert(format!("covariance.{v}"), covariance.detach());
        }
        self.state = state;
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

impl Entropy for Running<CorInfoMax> {
    fn check(&self) -> Result<()> {
        none_negative("corinfomax", [("weight", self.weight), ("eps", self.eps)])?;
        if (0.0..1.0).contains(&self.forget) {
            return Ok(());
        }
        Err(Error::Config {
            term: "corinfomax",
            key: "forget",
            value: self.forget.to_string(),
            reason: "must be in [0, 1)",
        })
    }

    /// `ln det(R + eps I) / d` of the batch alone.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let fresh = Self::new(self.config.clone());
        Ok(Estimate { nats: op::number(&fresh.log_det(&fresh.advance(0, z)?.1)?)?, bound: Bound::Surrogate })
    }
}

/// TiCo (Zhu et al., arXiv 2206.10698): `rho mean_i z_i^T C z_i` on unit rows of the first view, with the
/// running second moment `C <- beta C + (1 - beta) Z^T Z / n`, which gets no gradient.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tico {
    /// The factor in the total, `rho` (8).
    pub weight: f64,
    /// The forgetting factor (0.9).
    pub beta: f64,
}

impl Default for Tico {
    fn default() -> Self {
        Self { weight: 8.0, beta: 0.9 }
    }
}

impl Running<Tico> {
    /// The running moment with the rows of this process taken in.
    fn advance(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.detach();
        self.mix(&(rows.t()?.matmul(&rows)? / rows.dim(0)? as f64)?)
    }

    /// The running moment with that of a batch taken in.
    fn mix(&self, fresh: &Tensor) -> Result<Tensor> {
        let new = (fresh * (1.0 - self.beta))?;
        match self.state.get("moment") {
            Some(old) => Ok((new + (old.to_dtype(fresh.dtype())?.to_device(fresh.device())? * self.beta)?)?),
            None => Ok(new),
        }
    }

    fn contrast(&self, z: &Tensor) -> Result<Tensor> {
        let rows = normalize_rows(z, 1e-12)?;
        let moment = self.advance(&rows)?;
        Ok((rows.matmul(&moment)? * &rows)?.sum(1)?.mean_all()?)
    }

    /// The second moment of the unit rows of all ranks, where its sum is less traffic than they are.
    fn moment(&self, z: &Tensor, ranks: &Ranks<'_>) -> Result<Option<Tensor>> {
        let rows = normalize_rows(z, 1e-12)?;
        let product = ranks.product(&rows, &rows)?;
        product.map(|sum| Ok((sum / ranks.total as f64)?.to_dtype(rows.dtype())?)).transpose()
    }
}

impl IntoTerm for Tico {
    fn into_term(self) -> Box<dyn Entropy> {
        Box::new(Running::new(self))
    }
}

impl Term for Running<Tico> {
    fn name(&self) -> &str {
        "tico"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let (ranks, view) = (Ranks::of(ctx, z.projections.batch())?, &z.projections[0]);
        let value = match self.moment(view, &ranks)? {
            // mean_i z_i^T C z_i is the product of C with the moment of the batch, by elements.
            Some(fresh) => (self.mix(&fresh.detach())? * fresh)?.sum_all()?,
            None => self.contrast(&ranks.gather(view)?)?,
        };
        Ok(vec![entropy_part("covariance-contrast", self.weight, value)])
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<()> {
        let (ranks, view) = (Ranks::of(ctx, z.projections.batch())?, z.projections[0].detach());
        let moment = match self.moment(&view, &ranks)? {
            Some(fresh) => self.mix(&fresh)?,
            None => self.advance(&normalize_rows(&ranks.gather(&view)?, 1e-12)?)?,
        };
        self.state.insert("moment".into(), moment);
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

impl Entropy for Running<Tico> {
    fn check(&self) -> Result<()> {
        none_negative("tico", [("weight", self.weight)])?;
        share("tico", "beta", self.beta)
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let fresh = Self::new(Tico { beta: 0.0, ..self.config.clone() });
        Ok(Estimate { nats: -op::number(&fresh.contrast(z)?)?, bound: Bound::Surrogate })
    }
}
