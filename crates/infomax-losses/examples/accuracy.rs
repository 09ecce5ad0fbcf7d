//! Estimators beside closed-form truth: bias and standard deviation over many seeds, as a Markdown table.
//!
//! `cargo run --release -p infomax-losses --example accuracy [FILE] [SEEDS]` writes `docs/estimators-accuracy.md`
//! unless named, from 100 seeds unless told. Another estimator is one line of `ESTIMATORS`.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_losses::entropy::{
    Divergence, Gaussian, Hadamard, Kde, KozachenkoLeonenko, LogDet, MSpacing, PairDist, Squash,
};
use infomax_losses::special::{digamma, ln_gamma};
use infomax_losses::{Entropy, Result};
use std::f64::consts::{E, PI};
use std::fmt::Write as _;

/// What a table entry can be: an entropy in nats of samples of a density.
type Estimator = (&'static str, fn(&Tensor) -> Result<f64>);

/// Silverman's rule for the variance of a Gaussian kernel, from the mean variance of the columns.
fn silverman(z: &Tensor) -> Result<f64> {
    let (n, d) = z.dims2()?;
    let variance = z.broadcast_sub(&z.mean_keepdim(0)?)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
    Ok(variance * (4.0 / (n as f64 * (d as f64 + 2.0))).powf(2.0 / (d as f64 + 4.0)))
}

fn nats(entropy: &dyn Entropy, z: &Tensor) -> Result<f64> {
    Ok(entropy.estimate(z)?.nats)
}

const ESTIMATORS: &[Estimator] = &[
    ("gaussian", |z| nats(&Gaussian { eps: 0.0, ..Default::default() }, z)),
    ("gaussian corrected", |z| nats(&Gaussian { eps: 0.0, corrected: true, ..Default::default() }, z)),
    ("hadamard", |z| nats(&Hadamard { eps: 0.0, ..Default::default() }, z)),
    ("kde leave-one-out", |z| {
        nats(&Kde { variance: silverman(z)?, leave_one_out: true, ..Default::default() }, z)
    }),
    ("kde resubstitution", |z| nats(&Kde { variance: silverman(z)?, ..Default::default() }, z)),
    ("pairdist kl", |z| nats(&PairDist { variance: silverman(z)?, ..Default::default() }, z)),
    ("pairdist bhattacharyya", |z| {
        let divergence = Divergence::Bhattacharyya;
        nats(&PairDist { variance: silverman(z)?, divergence, ..Default::default() }, z)
    }),
    ("pairdist elk", |z| {
        let divergence = Divergence::Elk;
        nats(&PairDist { variance: silverman(z)?, divergence, ..Default::default() }, z)
    }),
    ("logdet beta=1e4, constants added", |z| {
        // `1/2 ln det (I + beta S)` exceeds the Gaussian entropy by `d/2 ln (beta / (2 pi e))` and a little.
        let beta: f64 = 1e4;
        let rate = nats(&LogDet { beta, ..Default::default() }, z)?;
        Ok(rate - 0.5 * z.dim(1)? as f64 * (beta / (2.0 * PI * E)).ln())
    }),
    ("kozachenko-leonenko k=1", |z| nats(&KozachenkoLeonenko { k: 1, ..Default::default() }, z)),
    ("kozachenko-leonenko k=3", |z| nats(&KozachenkoLeonenko::default(), z)),
    ("m-spacing (sum of marginals)", |z| {
        let mean = nats(&MSpacing { squash: Squash::None, ..Default::default() }, z)?;
        Ok(mean * z.dim(1)? as f64)
    }),
];

/// A density with its entropy in nats: the name, `n`, `d`, the truth, and samples `(n, d)`.
struct Density {
    name: &'static str,
    n: usize,
    d: usize,
    truth: f64,
    samples: fn(Key, usize, usize) -> Result<Tensor>,
}

fn normal(key: Key, name: &str, n: usize, d: usize) -> Result<Tensor> {
    Ok(key.fold_named(name).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu)?)
}

/// Degrees of freedom of the Student-t.
const NU: usize = 5;
/// Distance of the two components of the mixture, in standard deviations.
const APART: f64 = 12.0;

