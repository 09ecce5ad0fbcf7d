//! The error of this crate.

/// What can go wrong in an optimizer, a schedule or an average.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gradient of a parameter holds a NaN or an infinity. No parameter was changed.
    #[error(
        "the gradient of `{name}` is not finite (norm {norm}); lower the learning rate, clip the gradient, \
         or look for damaged input"
    )]
    NonFiniteGradient {
        /// The parameter.
        name: String,
        /// The norm that was found: NaN or infinity.
        norm: f64,
    },
    /// None of the parameters has a gradient.
    #[error(
        "none of the {parameters} trainable parameters has a gradient; is the loss connected to the model?"
    )]
    NoGradients {
        /// How many trainable parameters there are.
        parameters: usize,
    },
    /// A gradient or a saved state has another shape than its parameter.
    #[error("{what} of `{name}` has shape {got:?}, the parameter {expected:?}; {hint}")]
    Shape {
        /// What has the wrong shape.
        what: &'static str,
        /// The parameter.
        name: String,
        /// The shape that was found.
        got: Vec<usize>,
        /// The shape of the parameter.
        expected: Vec<usize>,
        /// What to do.
        hint: &'static str,
    },
    /// A saved state that this optimizer cannot continue from.
    #[error(
        "this state is not one of {optimizer}: {problem}; use the optimizer that the run was started with"
    )]
    State {
        /// The optimizer that was asked to load it.
        optimizer: &'static str,
        /// What does not fit.
        problem: String,
    },
    /// A setting is out of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// A pattern of names matches no trainable parameter.
    #[error("{key} = \"{pattern}\" matches no trainable parameter; there are {names}")]
    NoMatch {
        /// The setting that holds the pattern.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// Names that there are, as text.
        names: String,
    },
    /// An error of an operation.
    #[error(transparent)]
    Kernel(#[from] infomax_kernels::Error),
    /// An error of the processes that share the batch.
    #[error(transparent)]
    Core(#[from] infomax_core::Error),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<Error> for infomax_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            other => Self::other("optimizer", other),
        }
    }
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Refuses a setting that is not finite or is outside of `range`.
pub(crate) fn check(
    key: &str,
    value: f64,
    range: impl std::ops::RangeBounds<f64>,
    reason: &'static str,
) -> Result<()> {
    if value.is_finite() && range.contains(&value) {
        return Ok(());
    }
    Err(Error::Config { key: key.into(), value: value.to_string(), reason })
}
