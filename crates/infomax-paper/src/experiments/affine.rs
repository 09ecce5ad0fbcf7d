//! Theorem 1: noise at the input becomes `N(f(x), A S A^T)` at the output, with the Jacobian `A`.

use super::Experiment;
use crate::ctx::Ctx;
use crate::encoders::{FAMILIES, VIT, model};
use crate::features::{in_batches, plain};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, stats};
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::Key;
use infomax_kernels::linalg;
use infomax_models::EncoderConfig;
use std::f64::consts::{E, PI};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "affine",
    claim: "For small noise the covariance of the outputs given an image is A S A^T with the Jacobian A (Theorem 1), and the \
            error vanishes with the noise.",
    needs: "encoders of vicreg, and vicreg on a vision transformer",
    statistic: "|Cov f(x + e) - Cov A e|_F / |Cov A e|_F over the same draws at the smallest noise, and its slope against the \
                noise on logarithmic axes",
    revision: 1,
    small_minutes: 3.0,
    full: "1 hour after training",
    run,
};

/// The error that the theorem may have at the smallest noise.
const SMALL_ERROR: f64 = 0.1;

/// A draw where the gradient of a combination of the outputs is farther than this from that at the image, in parts of its
/// norm, has left the linear region: within it the gradient is constant, and rounding in f32 moves it by some 1e-6.
const LEFT: f64 = 1e-4;

/// The theorem at one noise, means over images.
#[derive(Clone, Debug)]
struct Level {
    noise: f64,
    /// Against the covariance of `A e` over the same draws: free of sampling error in the limit.
    error: f64,
    /// Against `s^2 A A^T`, with the error of sampling in it.
    sampled: f64,
    /// What `sampled` would be by chance for normal outputs.
    chance: f64,
    /// The largest angle between the three leading directions, in degrees.
    angle: f64,
    /// The predicted conditional entropy and that of the sampled covariance, on the directions that count.
    entropy: (f64, f64),
    /// The share of draws outside of the linear region of the image, by [`LEFT`].
    left: f64,
}

