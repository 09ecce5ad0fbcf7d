//! Whole steps of optimizers, for all parameters at once: on CUDA one launch, elsewhere pass by pass.

use super::{adam_step, axpy, axpy_square, composed_sum, lerp, momentum, nesterov, sum_squares};
use candle_core::{DType, Device, Result, Tensor};

/// A parameter in a step, with what belongs to it: tensors of one shape, type and device. `param` and the state are
/// changed in place, so nothing else may share their memory.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The parameter.
    pub param: &'a Tensor,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// The momentum, or the first moment.
    pub first: &'a Tensor,
    /// The second moment, for AdamW and LAMB.
    pub second: Option<&'a Tensor>,
    /// The learning rate.
    pub lr: f64,
    /// The weight decay.
    pub decay: f64,
    /// The factor of the gradient: the trust ratio of LARS, otherwise 1. AdamW and LAMB do not look at it.
    pub scale: f64,
    /// The number of this step, from 1 on, for AdamW and LAMB.
    pub step: u64,
}

/// `d = scale (g + decay p)`, `m <- mu m + d`, `p <- p - lr m`, or with Nesterov `p <- p - lr (d + mu m)`, for all
/// parameters. With the trust ratio as the scale this is LARS.
///
/// # Errors
/// Tensors of unequal shape or type, or a parameter or state that is not contiguous.
pub fn sgd_step(slots: &[Slot<'_>], mu: f64, ahead: bool) -> Result<()> {
    #[cfg(feature = "cuda")]
    if cuda::takes(slots) {
        return cuda::sgd(slots, mu, ahead);
    }
    for s in slots {
        momentum(s.first, mu, s.scale, s.decay, s.param, s.grad)?;
        if ahead {
            nesterov(s.param, s.lr, mu, s.scale, s.decay, s.first, s.grad)?;
        } else {
            axpy(s.param, 1.0, -s.lr, s.first)?;
        }
    }
    Ok(())
}

/// `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`,
/// `p <- (1 - lr decay) p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)` for all parameters (AdamW,
/// arXiv:1711.05101).
///
/// # Errors
/// As [`sgd_step`], or a slot without a second moment or whose step is 0.
pub fn adamw_step(slots: &[Slot<'_>], (beta1, beta2): (f64, f64), eps: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if cuda::takes(slots) {
        return cuda::adamw(slots, (beta1, beta2), eps);
    }
    for s in slots {
        let (Some(second), 1..) = (s.second, s.step) else {
            candle_core::bail!("adamw_step: each slot needs a second moment and a step from 1 on");
        };
        let t = s.step as f64;
        lerp(s.first, 1.0 - beta1, s.grad)?;
        axpy_square(second, beta2, 1.0 - beta2, s.grad)?;
        let (correction, root) = (1.0 - beta1.powf(t), (1.0 - beta2.powf(t)).sqrt());
        adam_step(s.param, 1.0 - s.lr * s.decay, s.lr / correction, root, eps, s.first, second)?;
    }
    Ok(())
}

/// The settings of [`lamb_step`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    /// The factors of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The largest trust ratio, if there is one.
    pub max_trust: Option<f64>,
}

