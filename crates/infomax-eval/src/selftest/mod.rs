//! Do the estimators of mutual information find it, where it is known?
//!
//! [`tasks`] are pairs of variables whose information has a closed form, those of the benchmark `bmi` (Czyz et al.,
//! arXiv:2306.11078) and its mixtures (arXiv:2310.10240), several families up to 10 nats, and pairs without any; [`measure`] draws them again and again
//! and counts the error of each estimator, and how often its interval holds the truth. [`Task::new`] makes a task of
//! anything that can be drawn.

mod draws;
mod measure;
mod mixtures;
mod tasks;

pub use measure::{Cell, MeasureConfig, measure};
pub use tasks::{Task, tasks};
