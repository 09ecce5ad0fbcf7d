//! The error of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong in an experiment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that cannot be meant.
    #[error("{0}")]
    Config(String),
    /// A name that is no experiment.
    #[error("there is no experiment `{name}`; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names.
        known: String,
    },
    /// Ctrl-C, or a request to end: what was computed is kept.
    #[error("interrupted; what was computed is kept, and `--resume` goes on")]
    Interrupted,
    /// Too little is left of what an experiment needs, since encoders failed.
    #[error("{experiment}: {reason}")]
    Missing {
        /// The experiment.
        experiment: &'static str,
        /// What is missing and why.
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
    /// An error of a run.
    #[error(transparent)]
    Run(Box<infomax_run::Error>),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// Errors of the parts go through that of a run, which names them all.
macro_rules! through_run {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Run(Box::new(error.into()))
            }
        })*
    };
}

through_run!(
    infomax_augment::Error,
    infomax_core::Error,
    infomax_data::Error,
    infomax_eval::Error,
    infomax_losses::Error,
    infomax_models::Error,
    infomax_train::Error,
);

impl From<infomax_run::Error> for Error {
    fn from(error: infomax_run::Error) -> Self {
        Self::Run(Box::new(error))
    }
}

impl From<infomax_kernels::Error> for Error {
    fn from(error: infomax_kernels::Error) -> Self {
        Self::Candle(error.into())
    }
}