/// `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`,
/// `r = m / (1 - b1^t) / (sqrt(v) / sqrt(1 - b2^t) + eps)`, `p <- p - lr q (r + decay p)` for all parameters, with the
/// trust ratio `q = ||p|| / ||r + decay p||` of those whose `adapt` is set, 1 where a norm is 0 (LAMB, arXiv:1904.00962).
/// On CUDA two launches for each learning rate and nothing that comes to the host; elsewhere pass by pass.
///
/// # Errors
/// As [`adamw_step`], or not one `adapt` for each slot.
pub fn lamb_step(slots: &[Slot<'_>], adapt: &[bool], cfg: Lamb) -> Result<()> {
    if adapt.len() != slots.len() {
        candle_core::bail!("lamb_step: {} slots and {} values of `adapt`", slots.len(), adapt.len());
    }
    #[cfg(feature = "cuda")]
    if cuda::takes(slots) {
        return cuda::lamb(slots, adapt, cfg);
    }
    let (beta1, beta2) = cfg.betas;
    for (s, adapt) in slots.iter().zip(adapt) {
        let (Some(second), 1..) = (s.second, s.step) else {
            candle_core::bail!("lamb_step: each slot needs a second moment and a step from 1 on");
        };
        let t = s.step as f64;
        lerp(s.first, 1.0 - beta1, s.grad)?;
        axpy_square(second, beta2, 1.0 - beta2, s.grad)?;
        let (correction, root) = (1.0 - beta1.powf(t), (1.0 - beta2.powf(t)).sqrt());
        let r = s.param.detach().zeros_like()?;
        adam_step(&r, 0.0, -1.0 / correction, root, cfg.eps, s.first, second)?;
        let q = if *adapt { trust(s.param, &r, s.decay, cfg.max_trust)? } else { 1.0 };
        axpy(s.param, 1.0 - s.lr * q * s.decay, -s.lr * q, &r)?;
    }
    Ok(())
}

/// The trust ratio of a direction `r + decay p`.
fn trust(p: &Tensor, r: &Tensor, decay: f64, most: Option<f64>) -> Result<f64> {
    let norms = sums_of_squares(&[(p, 0.0, p), (r, decay, p)])?;
    let [param, update] = norms[..] else { candle_core::bail!("two norms were asked for") };
    if param == 0.0 || update == 0.0 {
        return Ok(1.0);
    }
    let ratio = param.sqrt() / update.sqrt();
    Ok(most.map_or(ratio, |most| ratio.min(most)))
}

/// [`sum_squares`] of each `(g, decay, p)`, with one wait for a device in all.
///
/// # Errors
/// Tensors of unequal shape or type.
pub fn sums_of_squares(all: &[(&Tensor, f64, &Tensor)]) -> Result<Vec<f64>> {
    #[cfg(feature = "cuda")]
    if let Some(sums) = cuda::sums(all)? {
        return Ok(sums);
    }
    if all.first().is_none_or(|(g, ..)| crate::has_cpu_kernels(g)) {
        return all.iter().map(|(g, decay, p)| sum_squares(g, *decay, p)).collect();
    }
    let sums = all.iter().map(|(g, decay, p)| composed_sum(g, *decay, p)).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&sums, 0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()
}

/// By the kernels for all parameters.
#[cfg(feature = "cuda")]
mod cuda {
    use super::Slot;
    use candle_core::{DType, Result, Tensor};
    use std::collections::BTreeMap;

    fn fits(t: &Tensor) -> bool {
        t.device().is_cuda() && t.dtype() == DType::F32 && t.elem_count() > 0
    }

    pub(super) fn takes(slots: &[Slot<'_>]) -> bool {
        let state = |s: &Slot<'_>| s.param.is_contiguous() && s.first.is_contiguous();
        !slots.is_empty() && slots.iter().all(|s| fits(s.param) && fits(s.grad) && fits(s.first) && state(s))
    }

    /// One launch for each learning rate: groups of parameters may have their own.
    fn each(
        slots: &[Slot<'_>],
        launch: impl Fn(f64, &[infomax_cuda::Slot<'_>]) -> infomax_cuda::Result<()>,
    ) -> Result<()> {
        let grads = slots.iter().map(|s| s.grad.contiguous()).collect::<Result<Vec<_>>>()?;
        let mut groups: BTreeMap<u64, Vec<infomax_cuda::Slot<'_>>> = BTreeMap::new();
        for (s, grad) in slots.iter().zip(&grads) {
            let Slot { param, first, second, lr, decay, scale, step, .. } = *s;
            let slot = infomax_cuda::Slot { param, grad, first, second, decay, scale, step };
            groups.entry(lr.to_bits()).or_default().push(slot);
        }
        for (lr, slots) in groups {
            launch(f64::from_bits(lr), &slots)?;
        }
        Ok(())
    }

    pub(super) fn sgd(slots: &[Slot<'_>], momentum: f64, nesterov: bool) -> Result<()> {
        each(slots, |lr, slots| infomax_cuda::sgd_step(slots, infomax_cuda::Sgd { lr, momentum, nesterov }))
    }

    pub(super) fn adamw(slots: &[Slot<'_>], (beta1, beta2): (f64, f64), eps: f64) -> Result<()> {
        each(slots, |lr, slots| {
            infomax_cuda::adamw_step(slots, infomax_cuda::AdamW { lr, beta1, beta2, eps })
        })
    }

    /// Two launches for each learning rate, of those that adapt and of those that do not.
    pub(super) fn lamb(slots: &[Slot<'_>], adapt: &[bool], cfg: super::Lamb) -> Result<()> {
        let (beta1, beta2) = cfg.betas;
        let (eps, max_trust) = (cfg.eps, cfg.max_trust.unwrap_or(f64::INFINITY));
        for which in [true, false] {
            let some: Vec<Slot<'_>> = slots
                .iter()
                .zip(adapt)
                .filter(|(_, adapt)| **adapt == which)
                .map(|(slot, _)| *slot)
                .collect();
            each(&some, |lr, slots| {
                let cfg = infomax_cuda::Lamb { lr, beta1, beta2, eps, max_trust, adapt: which };
                infomax_cuda::lamb_step(slots, cfg)
            })?;
        }
        Ok(())
    }

    pub(super) fn sums(all: &[(&Tensor, f64, &Tensor)]) -> Result<Option<Vec<f64>>> {
        if all.is_empty() || !all.iter().all(|(g, _, p)| fits(g) && fits(p)) {
            return Ok(None);
        }
        let pairs =
            all.iter().map(|(g, _, p)| Ok((g.contiguous()?, p.contiguous()?))).collect::<Result<Vec<_>>>()?;
        let slots: Vec<_> = pairs
            .iter()
            .map(|(grad, param)| infomax_cuda::Slot {
                param,
                grad,
                first: param,
                second: None,
                decay: 0.0,
                scale: 1.0,
                step: 1,
            })
            .collect();
        // |g + decay p|^2 of the three sums, which are f64.
        let sums = infomax_cuda::squared_norms(&slots)?.into_iter().zip(all);
        Ok(Some(sums.map(|([pp, gg, pg], (_, d, _))| (gg + d * (2.0 * pg + d * pp)).max(0.0)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::without_cpu_kernels;
    use infomax_testing::spread;

    /// Two parameters with their own rates after two steps.
    fn run(kind: &str, dtype: DType) -> Vec<f64> {
        let make = |seed| spread(&[3, 5], seed, 1.0).to_dtype(dtype).unwrap();
        let all: Vec<Vec<Tensor>> = (0..2).map(|i| (0..4).map(|j| make(10 * i + j)).collect()).collect();
        let positive = |t: &Tensor| (t.abs().unwrap() + 0.1).unwrap();
        let seconds: Vec<Tensor> = all.iter().map(|t| positive(&t[3])).collect();
        for step in 1..3 {
            let slots: Vec<Slot<'_>> = all
                .iter()
                .zip(&seconds)
                .zip([0.1, 0.03])
                .map(|((t, second), lr)| Slot {
                    param: &t[0],
                    grad: &t[1],
                    first: &t[2],
                    second: Some(second),
                    lr,
                    decay: 0.2,
                    scale: 0.7,
                    step,
                })
                .collect();
            let lamb = Lamb { betas: (0.9, 0.99), eps: 1e-8, max_trust: Some(1.5) };
            match kind {
                "adamw" => adamw_step(&slots, lamb.betas, lamb.eps).unwrap(),
                "lamb" => lamb_step(&slots, &[true, false], lamb).unwrap(),
                _ => sgd_step(&slots, 0.9, step == 2).unwrap(),
            }
        }
        let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        all.iter().flat_map(|t| [flat(&t[0]), flat(&t[2])]).flatten().collect()
    }

    #[test]
    fn steps_of_all_parameters_are_the_same_composed() {
        for kind in ["sgd", "adamw", "lamb"] {
            let (exact, composed) = (run(kind, DType::F64), without_cpu_kernels(|| run(kind, DType::F64)));
            for (a, b) in exact.iter().zip(&composed) {
                assert!((a - b).abs() < 1e-13, "{kind} {a} {b}");
            }
            for (a, b) in exact.iter().zip(&run(kind, DType::F32)) {
                assert!((a - b).abs() < 1e-5, "{kind} {a} {b}");
            }
        }
        // By hand: one element, one step of SGD with decay and scale.
        let one = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let (param, grad, first) = (one(2.0), one(0.5), one(1.0));
        let slot = Slot {
            param: &param,
            grad: &grad,
            first: &first,
            second: None,
            lr: 0.1,
            decay: 0.25,
            scale: 3.0,
            step: 0,
        };
        sgd_step(&[slot], 0.5, false).unwrap();
        assert_eq!(first.to_vec1::<f64>().unwrap(), [3.5]);
        assert!((param.to_vec1::<f64>().unwrap()[0] - 1.65).abs() < 1e-15);
        assert!(adamw_step(&[slot], (0.9, 0.99), 1e-8).is_err());
    }

    #[test]
    fn lamb_by_hand() {
        let pair = |a: f64, b: f64| Tensor::new(&[a, b], &Device::Cpu).unwrap();
        let cfg = Lamb { betas: (0.5, 0.75), eps: 0.0, max_trust: None };
        let step = |adapt: bool, cfg: Lamb, start: (f64, f64)| {
            let (param, grad) = (pair(start.0, start.1), pair(2.0, -1.0));
            let (first, second) = (pair(0.0, 0.0), pair(0.0, 0.0));
            let slot = Slot {
                param: &param,
                grad: &grad,
                first: &first,
                second: Some(&second),
                lr: 0.1,
                decay: 0.5,
                scale: 1.0,
                step: 1,
            };
            assert!(lamb_step(&[slot], &[], cfg).is_err());
            lamb_step(&[slot], &[adapt], cfg).unwrap();
            param.to_vec1::<f64>().unwrap()
        };
        // Corrected, the first direction is the sign of the gradient: r + decay p = (1 + 1.5, -1 + 2) = (2.5, 1), |p| = 5.
        let norm = 7.25f64.sqrt();
        for (adapt, max_trust, q) in [(false, None, 1.0), (true, None, 5.0 / norm), (true, Some(1.25), 1.25)]
        {
            let got = step(adapt, Lamb { max_trust, ..cfg }, (3.0, 4.0));
            let expected = [3.0 - 0.1 * q * 2.5, 4.0 - 0.1 * q];
            assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-14), "{got:?} {expected:?}");
        }
        // A parameter of zeros has no ratio.
        assert_eq!(step(true, cfg, (0.0, 0.0)), [-0.1, 0.1]);
    }

    #[test]
    fn sums_are_taken_together() {
        let (g, p) = (spread(&[4, 5], 1, 1.0), spread(&[4, 5], 2, 1.0));
        let all = [(&g, 0.0, &g), (&g, 0.5, &p)];
        let expected: Vec<f64> = all.iter().map(|(g, d, p)| sum_squares(g, *d, p).unwrap()).collect();
        let composed = without_cpu_kernels(|| sums_of_squares(&all).unwrap());
        for sums in [sums_of_squares(&all).unwrap(), composed] {
            assert!(sums.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{sums:?}");
        }
        assert!(sums_of_squares(&[]).unwrap().is_empty());
    }
}
