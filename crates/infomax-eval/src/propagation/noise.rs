//! Normal noise at the input: what it becomes by the theorem, and what it becomes in truth.

use super::jacobian::width;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;

/// The covariance `S` of the noise at the input, never formed where its form is simpler.
#[derive(Clone, Debug)]
pub enum Noise {
    /// `S = variance I`.
    Isotropic(f64),
    /// `S = F F^T` with `F` of shape `(D_in, R)`: noise in the span of the `R` columns, such as the principal
    /// components of the views of an image.
    Factor(Tensor),
}

impl Noise {
    fn check(&self, inputs: usize) -> Result<()> {
        match self {
            Self::Isotropic(v) if !(*v > 0.0 && v.is_finite()) => Err(Error::Config {
                key: "noise.variance",
                value: v.to_string(),
                reason: "must be positive and finite",
            }),
            Self::Factor(f) if f.rank() != 2 || f.dims()[0] != inputs || f.dims()[1] == 0 => {
                Err(Error::Shape {
                    op: "noise",
                    name: "the factor",
                    expected: format!("({inputs}, R), a row for each element of the input"),
                    got: f.dims().to_vec(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The covariance of the output that the theorem predicts, `A S A^T` of shape `(D_out, D_out)` in f64, from the
    /// Jacobian `(D_out, D_in)`: formed as `(A F)(A F)^T`, `S` itself never.
    ///
    /// # Errors
    /// A variance that is not positive, or shapes that do not fit.
    pub fn propagate(&self, jacobian: &Tensor) -> Result<Tensor> {
        let a = jacobian.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (_, inputs) = a.dims2()?;
        self.check(inputs)?;
        let spread = match self {
            Self::Isotropic(variance) => (a * variance.sqrt())?,
            Self::Factor(f) => a.matmul(&f.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?,
        };
        Ok(spread.matmul(&spread.t()?.contiguous()?)?)
    }

    /// `count` draws `(count, D_in)` in f64.
    pub(super) fn draw(&self, key: Key, count: usize, inputs: usize) -> Result<Tensor> {
        self.check(inputs)?;
        let normal = |n: usize| key.normal(0.0, 1.0, (count, n), DType::F64, &Device::Cpu);
        Ok(match self {
            Self::Isotropic(variance) => (normal(inputs)? * variance.sqrt())?,
            Self::Factor(f) => {
                let f = f.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
                normal(f.dim(1)?)?.matmul(&f.t()?.contiguous()?)?
            }
        })
    }
}

/// The settings of [`monte_carlo`] and [`super::region_shares`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonteCarloConfig {
    /// The number of draws.
    pub draws: usize,
    /// Draws that go through the encoder at once: what bounds the memory. The draws depend on it, too.
    pub batch: usize,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for MonteCarloConfig {
    /// 4,096 draws in batches of 256, with the seed 0.
    fn default() -> Self {
        Self { draws: 4_096, batch: 256, seed: 0 }
    }
}

impl MonteCarloConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.draws < 2 || self.batch == 0 {
            let value = format!("draws {}, batch {}", self.draws, self.batch);
            let reason = "needs at least two draws and a batch of at least one";
            return Err(Error::Config { key: "monte_carlo", value, reason });
        }
        Ok(())
    }

    /// Calls `f` with each batch of noisy inputs, in the shape and type of `x`, and their noise `(B, D_in)`.
    pub(super) fn batches(
        &self,
        x: &Tensor,
        noise: &Noise,
        mut f: impl FnMut(&Tensor, &Tensor) -> Result<()>,
    ) -> Result<()> {
        self.check()?;
        let key = Key::new(self.seed).fold_named("propagation");
        let point = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?;
        let inputs = point.elem_count();
        for (at, start) in (0..self.draws).step_by(self.batch).enumerate() {
            let count = self.batch.min(self.draws - start);
            let e = noise.draw(key.fold_in(at as u64), count, inputs)?;
            let mut dims = vec![count];
            dims.extend_from_slice(x.dims());
            let noisy = e.broadcast_add(&point)?.reshape(dims)?;
            f(&noisy.to_dtype(x.dtype())?.to_device(x.device())?, &e)?;
        }
        Ok(())
    }
}

/// The outputs of an encoder at noisy inputs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MonteCarlo {
    /// The mean output `(D_out)`, f64.
    pub mean: Tensor,
    /// The covariance of the outputs `(D_out, D_out)`, f64, divided by `draws - 1`.
    pub covariance: Tensor,
    /// All outputs `(draws, D_out)`, f64.
    pub outputs: Tensor,
}

/// The mean and covariance of `f(x + e)` over draws of the noise `e`, in two passes over the outputs.
///
/// # Errors
/// Settings out of range, shapes that do not fit, or outputs that are not finite.
pub fn monte_carlo(
    encoder: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    noise: &Noise,
    cfg: &MonteCarloConfig,
) -> Result<MonteCarlo> {
    const OP: &str = "monte_carlo";
    let mut outputs = Vec::new();
    cfg.batches(x, noise, |noisy, _| {
        let z = encoder(noisy)?;
        width(OP, &z, noisy.dim(0)?)?;
        outputs.push(z.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?);
        Ok(())
    })?;
    let outputs = Tensor::cat(&outputs, 0)?;
    let rows = crate::matrix::Rows::read(OP, "the encoder's output", &outputs)?;
    let mean = Tensor::from_vec(rows.mean(), rows.d, &Device::Cpu)?;
    let centered = rows.centered().tensor()?;
    let covariance = (centered.t()?.contiguous()?.matmul(&centered)? / (rows.n as f64 - 1.0))?;
    Ok(MonteCarlo { mean, covariance, outputs })
}
