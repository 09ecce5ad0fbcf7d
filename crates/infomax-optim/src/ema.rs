//! Exponential moving averages of parameters.

use crate::error::check;
use crate::{Error, Result};
use infomax_core::{ParamKind, Params};
use infomax_kernels::update;
use std::f64::consts::PI;

/// An exponential moving average of parameters, `t <- tau t + (1 - tau) s`, whose momentum `tau` rises from
/// `start` to `end` along half a cosine, as in BYOL (arXiv 2006.07733):
///
/// `tau(k) = end - (end - start) (1 + cos(pi k / K)) / 2`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// The momentum at step 0.
    pub start: f64,
    /// The momentum at step `total_steps` and after it.
    pub end: f64,
    /// The length `K` of the rise.
    pub total_steps: u64,
}

impl Ema {
    /// An average with a constant momentum.
    ///
    /// # Errors
    /// A momentum outside of `[0, 1]`.
    pub fn constant(tau: f64) -> Result<Self> {
        Self::cosine(tau, tau, 0)
    }

    /// An average whose momentum rises along half a cosine.
    ///
    /// # Errors
    /// A momentum outside of `[0, 1]`.
    pub fn cosine(start: f64, end: f64, total_steps: u64) -> Result<Self> {
        check("ema.start", start, 0.0..=1.0, "a momentum must be in [0, 1]")?;
        check("ema.end", end, 0.0..=1.0, "a momentum must be in [0, 1]")?;
        Ok(Self { start, end, total_steps })
    }

    /// The momentum of a step.
    pub fn tau(&self, step: u64) -> f64 {
        if step >= self.total_steps {
            return self.end;
        }
        let x = step as f64 / self.total_steps as f64;
        self.end - (self.end - self.start) * 0.5 * (1.0 + (PI * x).cos())
    }

    /// Moves every entry of `target` towards the entry of `source` with the same name. Entries that are
    /// buffers in `source` (running statistics) are copied. `target` may hold a part of `source`.
    ///
    /// # Errors
    /// [`Error::Ema`] for an entry that `source` has not, or has in another shape; nothing is changed then.
    pub fn update(&self, target: &Params, source: &Params, step: u64) -> Result<()> {
        let tau = self.tau(step);
        let mut pairs = Vec::new();
        for (name, to) in target.all() {
            match source.get(&name) {
                Some(from) if from.var.dims() == to.var.dims() => pairs.push((to, from)),
                from => {
                    let got = from.map(|from| from.var.dims().to_vec());
                    return Err(Error::Ema { name, expected: to.var.dims().to_vec(), got });
                }
            }
        }
        for (to, from) in pairs {
            let value = from.var.as_tensor().detach().to_device(to.var.device())?.to_dtype(to.var.dtype())?;
            let weight = if from.kind == ParamKind::Buffer { 1.0 } else { 1.0 - tau };
            update::lerp(to.var.as_tensor(), weight, &value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::{Init, Key};

    fn params(weight: f64, buffer: f64, width: usize) -> Params {
        let params = Params::new(DType::F64, &Device::Cpu, Key::new(0));
        params.root().get("w", width, ParamKind::Weight, Init::Const(weight)).unwrap();
        params.root().get("mean", 2, ParamKind::Buffer, Init::Const(buffer)).unwrap();
        params
    }

    fn first(params: &Params, name: &str) -> f64 {
        params.get(name).unwrap().var.to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn momentum_follows_half_a_cosine() {
        let ema = Ema::cosine(0.99, 1.0, 100).unwrap();
        for (step, tau) in [(0, 0.99), (50, 0.995), (100, 1.0), (200, 1.0)] {
            assert!((ema.tau(step) - tau).abs() < 1e-15);
        }
        assert_eq!(Ema::constant(0.5).unwrap().tau(7), 0.5);
        assert!(Ema::constant(1.5).is_err());
    }

    #[test]
    fn weights_are_averaged_and_buffers_copied() {
        let (target, source) = (params(1.0, 0.0, 3), params(2.0, 5.0, 3));
        Ema::constant(0.9).unwrap().update(&target, &source, 0).unwrap();
        assert!((first(&target, "w") - 1.1).abs() < 1e-15);
        assert_eq!(first(&target, "mean"), 5.0);
        Ema::constant(1.0).unwrap().update(&target, &params(7.0, 5.0, 3), 0).unwrap();
        assert!((first(&target, "w") - 1.1).abs() < 1e-15);
        Ema::constant(0.0).unwrap().update(&target, &source, 0).unwrap();
        assert_eq!(first(&target, "w"), 2.0);
        let message = Ema::constant(0.9).unwrap().update(&target, &params(2.0, 0.0, 4), 0).unwrap_err();
        assert!(message.to_string().contains("`w`") && message.to_string().contains("[4]"), "{message}");
    }
}
