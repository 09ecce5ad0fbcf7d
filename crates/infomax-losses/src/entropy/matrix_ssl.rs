//! Matrix-SSL: matrix cross-entropies between the auto-covariances of views.

use crate::{
    Entropy, Error, Estimate, Result,
    entropy::{centered, entropy_part},
    invariance::normalize_rows,
    moments, op,
    ranks::Ranks,
    settings::{count, none_negative, positive},
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// Matrix-SSL (Zhang et al., arXiv 2305.17326) on unit rows, with `P = Z1c^T Z1c / n + mu I` and `Q` alike:
///
/// ```text
/// uniformity = -lambda tr ln(Z1c^T Z2c / n + mu I)
/// alignment  = -tr(P ln Q)
/// ```
/// with the logarithm by its series about `I` of the given order, as in the official code. The mean over all
/// ordered pairs of views. `uniformity` is the entropy part (minus a log-determinant), `alignment` the
/// invariance part. Cost `n d^2 + order d^3`.
///
/// The series converges for eigenvalues in `(0, 2)`: unit rows keep them in `[mu, 1 + mu]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MatrixSsl {
    /// The factor of both parts.
    pub weight: f64,
    /// The factor of the uniformity part (0.5).
    pub lambda: f64,
    /// Added to the diagonals (0.5).
    pub mu: f64,
    /// The factor of the alignment part (1).
    pub gamma: f64,
    /// The order of the series (4).
    pub order: usize,
}

impl Default for MatrixSsl {
    fn default() -> Self {
        Self { weight: 1.0, lambda: 0.5, mu: 0.5, gamma: 1.0, order: 4 }
    }
}

impl MatrixSsl {
    /// `-lambda tr ln(Z1c^T Z2c / n + mu I)` of two views `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Views of unequal shape, or of fewer than two rows.
    pub fn uniformity(&self, z1: &Tensor, z2: &Tensor) -> Result<Tensor> {
        let (a, b) = (unit(z1)?, unit(z2)?);
        same(&a, &b)?;
        let log = self.log(&self.moment(&a, &b)?)?;
        Ok((trace(&log)? * -self.lambda)?)
    }

    /// `-tr(P ln Q)` of two views `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// As [`MatrixSsl::uniformity`].
    pub fn alignment(&self, z1: &Tensor, z2: &Tensor) -> Result<Tensor> {
        let (a, b) = (unit(z1)?, unit(z2)?);
        same(&a, &b)?;
        let (p, q) = (self.moment(&a, &a)?, self.moment(&b, &b)?);
        // tr(P ln Q) of two symmetric matrices is the sum of their products by elements.
        Ok((p * self.log(&q)?)?.sum_all()?.neg()?)
    }

    /// The parts from the moments of the rows of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, views: &[Tensor]) -> Result<Vec<Part>> {
        let dtype = op::widen(&views[0])?.dtype();
        let own = |v: &Tensor| ranks.centered(&normalize_rows(v, 1e-12)?);
        let own = views.iter().map(own).collect::<Result<Vec<_>>>()?;
        let eye = Tensor::eye(own[0].dim(1)?, own[0].dtype(), own[0].device())?;
        let moment = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            Ok(((ranks.sum(&a.t()?.matmul(b)?)? / ranks.total as f64)? + (&eye * self.mu)?)?)
        };
        let moments = own.iter().map(|a| moment(a, a)).collect::<Result<Vec<_>>>()?;
        let (mut uniformity, mut alignment) = (Vec::new(), Vec::new());
        for (i, a) in own.iter().enumerate() {
            for (j, b) in own.iter().enumerate() {
                if i < j {
                    uniformity.push((trace(&self.log(&moment(a, b)?)?)? * -self.lambda)?.to_dtype(dtype)?);
                }
                if i != j {
                    let value = (&moments[i] * self.log(&moments[j])?)?.sum_all()?.neg()?;
                    alignment.push(value.to_dtype(dtype)?);
                }
            }
        }
        self.both(&alignment, &uniformity)
    }

    fn both(&self, alignment: &[Tensor], uniformity: &[Tensor]) -> Result<Vec<Part>> {
        Ok(vec![
            Part {
                name: "alignment".into(),
                role: Role::Invariance,
                weight: self.weight * self.gamma,
                value: Tensor::stack(alignment, 0)?.mean_all()?,
            },
            entropy_part("uniformity", self.weight, Tensor::stack(uniformity, 0)?.mean_all()?),
        ])
    }

    fn moment(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (n, d) = a.dims2()?;
        let eye = Tensor::eye(d, a.dtype(), a.device())?;
        Ok(((a.t()?.matmul(b)? / n as f64)? + (eye * self.mu)?)?)
    }

    /// `sum_{k=1}^{order} (-1)^{k+1} (X - I)^k / k`.
    fn log(&self, x: &Tensor) -> Result<Tensor> {
        let shifted = (x - Tensor::eye(x.dim(0)?, x.dtype(), x.device())?)?;
        let mut power = shifted.clone();
        let mut sum = shifted.clone();
        for k in 2..=self.order {
            power = power.matmul(&shifted)?;
            let sign = if k % 2 == 0 { -1.0 } else { 1.0 };
            sum = (sum + (&power * (sign / k as f64))?)?;
        }
        Ok(sum)
    }
}

impl Term for MatrixSsl {
    fn name(&self) -> &str {
        "matrix-ssl"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        crate::error::views("matrix-ssl", 2, z.projections.len())?;
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        if ranks.total > 1 && ranks.sums_pay(z.projections.dim().pow(2), &z.projections[0]) {
            return Ok(self.shared(&ranks, z.projections.as_slice())?);
        }
        let views = z.projections.iter().map(|v| ranks.gather(v)).collect::<Result<Vec<_>>>()?;
        let (mut uniformity, mut alignment) = (Vec::new(), Vec::new());
        for (i, a) in views.iter().enumerate() {
            for (j, b) in views.iter().enumerate() {
                if i < j {
                    // The trace of the logarithm of the transpose is the same.
                    uniformity.push(self.uniformity(a, b)?);
                }
                if i != j {
                    alignment.push(self.alignment(a, b)?);
                }
            }
        }
        Ok(self.both(&alignment, &uniformity)?)
    }
}

impl Entropy for MatrixSsl {
    fn check(&self) -> Result<()> {
        let Self { weight, lambda, gamma, .. } = *self;
        none_negative("matrix-ssl", [("weight", weight), ("lambda", lambda), ("gamma", gamma)])?;
        count("matrix-ssl", "order", self.order, 1)?;
        positive("matrix-ssl", "mu", self.mu)
    }

    /// `lambda tr ln(Zc^T Zc / n + mu I)`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Ok(Estimate { nats: -op::number(&self.uniformity(z, z)?)?, bound: Bound::Surrogate })
    }
}

fn unit(z: &Tensor) -> Result<Tensor> {
    centered(&normalize_rows(&moments::matrix("matrix-ssl", z, 2)?, 1e-12)?)
}

fn same(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(Error::Shape { term: "matrix-ssl", expected: "two views of one shape", got: b.dims().to_vec() })
}

fn trace(a: &Tensor) -> Result<Tensor> {
    Ok((a * Tensor::eye(a.dim(0)?, a.dtype(), a.device())?)?.sum_all()?)
}
