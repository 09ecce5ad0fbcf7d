//! What is left out at random in training: whole branches (stochastic depth) and single values (dropout).

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Pass;
use rand::RngExt as _;

/// Refuses a rate outside of `[0, 1)`.
pub(crate) fn check(key: &str, rate: f64) -> Result<()> {
    if (0.0..1.0).contains(&rate) {
        return Ok(());
    }
    Err(Error::config(key, rate, "must be at least 0 and below 1"))
}

/// The rates of stochastic depth: a straight line from 0 at the first of `count` blocks to `last`, as in timm and
/// torchvision.
pub(crate) fn rates(last: f64, count: usize) -> Vec<f64> {
    (0..count).map(|i| if count == 1 { last } else { last * i as f64 / (count - 1) as f64 }).collect()
}

/// A draw for each sample of this process's part of the batch, from a key of its own: which samples are dropped
/// depends on neither the number of processes nor on that of threads.
fn draws(pass: &Pass<'_>, layer: &str, batch: usize) -> impl Iterator<Item = f64> {
    let key = pass.key.fold_named(layer);
    let first = (pass.collective.rank() * batch) as u64;
    (0..batch as u64).map(move |i| key.fold_in(first + i).rng().random::<f64>())
}

/// Stochastic depth (Huang et al., arXiv:1603.09382) of a residual branch, per sample: of `y = x + f(x)` a sample
/// keeps `x` alone with probability `rate`, and is `x + f(x) / (1 - rate)` otherwise, as timm's `DropPath`.
///
/// `branch(xs, scale)` computes `x + scale f(x)` and sees the samples only that keep `f`, so that what is dropped
/// costs nothing. Where none keeps it, one sample goes through with a scale of 0: every parameter has a
/// gradient, zero if need be. Without a rate, and in evaluation, `branch(xs, None)` is the result.
pub(crate) fn path(
    xs: &Tensor,
    (rate, layer): (f64, &str),
    pass: &Pass<'_>,
    branch: impl Fn(&Tensor, Option<f64>) -> Result<Tensor>,
) -> Result<Tensor> {
    if rate == 0.0 || !pass.is_train() {
        return branch(xs, None);
    }
    let batch = xs.dim(0)?;
    let keep: Vec<bool> = draws(pass, layer, batch).map(|draw| draw >= rate).collect();
    let pick = |kept: bool| -> Vec<u32> {
        let picked = keep.iter().zip(0u32..).filter(|(keep, _)| **keep == kept);
        picked.map(|(_, i)| i).collect()
    };
    let (mut order, mut dropped, mut scale) = (pick(true), pick(false), 1.0 / (1.0 - rate));
    if order.is_empty() {
        (order, scale) = (vec![0], 0.0);
        dropped.remove(0);
    }
    let select = |rows: &[u32]| xs.index_select(&Tensor::new(rows, xs.device())?, 0);
    let ys = branch(&select(&order)?, Some(scale))?;
    if dropped.is_empty() {
        return Ok(ys);
    }
    let ys = Tensor::cat(&[&ys, &select(&dropped)?], 0)?;
    order.extend(dropped);
    // Where each sample of the batch lies now.
    let mut place = vec![0u32; batch];
    order.iter().zip(0u32..).for_each(|(&sample, at)| place[sample as usize] = at);
    Ok(ys.index_select(&Tensor::new(place, xs.device())?, 0)?)
}

/// `xs` times a constant. Candle passes no gradient, not even zeros, through a product with the number 0; through one
/// with a tensor it does.
pub(crate) fn times(xs: &Tensor, factor: Option<f64>) -> candle_core::Result<Tensor> {
    match factor {
        Some(factor) => xs.broadcast_mul(&Tensor::new(&[factor], xs.device())?.to_dtype(xs.dtype())?),
        None => Ok(xs.clone()),
    }
}

