//! Times KSG on normal pairs, with its error, and the other estimators beside it.
//!
//! ```sh
//! cargo run --release -p infomax-eval --example information     # RAYON_NUM_THREADS=1 for one thread
//! ```
//!
//! `benches/peers/information.py` does the same with NPEET, scikit-learn and infomeasure, on equal arrays.

#![allow(clippy::print_stdout)] // It is there to print.

use candle_core::{Device, Tensor};
use infomax_eval::information::{
    CorrectedConfig, KsgConfig, Marginals, NormalModel, corrected_mutual_information, mutual_information,
    normal_mutual_information,
};
use infomax_eval::{Resampling, Result};
use std::time::Instant;

/// Rows, and columns on each side.
const CASES: [(usize, usize); 3] = [(4000, 1), (4000, 3), (2000, 8)];

/// Normal quantiles of splitmix64 numbers, row by row.
fn normals(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let draw = |i: u64| {
        let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let p = ((z >> 11) as f64 + 0.5) / 2f64.powi(53);
        -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(2.0 * p)
    };
    (0..(n * d) as u64).map(draw).collect()
}

fn main() -> Result<()> {
    for (n, d) in CASES {
        let (x, e) = (normals(n, d, 1), normals(n, d, 2));
        let y: Vec<f64> = x.iter().zip(&e).map(|(x, e)| 0.6 * x + 0.8 * e).collect();
        let (x, y) = (Tensor::from_vec(x, (n, d), &Device::Cpu)?, Tensor::from_vec(y, (n, d), &Device::Cpu)?);
        let none = Resampling::none();
        let raw = KsgConfig { marginals: Marginals::Raw, ..KsgConfig::default() };
        let truth = -0.5 * d as f64 * (1.0f64 - 0.36).ln();
        let timed = |f: &dyn Fn() -> Result<f64>| -> Result<(f64, f64)> {
            let (mut best, mut value) = (f64::INFINITY, 0.0);
            for _ in 0..5 {
                let start = Instant::now();
                value = f()?;
                best = best.min(1e3 * start.elapsed().as_secs_f64());
            }
            Ok((best, value))
        };
        let (ms, value) = timed(&|| Ok(mutual_information(&x, &y, &raw, &none)?.value))?;
        println!("# ours {n} x {d}+{d}: {ms:.1} ms, {value:.4} of {truth:.4} nats");
        println!("ksg1 n={n} {d}+{d}: {ms:.2} ms");
        let cfg = CorrectedConfig::default();
        let (ms, value) = timed(&|| Ok(corrected_mutual_information(&x, &y, &cfg, &none)?.value))?;
        println!("# corrected {n} x {d}+{d}: {ms:.1} ms, {value:.4} of {truth:.4} nats");
        let copula = || Ok(normal_mutual_information(&x, &y, NormalModel::Copula, &none)?.value);
        let (ms, value) = timed(&copula)?;
        println!("# normal-copula {n} x {d}+{d}: {ms:.1} ms, {value:.4} of {truth:.4} nats");
    }
    Ok(())
}
