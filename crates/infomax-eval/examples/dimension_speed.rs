//! How long the intrinsic dimension of a cloud takes: neighbors, TwoNN and the maximum-likelihood estimate.
//!
//! `cargo run --release -p infomax-eval --example dimension_speed -- [ROWS] [COLUMNS]`

#![allow(clippy::print_stdout)]

use candle_core::{DType, Device};
use infomax_core::Key;
use infomax_eval::Resampling;
use infomax_eval::geometry::{DimensionConfig, Metric, intrinsic_dimension, nearest_neighbors};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let mut next = |default| words.next().transpose().map(|number| number.unwrap_or(default));
    let (rows, columns) = (next(10_000)?, next(700)?);
    let z = Key::new(1).normal(0.0, 1.0, (rows, columns), DType::F32, &Device::Cpu)?;
    let cfg = DimensionConfig::default();
    for _ in 0..5 {
        let start = Instant::now();
        let near = nearest_neighbors(&z, 10, Metric::Euclidean)?;
        let neighbors = start.elapsed().as_secs_f64();
        let found = intrinsic_dimension(&near, &cfg, &Resampling::none())?;
        let all = start.elapsed().as_secs_f64();
        let likelihood = found.levina_bickel.map_or(f64::NAN, |estimate| estimate.value);
        println!(
            "{rows} x {columns}: neighbors {neighbors:.2} s, all {all:.2} s; TwoNN {:.1}, Levina and Bickel {likelihood:.1}",
            found.two_nn_likelihood.value
        );
    }
    Ok(())
}