/// `A` `(D, P)` of `f` at `x` `(1, ...)`, all outputs in one pass.
fn jacobian(f: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<Tensor> {
    let outputs = f(x)?.dim(1)?;
    let encoder = |x: &Tensor| f(x).map_err(|e| candle_core::Error::msg(e.to_string()).into());
    Ok(infomax_eval::propagation::jacobian(encoder, &x.squeeze(0)?, outputs)?)
}

/// The gradients `(N, P)` of one random combination of the outputs, the same at every input.
///
/// Of a piecewise affine map it is constant on each linear region and, for almost all combinations, another one in
/// every region whose activation pattern gives another Jacobian: one backward pass counts crossings without a look at the
/// activations.
fn gradients(f: &dyn Fn(&Tensor) -> Result<Tensor>, xs: &Tensor, key: Key) -> Result<Tensor> {
    const ROWS: usize = 250;
    let mut all = Vec::new();
    let mut start = 0;
    while start < xs.dim(0)? {
        let count = ROWS.min(xs.dim(0)? - start);
        let batch = Var::from_tensor(&xs.narrow(0, start, count)?.contiguous()?)?;
        let z = f(batch.as_tensor())?;
        let v = key.fold_named("combination").normal(0.0, 1.0, (1, z.dim(1)?), z.dtype(), z.device())?;
        let grads = infomax_kernels::backward(&z.broadcast_mul(&v)?.sum_all()?)?;
        let grad = match grads.get(&batch) {
            Some(grad) => grad.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_from(1)?,
            None => Tensor::zeros((count, batch.elem_count() / count), DType::F64, &Device::Cpu)?,
        };
        all.push(grad);
        start += count;
    }
    Ok(Tensor::cat(&all, 0)?)
}

fn norm(t: &Tensor) -> Result<f64> {
    Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

fn covariance(z: &Tensor) -> Result<Tensor> {
    let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
    Ok((centered.t()?.contiguous()?.matmul(&centered)? / (z.dim(0)? as f64 - 1.0))?)
}

/// The entropy of a normal distribution on the directions whose eigenvalues are above `1e-8` of the largest of `p`.
fn entropies(p: &Tensor, c: &Tensor) -> Result<(f64, f64)> {
    let values = |t: &Tensor| -> Result<Vec<f64>> {
        let mut v = linalg::eigvalsh(t)?.to_vec1::<f64>()?;
        v.reverse();
        Ok(v)
    };
    let (predicted, sampled) = (values(p)?, values(c)?);
    let largest = predicted.first().copied().unwrap_or(0.0);
    let rank = predicted.iter().filter(|v| **v > 1e-8 * largest).count();
    let of = |v: &[f64]| v.iter().take(rank).map(|v| 0.5 * (2.0 * PI * E * v.max(1e-300)).ln()).sum::<f64>();
    Ok((of(&predicted), of(&sampled)))
}

/// The largest principal angle between the leading directions of two covariances, in degrees.
fn angle(p: &Tensor, c: &Tensor) -> Result<f64> {
    let leading = |t: &Tensor| -> Result<Tensor> {
        let d = t.dim(0)?;
        let k = d.min(3);
        Ok(linalg::eigh(t)?.1.narrow(1, d - k, k)?.contiguous()?)
    };
    let cosines = linalg::singular_values(&leading(p)?.t()?.contiguous()?.matmul(&leading(c)?)?)?;
    Ok(cosines.iter().copied().fold(1.0, f64::min).clamp(-1.0, 1.0).acos().to_degrees())
}

fn measure(
    f: &dyn Fn(&Tensor) -> Result<Tensor>,
    images: &Tensor,
    levels: &[f64],
    draws: usize,
    key: Key,
) -> Result<Vec<Level>> {
    let mut all: Vec<Vec<Level>> = Vec::new();
    for i in 0..images.dim(0)? {
        let x = images.narrow(0, i, 1)?;
        let a = jacobian(f, &x)?;
        let unit = (a.matmul(&a.t()?.contiguous()?))?;
        let here = gradients(f, &x, key)?;
        let size_here = norm(&here)?;
        let mut dims = x.dims().to_vec();
        dims[0] = draws;
        let unit_noise = key.fold_in(i as u64).normal(0.0, 1.0, dims, x.dtype(), &Device::Cpu)?;
        let mut one = Vec::new();
        for noise in levels {
            let e = (&unit_noise * *noise)?;
            let z = in_batches(&x.broadcast_add(&e)?, f)?.to_device(&Device::Cpu)?;
            let linear = e.flatten_from(1)?.to_dtype(DType::F64)?.matmul(&a.t()?.contiguous()?)?;
            let off = gradients(f, &x.broadcast_add(&e)?, key)?.broadcast_sub(&here)?;
            let off = off.sqr()?.sum(1)?.sqrt()?.to_vec1::<f64>()?;
            let left = off.iter().filter(|off| **off > LEFT * size_here).count();
            let predicted = (&unit * (noise * noise))?;
            let (c, same) = (covariance(&z)?, covariance(&linear)?);
            let (trace, size) = (
                predicted.broadcast_mul(&Tensor::eye(predicted.dim(0)?, DType::F64, &Device::Cpu)?)?,
                norm(&predicted)?,
            );
            let trace = trace.sum_all()?.to_scalar::<f64>()?;
            one.push(Level {
                noise: *noise,
                error: norm(&(&c - &same)?)? / norm(&same)?,
                sampled: norm(&(&c - &predicted)?)? / size,
                chance: ((trace * trace + size * size) / (draws as f64 - 1.0)).sqrt() / size,
                angle: angle(&predicted, &c)?,
                entropy: entropies(&predicted, &c)?,
                left: left as f64 / draws as f64,
            });
        }
        all.push(one);
    }
    let mean = |at: usize, get: &dyn Fn(&Level) -> f64| {
        stats::mean(&all.iter().map(|l| get(&l[at])).collect::<Vec<_>>())
    };
    let level = |(at, noise): (usize, &f64)| Level {
        noise: *noise,
        error: mean(at, &|l| l.error),
        sampled: mean(at, &|l| l.sampled),
        chance: mean(at, &|l| l.chance),
        angle: mean(at, &|l| l.angle),
        entropy: (mean(at, &|l| l.entropy.0), mean(at, &|l| l.entropy.1)),
        left: mean(at, &|l| l.left),
    };
    Ok(levels.iter().enumerate().map(level).collect())
}

/// The levels of one network.
struct Curve {
    name: String,
    seed: u64,
    levels: Vec<Level>,
    /// Whether the theorem is about it, and it is trained.
    judged: bool,
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let (count, draws) = ctx.pick((1, 60), (4, 1_000), (16, 4_000));
    let levels: Vec<f64> = ctx.pick(
        vec![1e-3, 1e-1],
        vec![1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
        vec![5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0],
    );
    let images = plain(ctx, count, false)?;
    let trained = ctx.encoders(&[FAMILIES[0][0], VIT])?;
    let mut curves = Vec::new();
    for t in &trained {
        ctx.check()?;
        ctx.note(&format!("  affine: {} seed {}", t.method.name, t.seed));
        let key = Key::new(t.seed).fold_named("affine");
        let f = |xs: &Tensor| t.model.differentiable(xs);
        let found = measure(&f, &images, &levels, draws, key)?;
        curves.push(Curve {
            name: t.method.name.into(),
            seed: t.seed,
            levels: found,
            judged: t.method != VIT,
        });
        // The same network with fewer stages, at its random start: depth.
        let EncoderConfig::ResNet(resnet) = &t.config.model.encoder else { continue };
        let all = resnet.blocks.len();
        for depth in 1..=all {
            ctx.check()?;
            let mut config = t.config.clone();
            let mut fewer = resnet.clone();
            fewer.blocks.truncate(depth);
            config.model.encoder = EncoderConfig::ResNet(fewer);
            let random = model(&config, None)?;
            let f = |xs: &Tensor| random.differentiable(xs);
            let name = format!("random, {depth} stages");
            let found = measure(&f, &images, &levels, draws, key)?;
            curves.push(Curve { name, seed: t.seed, levels: found, judged: false });
        }
    }
    let mut numbers = Table::new(
        "errors",
        "the theorem against Monte Carlo",
        &[
            "network",
            "seed",
            "noise [sd of normalized pixels]",
            "error over the same draws",
            "error against A S A^T",
            "by chance",
            "angle of the leading directions [degrees]",
            "predicted entropy [nats]",
            "sampled entropy [nats]",
            "draws outside of the linear region [share]",
        ],
    );
    for c in &curves {
        for l in &c.levels {
            numbers.row(vec![
                c.name.as_str().into(),
                (c.seed as usize).into(),
                l.noise.into(),
                l.error.into(),
                l.sampled.into(),
                l.chance.into(),
                l.angle.into(),
                l.entropy.0.into(),
                l.entropy.1.into(),
                l.left.into(),
            ]);
        }
    }
    let x = "noise [sd of normalized pixels]";
    let mut error = Plot::new("error", "Error of A S A^T", x, "relative Frobenius error, same draws")
        .logarithmic(true, true)
        .mark(SMALL_ERROR, "threshold at the smallest noise")
        .caption("Mean over images and seeds. The covariances of f(x + e) and of A e over the same draws e.");
    let mut left = Plot::new("left", "Draws that leave the linear region", x, "share of draws")
        .logarithmic(true, false)
        .caption("A draw within the linear region of the image has its gradient, up to rounding.");
    let mut entropy = Plot::new("entropy", "Conditional entropy", x, "predicted minus sampled [nats]")
        .logarithmic(true, false)
        .mark(0.0, "equal")
        .caption(
            "The entropy of the normal distributions of both covariances, on the directions that count.",
        );
    let mut names: Vec<&str> = curves.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of: Vec<&Curve> = curves.iter().filter(|c| c.name == name).collect();
        let mean = |get: fn(&Level) -> f64| -> Vec<(f64, f64)> {
            let at = |i: usize| {
                stats::mean(&of.iter().filter_map(|c| c.levels.get(i).map(get)).collect::<Vec<_>>())
            };
            levels.iter().enumerate().map(|(i, noise)| (*noise, at(i))).collect()
        };
        error.add(name, Style::Line, mean(|l| l.error));
        left.add(name, Style::Line, mean(|l| l.left));
        entropy.add(name, Style::Line, mean(|l| l.entropy.0 - l.entropy.1));
    }
    Ok(Finding {
        judgments: judge(&curves),
        tables: vec![numbers],
        plots: vec![error, left, entropy],
        notes: vec![
            format!(
                "{count} images, {draws} draws at each noise, the Jacobian by the encoder's own backward pass in f32. The \
                 sampled entropy of {draws} draws is too low by the bias of sampling, at every noise alike."
            ),
            "Whether a draw has left the linear region is read off the gradient of a random combination of the outputs, which \
             is constant on a region and another one in each other: an activation pattern that changes it by less than \
             1e-4 of its norm is not counted. The vision transformer is not piecewise affine, leaves at once, and is not judged."
                .into(),
        ],
        ..Finding::default()
    })
}

fn judge(curves: &[Curve]) -> Vec<Judgment> {
    let judged = || curves.iter().filter(|c| c.judged);
    let smallest: Vec<f64> = judged().filter_map(|c| c.levels.first()).map(|l| l.error).collect();
    let slopes: Vec<f64> = judged()
        .filter_map(|c| {
            // Where noise is small: the lower half of the levels, at least two.
            let some = &c.levels[..c.levels.len().div_ceil(2).max(2).min(c.levels.len())];
            let logs =
                |get: fn(&Level) -> f64| some.iter().map(|l| get(l).max(1e-12).ln()).collect::<Vec<_>>();
            stats::slope(&logs(|l| l.noise), &logs(|l| l.error))
        })
        .collect();
    let far = judged().filter_map(|c| c.levels.last()).map(|l| l.error).fold(0.0, f64::max);
    let first = verdict::mean_beyond(
        "At the smallest noise the covariance is A S A^T.",
        "relative Frobenius error over the same draws, mean over images, one value an encoder",
        &smallest,
        Side::Below,
        SMALL_ERROR,
    );
    let claim = "The error falls with the noise.";
    let statistic = "slope of ln error against ln noise, the lower half of the levels, one value an encoder";
    let second = if far < 1e-4 && judged().count() > 0 {
        // An affine map has no error to fall.
        Judgment {
            verdict: crate::Verdict::Supported,
            effect: Some(far),
            n: smallest.len(),
            ..verdict::nothing(
                claim,
                "largest error at any noise",
                "the map is affine to rounding at every noise",
            )
        }
    } else {
        verdict::mean_beyond(claim, statistic, &slopes, Side::Above, 0.0)
    };
    vec![first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn verdicts(f: fn(&Tensor) -> Result<Tensor>) -> Vec<Verdict> {
        let curve = |seed: u64| {
            let key = Key::new(seed);
            let x = key.normal(0.0, 1.0, (1, 6), DType::F32, &Device::Cpu).unwrap();
            let levels = measure(&f, &x, &[1e-2, 1e-1, 1.0, 10.0], 300, key).unwrap();
            Curve { name: "m".into(), seed, levels, judged: true }
        };
        judge(&(0..3).map(curve).collect::<Vec<_>>()).iter().map(|j| j.verdict).collect()
    }

    fn mix(x: &Tensor) -> Result<Tensor> {
        let w = Key::new(7).normal(0.0, 1.0, (6, 4), x.dtype(), x.device())?;
        Ok(x.matmul(&w)?)
    }

    #[test]
    fn a_linear_map_has_no_error_and_a_smooth_one_less_and_less() {
        assert_eq!(verdicts(mix), [Verdict::Supported; 2]);
        assert_eq!(verdicts(|x| Ok(mix(x)?.tanh()?)), [Verdict::Supported; 2]);
    }

    #[test]
    fn a_map_that_wiggles_faster_than_the_noise_is_not_affine() {
        let found = verdicts(|x| Ok(((mix(x)? * 1e3)?.sin()? + mix(x)?)?));
        assert_eq!(found[0], Verdict::NotSupported);
    }

    #[test]
    fn draws_outside_of_the_linear_region_are_those_of_another_activation_pattern() {
        let weights = |seed: u64, dims: (usize, usize)| {
            Key::new(seed).normal(0.0, 1.0, dims, DType::F32, &Device::Cpu).unwrap()
        };
        let (w1, w2) = (weights(1, (6, 8)), weights(2, (8, 4)));
        let f = |x: &Tensor| -> Result<Tensor> { Ok(x.matmul(&w1)?.relu()?.matmul(&w2)?) };
        let x = Key::new(3).normal(0.0, 1.0, (1, 6), DType::F32, &Device::Cpu).unwrap();
        let pattern = |xs: &Tensor| -> Vec<Vec<bool>> {
            let rows = xs.matmul(&w1).unwrap().to_vec2::<f32>().unwrap();
            rows.into_iter().map(|row| row.into_iter().map(|v| v > 0.0).collect()).collect()
        };
        let (levels, draws, key) = ([1e-4, 1e-1, 1.0, 10.0], 300, Key::new(4));
        let found = measure(&f, &x, &levels, draws, key).unwrap();
        for (level, noise) in found.iter().zip(levels) {
            let e = key.fold_in(0).normal(0.0, noise, (draws, 6), DType::F32, &Device::Cpu).unwrap();
            let own = pattern(&x).remove(0);
            let crossed = pattern(&x.broadcast_add(&e).unwrap()).iter().filter(|p| **p != own).count();
            assert_eq!(level.left, crossed as f64 / draws as f64, "noise {noise}");
        }
        assert!(found[0].left == 0.0 && found[3].left > 0.5);
        let linear = measure(&mix, &x, &levels, draws, key).unwrap();
        assert!(linear.iter().all(|level| level.left == 0.0));
        let smooth = measure(&|x| Ok(mix(x)?.tanh()?), &x, &[1e-1], draws, key).unwrap();
        assert!(smooth[0].left > 0.95, "nothing is linear");
    }

    #[test]
    fn the_jacobian_of_a_linear_map_is_its_matrix() {
        let x = Key::new(1).normal(0.0, 1.0, (1, 6), DType::F64, &Device::Cpu).unwrap();
        let a = jacobian(&mix, &x).unwrap();
        let w = Key::new(7).normal(0.0, 1.0, (6, 4), DType::F64, &Device::Cpu).unwrap();
        assert!(norm(&(a - w.t().unwrap()).unwrap()).unwrap() < 1e-12);
    }
}
