//! The error of the shared traits.

/// What can go wrong behind the traits of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: expected {expected}, got shape {got:?}")]
    Shape {
        /// The operation that refused the tensor.
        op: String,
        /// The shape that it needs, in words.
        expected: String,
        /// The shape that it was given.
        got: Vec<usize>,
    },
    /// Two things that must agree do not.
    #[error("{what}: {left} and {right} differ; {hint}")]
    Mismatch {
        /// What must agree.
        what: String,
        /// The first value.
        left: String,
        /// The second value.
        right: String,
        /// What to do about it.
        hint: String,
    },
    /// A configured value is outside of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The name of the setting.
        key: String,
        /// Its value, as text.
        value: String,
        /// Why it is refused, and what is accepted.
        reason: String,
    },
    /// A value is NaN or infinite.
    #[error(
        "{what} is not finite ({value}) at step {step}; lower the learning rate or look for damaged input"
    )]
    NonFinite {
        /// The name of the term, parameter or quantity.
        what: String,
        /// Its value.
        value: f64,
        /// The step at which it was seen.
        step: u64,
    },
    /// The processes of a run do not act alike, or one of them is gone.
    #[error("rank {rank} {problem}; all ranks need the same program, configuration and data")]
    Collective {
        /// The rank that saw it.
        rank: usize,
        /// What it saw, as a continuation of the rank.
        problem: String,
    },
    /// Tensors do not fit the named parameters of a model.
    #[error("these weights belong to another model: {0}")]
    Weights(String),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// An error of an implementation of one of the traits, with what it was doing.
    #[error("{what}: {source}")]
    Other {
        /// What was being done.
        what: String,
        /// The error of the implementing crate.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps the error of an implementing crate.
    pub fn other(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other { what: what.into(), source: Box::new(source) }
    }

    /// Builds a [`Error::Config`].
    pub fn config(key: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// The result of the shared traits.
pub type Result<T, E = Error> = std::result::Result<T, E>;
