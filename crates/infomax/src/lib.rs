//! Information-theoretic self-supervised learning in Rust on Candle: all of `infomax` under one name.
//!
//! This crate holds no code. Take it to try things out; take the single crates to build on them.
//!
//! | module | crate | for |
//! |---|---|---|
//! | [`core`] | `infomax-core` | views, terms, objectives, learners, batches, keys |
//! | [`kernels`] | `infomax-kernels` | training-grade operations for Candle, with gradients |
//! | [`losses`] | `infomax-losses` | invariance terms, entropy estimators, named objectives |
//! | [`augment`] | `infomax-augment` | seeded views of images on the host |
//! | [`data`] | `infomax-data` | data sets and the loader |
//! | [`models`] | `infomax-models` | encoders, projectors, learners |
//! | [`optim`] | `infomax-optim` | SGD, AdamW, LARS, schedules, EMA |
//! | [`train`] | `infomax-train` | the loop, checkpoints, guards |
//! | [`eval`] | `infomax-eval` | probes and diagnostics |

pub use infomax_augment as augment;
pub use infomax_core as core;
pub use infomax_core::candle_core;
pub use infomax_data as data;
pub use infomax_eval as eval;
pub use infomax_kernels as kernels;
pub use infomax_losses as losses;
pub use infomax_models as models;
pub use infomax_optim as optim;
pub use infomax_train as train;

/// The items that most programs need.
pub mod prelude {
    pub use infomax_core::{
        Batch, BatchSource, Bound, Context, Embeddings, Encoder, Key, Learner, Mode, Objective, Params,
        Report, Role, Term, Views,
    };
    pub use infomax_losses::ObjectiveConfig;
}