fn densities() -> Vec<Density> {
    let normal_entropy = |d: usize| 0.5 * d as f64 * (2.0 * PI * E).ln();
    // A density in d dimensions of one scale shared by all coordinates: the multivariate Student-t.
    let student = |d: usize| {
        let (nu, d) = (NU as f64, d as f64);
        let half = 0.5 * (nu + d);
        ln_gamma(0.5 * nu) - ln_gamma(half)
            + 0.5 * d * (nu * PI).ln()
            + half * (digamma(half) - digamma(0.5 * nu))
    };
    let mut all = Vec::new();
    for (n, d) in [(500, 2), (500, 8), (1000, 8)] {
        all.push(Density {
            name: "Gaussian, correlation 0.5",
            n,
            d,
            // Equal correlations r: ln det = (d - 1) ln(1 - r) + ln(1 + (d - 1) r).
            truth: normal_entropy(d)
                + 0.5 * ((d as f64 - 1.0) * 0.5f64.ln() + (1.0 + (d as f64 - 1.0) * 0.5).ln()),
            samples: |key, n, d| {
                let (own, shared) = (normal(key, "own", n, d)?, normal(key, "shared", n, 1)?);
                Ok((own.broadcast_add(&shared)? * 0.5f64.sqrt())?)
            },
        });
        all.push(Density {
            name: "two far Gaussians",
            n,
            d,
            truth: normal_entropy(d) + 2f64.ln(),
            samples: |key, n, d| {
                let side = key.fold_named("side").uniform(0.0, 1.0, (n, 1), DType::F64, &Device::Cpu)?;
                let shift = (side.ge(0.5)?.to_dtype(DType::F64)? * (APART / (d as f64).sqrt()))?;
                Ok(normal(key, "own", n, d)?.broadcast_add(&shift)?)
            },
        });
        all.push(Density {
            name: "Student-t, 5 degrees of freedom",
            n,
            d,
            truth: student(d),
            samples: |key, n, d| {
                let squares = normal(key, "scale", n, NU)?.sqr()?.sum_keepdim(1)?;
                Ok(normal(key, "own", n, d)?.broadcast_div(&(squares / NU as f64)?.sqrt()?)?)
            },
        });
        all.push(Density {
            name: "uniform on [0, 2)^d",
            n,
            d,
            truth: d as f64 * 2f64.ln(),
            samples: |key, n, d| Ok(key.uniform(0.0, 2.0, (n, d), DType::F64, &Device::Cpu)?),
        });
    }
    all
}

#[allow(clippy::print_stdout)] // An example prints.
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/estimators-accuracy.md").to_owned();
    let file = std::env::args().nth(1).unwrap_or(default);
    let seeds: u64 = std::env::args().nth(2).map_or(Ok(100), |s| s.parse())?;
    let mut out = format!(
        "# Estimators beside the truth\n\n`cargo run --release -p infomax-losses --example accuracy`\n\n\
         Entropies in nats: the mean of the estimate minus the closed-form truth, and its standard deviation, over\n\
         {seeds} seeds, in f64. Kernels have the variance of Silverman's rule, for the mean variance of the columns.\n\
         `gaussian`, `hadamard`, `logdet`, `m-spacing` and `pairdist kl` bound from above, `pairdist bhattacharyya`\n\
         and `pairdist elk` from below (the mixture of kernels, not the density that was sampled); a bias of theirs\n\
         on other densities is what they are for, not a defect. Estimators that are surrogates only (uniformity,\n\
         Renyi entropies of kernel matrices, coding rate, KoLeo, ...) have no truth in nats to stand beside.\n"
    );
    for density in densities() {
        let Density { name, n, d, truth, samples } = density;
        write!(out, "\n## {name}, n = {n}, d = {d}: {truth:.4}\n\n")?;
        out += "| estimator | bias | standard deviation |\n|---|---:|---:|\n";
        let mut errors = vec![Vec::new(); ESTIMATORS.len()];
        for seed in 0..seeds {
            let z = samples(Key::new(seed), n, d)?;
            for ((_, estimate), errors) in ESTIMATORS.iter().zip(&mut errors) {
                errors.push(estimate(&z)? - truth);
            }
        }
        for ((estimator, _), errors) in ESTIMATORS.iter().zip(&errors) {
            let count = errors.len() as f64;
            let bias = errors.iter().sum::<f64>() / count;
            let spread = errors.iter().map(|e| (e - bias) * (e - bias)).sum::<f64>() / (count - 1.0).max(1.0);
            writeln!(out, "| {estimator} | {bias:+.4} | {:.4} |", spread.sqrt())?;
        }
        println!("{name} n={n} d={d}: done");
    }
    std::fs::write(&file, out)?;
    println!("wrote {file}");
    Ok(())
}