/// Dropout (Srivastava et al. 2014): in training each value is 0 with probability `rate`, and divided by
/// `1 - rate` otherwise.
pub(crate) fn dropout(xs: &Tensor, (rate, layer): (f64, &str), pass: &Pass<'_>) -> Result<Tensor> {
    if rate == 0.0 || !pass.is_train() {
        return Ok(xs.clone());
    }
    let batch = xs.dim(0)?;
    let each = xs.elem_count() / batch.max(1);
    let (key, first) = (pass.key.fold_named(layer), (pass.collective.rank() * batch) as u64);
    let kept = (1.0 / (1.0 - rate)) as f32;
    // A 32-bit draw is below this for the part of all values that is dropped.
    let bound = (rate * 2f64.powi(32)) as u64;
    let mut mask = Vec::with_capacity(xs.elem_count());
    for sample in 0..batch as u64 {
        let mut rng = key.fold_in(first + sample).rng();
        mask.extend((0..each).map(|_| if u64::from(rng.random::<u32>()) < bound { 0.0 } else { kept }));
    }
    let mask = Tensor::from_vec(mask, xs.shape(), &Device::Cpu)?;
    Ok((xs * mask.to_dtype(DType::F32)?.to_dtype(xs.dtype())?.to_device(xs.device())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::{Key, replicas};

    fn ramp(n: usize) -> Tensor {
        Tensor::arange(1f64, n as f64 + 1.0, &Device::Cpu).unwrap().reshape((n, 1)).unwrap()
    }

    /// `x + scale x`: a branch of 1 is kept, one of 0 dropped.
    fn double(xs: &Tensor, scale: Option<f64>) -> Result<Tensor> {
        Ok((xs * (1.0 + scale.unwrap_or(1.0)))?)
    }

    fn factors(ys: &Tensor, xs: &Tensor) -> Vec<f64> {
        (ys / xs).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn whole_samples_are_dropped_and_the_rest_is_scaled() {
        let xs = ramp(400);
        let pass = Pass::train(Key::new(3));
        let f = factors(&path(&xs, (0.25, "a"), &pass, double).unwrap(), &xs);
        let kept = f.iter().filter(|f| (**f - (1.0 + 1.0 / 0.75)).abs() < 1e-12).count();
        let dropped = f.iter().filter(|f| **f == 1.0).count();
        assert_eq!(kept + dropped, 400);
        assert!((70..130).contains(&dropped), "{dropped} of 400 at a rate of 1/4");
        let other = factors(&path(&xs, (0.25, "b"), &pass, double).unwrap(), &xs);
        assert_ne!(f, other, "layers draw for themselves");
        assert_eq!(f, factors(&path(&xs, (0.25, "a"), &pass, double).unwrap(), &xs));
        let plain = factors(&path(&xs, (0.25, "a"), &Pass::eval(), double).unwrap(), &xs);
        assert!(plain.iter().all(|f| *f == 2.0));
    }

    #[test]
    fn a_batch_that_drops_everything_keeps_the_graph() {
        let xs = candle_core::Var::from_tensor(&ramp(2)).unwrap();
        let weight = candle_core::Var::ones(1, DType::F64, &Device::Cpu).unwrap();
        let branch = |xs: &Tensor, scale: Option<f64>| -> Result<Tensor> {
            Ok((xs + times(&xs.broadcast_mul(&weight)?, scale)?)?)
        };
        for seed in 0..20 {
            let ys = path(&xs, (0.999, "a"), &Pass::train(Key::new(seed)), branch).unwrap();
            assert_eq!(ys.to_vec2::<f64>().unwrap(), [[1.0], [2.0]]);
            let grads = ys.sum_all().unwrap().backward().unwrap();
            assert_eq!(grads.get(&weight).unwrap().to_vec1::<f64>().unwrap(), [0.0]);
            assert_eq!(grads.get(&xs).unwrap().to_vec2::<f64>().unwrap(), [[1.0], [1.0]]);
        }
    }

    #[test]
    fn two_processes_drop_what_one_does() {
        let xs = ramp(8);
        let whole = path(&xs, (0.5, "a"), &Pass::train(Key::new(1)), double).unwrap();
        let masked = dropout(&xs, (0.5, "a"), &Pass::train(Key::new(1))).unwrap();
        for rank in replicas(2) {
            let at = infomax_core::Collective::rank(&rank) * 4;
            let pass = Pass { collective: &rank, ..Pass::train(Key::new(1)) };
            let part = xs.narrow(0, at, 4).unwrap();
            let rows = |t: &Tensor| t.narrow(0, at, 4).unwrap().to_vec2::<f64>().unwrap();
            let ys = path(&part, (0.5, "a"), &pass, double).unwrap();
            assert_eq!(ys.to_vec2::<f64>().unwrap(), rows(&whole));
            let ys = dropout(&part, (0.5, "a"), &pass).unwrap();
            assert_eq!(ys.to_vec2::<f64>().unwrap(), rows(&masked));
        }
    }

    #[test]
    fn dropout_keeps_the_mean() {
        let xs = Tensor::ones((10, 1000), DType::F32, &Device::Cpu).unwrap();
        let ys = dropout(&xs, (0.2, "a"), &Pass::train(Key::new(0))).unwrap();
        let values = ys.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|v| *v == 0.0 || *v == 1.25));
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!((1800..2200).contains(&zeros), "{zeros} of 10000 at a rate of 1/5");
        let same = dropout(&xs, (0.2, "a"), &Pass::eval()).unwrap();
        assert!(same.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| *v == 1.0));
    }

    #[test]
    fn rates_rise_along_a_line() {
        assert_eq!(rates(0.3, 4), [0.0, 0.3 / 3.0, 0.6 / 3.0, 0.3]);
        assert_eq!(rates(0.3, 1), [0.3]);
        assert!(check("drop_path", 1.0).is_err() && check("drop_path", f64::NAN).is_err());
    }
}
