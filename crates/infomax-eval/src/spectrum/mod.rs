//! How many directions embeddings use. Each rank has one name and one formula, everywhere.

mod lidar;
mod ranks;

pub use lidar::{Lidar, LidarConfig, lidar};
pub use ranks::{RankEstimates, Spectrum, rank_estimates, spectrum, spectrum_per_class};
