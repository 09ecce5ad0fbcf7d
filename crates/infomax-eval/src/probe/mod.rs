//! What a simple classifier reads from frozen features. Each report states its protocol.

mod few_shot;
mod interval;
mod knn;
mod knn_grid;
mod lbfgs;
mod linear;
mod ridge;
mod scores;
mod sgd;

pub use few_shot::{FewShotConfig, FewShotReport, few_shot};
pub use interval::{accuracy_interval, repeated_interval, widened_interval};
pub use knn::{KnnConfig, KnnReport, knn};
pub use knn_grid::{KnnGridConfig, KnnGridReport, KnnTrial, Vote, knn_grid};
pub use linear::{LinearProbeConfig, ProbeReport, linear_probe, linear_probe_likelihood};
pub use ridge::{RidgeConfig, RidgeReport, ridge_probe};
pub use scores::Calibration;
pub use sgd::{Decay, SgdProbeConfig, SgdProbeReport, sgd_probe};
