//! The error of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong in a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried: `write`, `read`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A new run was asked for in a folder that holds one.
    #[error("{} already holds a run; resume it, or choose another folder", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder is not that of a run.
    #[error("{} is not a run: {problem}", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A run has logged nothing.
    #[error("{} has no metrics yet: nothing is written", run.display())]
    NoMetrics {
        /// The run.
        run: PathBuf,
    },
    /// Another process works in the folder.
    #[error("{} is in use by another process; wait for it, or stop it first", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint in the place of a capsule.
    #[error("{} is a checkpoint and no capsule: nothing failed there; capsules are in RUN/capsules", path.display())]
    NotACapsule {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint is damaged: truncated, changed, or a file of it is missing.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// None of the checkpoints of a run can be loaded.
    #[error("none of the checkpoints of {} can be loaded; start the run again in another folder. What is wrong, the newest first:\n  {}", path.display(), problems.join("\n  "))]
    NoGoodCheckpoint {
        /// The folder of the run.
        path: PathBuf,
        /// What is wrong with each checkpoint, newest first.
        problems: Vec<String>,
    },
    /// A checkpoint has a format that this version does not know.
    #[error("the checkpoint {} has format version {found}, this build reads version {known}; use the version of infomax that wrote it", path.display())]
    FormatVersion {
        /// The checkpoint.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that can be read.
        known: u64,
    },
    /// A checkpoint does not belong to this configuration.
    #[error("the checkpoint {} does not fit this run: {problem}; resume with the configuration that wrote it", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A part of the loss, a gradient or a parameter is NaN or infinite. The run stopped; nothing of the step
    /// was saved.
    #[error(
        "{what} is not finite ({value}) after {step} finished steps; {}; lower the learning rate, lengthen the warm-up, \
         or set `train.clip_grad_norm`", kept(last_checkpoint.as_deref())
    )]
    NonFinite {
        /// The name of the part, gradient or parameter.
        what: String,
        /// Its value.
        value: f64,
        /// The number of steps that were finished before.
        step: u64,
        /// The newest checkpoint, if there is one.
        last_checkpoint: Option<PathBuf>,
    },
    /// Parameters that the objective does not reach.
    #[error(
        "no gradient reaches {} (of {total} trainable parameters); the model is cut, or the objective does not \
         use these: set `allow_unused_parameters` if that is meant", names.join(", ")
    )]
    Unused {
        /// Names of such parameters, at most eight.
        names: Vec<String>,
        /// The number of all trainable parameters.
        total: usize,
    },
    /// A batch cannot be embedded in parts.
    #[error("accumulate = {parts}: {reason}")]
    Accumulate {
        /// The number of parts.
        parts: u64,
        /// Why not, and what to do.
        reason: String,
    },
    /// Another rank of the run failed, so that this one stopped too.
    #[error("another rank failed after {step} finished steps; its own message says why")]
    OtherRank {
        /// The number of steps that were finished before.
        step: u64,
    },
    /// A setting is out of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// An error of the model, the objective or the data.
    #[error(transparent)]
    Core(#[from] infomax_core::Error),
    /// An error of the optimizer.
    #[error(transparent)]
    Optim(#[from] infomax_optim::Error),
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

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

fn hint(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            " (free some space and resume: the checkpoints already written are intact)"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            " (choose a folder that you may write to)"
        }
        _ => "",
    }
}

fn kept(last: Option<&Path>) -> String {
    match last {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "there is no checkpoint yet".to_owned(),
    }
}
