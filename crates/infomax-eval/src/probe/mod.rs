//! What a simple classifier reads from frozen features.

mod knn;
mod lbfgs;
mod linear;

pub use knn::{KnnConfig, KnnReport, knn};
pub use linear::{LinearProbeConfig, ProbeReport, linear_probe};
