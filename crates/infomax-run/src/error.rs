//! The error of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong between a configuration and its outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that cannot be read or has no meaning: the sentence names the key, where its value came
    /// from, and what to write.
    #[error("{0}")]
    Config(String),
    /// A setting that the part which it belongs to refuses.
    #[error("{section}.{reason}")]
    Setting {
        /// The section of the configuration.
        section: &'static str,
        /// The key within it, its value, and why it is refused.
        reason: String,
    },
    /// A device that was asked for is not there.
    #[error("train.device = \"{asked}\": {reason}")]
    Device {
        /// What was asked for.
        asked: String,
        /// Why it cannot be had, and what to do.
        reason: String,
    },
    /// The memory of a device is full.
    #[error(
        "the memory of {device} is full at batches of {batch}: half of it could fit (--set train.batch={half}), or as \
         many images in parts (train.accumulate), or bf16 maps of a residual network (train.precision); another process \
         on the device takes memory too ({reason})"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// The batch that did not fit.
        batch: usize,
        /// Half of it.
        half: usize,
        /// The error of the device.
        reason: String,
    },
    /// The operating system refused a file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of weights that cannot be read or does not fit.
    #[error("the weights {}: {reason}", path.display())]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A run has no checkpoint.
    #[error("{} has no checkpoint yet; train it with `infomax pretrain --resume`", path.display())]
    NoCheckpoint {
        /// The folder of the run.
        path: PathBuf,
    },
    /// It was asked to end before it had a result.
    #[error("stopped before it was finished")]
    Stopped,
    /// An error of an augmentation.
    #[error(transparent)]
    Augment(Box<infomax_augment::Error>),
    /// An error of a data set.
    #[error(transparent)]
    Data(Box<infomax_data::Error>),
    /// An error of an objective.
    #[error(transparent)]
    Losses(Box<infomax_losses::Error>),
    /// An error of a model.
    #[error(transparent)]
    Model(Box<infomax_models::Error>),
    /// An error of an optimizer or a schedule.
    #[error(transparent)]
    Optim(Box<infomax_optim::Error>),
    /// An error of training, of a run's folder or of a checkpoint.
    #[error(transparent)]
    Train(Box<infomax_train::Error>),
    /// An error of a probe.
    #[error(transparent)]
    Eval(Box<infomax_eval::Error>),
    /// An error of the shared vocabulary.
    #[error(transparent)]
    Core(Box<infomax_core::Error>),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The errors of the parts are boxed: a result of this crate stays small.
macro_rules! from {
    ($($variant:ident($error:ty)),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

from!(
    Augment(infomax_augment::Error),
    Data(infomax_data::Error),
    Losses(infomax_losses::Error),
    Model(infomax_models::Error),
    Optim(infomax_optim::Error),
    Train(infomax_train::Error),
    Eval(infomax_eval::Error),
    Core(infomax_core::Error),
);

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// Puts the section in front of what a library says of its own setting.
pub(crate) fn of<E: std::fmt::Display>(section: &'static str) -> impl Fn(E) -> Error {
    move |reason| Error::Setting { section, reason: reason.to_string() }
}
