//! The error of this crate.

/// What a model can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configured value is outside of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The setting, by its name in the configuration of the model.
        key: String,
        /// Its value, as text.
        value: String,
        /// What is accepted.
        reason: String,
    },
    /// A network that does not train in this precision.
    #[error("training in {precision} is not possible {with}: {reason}")]
    Precision {
        /// The precision, as in a configuration.
        precision: &'static str,
        /// With what.
        with: String,
        /// What is possible, and what to do.
        reason: &'static str,
    },
    /// A batch that is too small for batch statistics.
    #[error(
        "`{layer}` cannot normalize an input of shape {got:?} in training: each channel has one value only; \
         use a batch of at least 2 samples"
    )]
    OneValue {
        /// The full name of the normalization.
        layer: String,
        /// The shape of its input.
        got: Vec<usize>,
    },
    /// An input of another shape than the layer takes.
    #[error("`{layer}` takes {expected}, got shape {got:?}")]
    Shape {
        /// The name of the layer or model.
        layer: String,
        /// What it takes, in words.
        expected: String,
        /// The shape that it was given.
        got: Vec<usize>,
    },
    /// An error of the operations.
    #[error("{layer}: {source}")]
    Kernel {
        /// The full name of the layer.
        layer: String,
        /// The error of the operation.
        source: infomax_kernels::Error,
    },
    /// An error of the parameters or views.
    #[error(transparent)]
    Core(#[from] infomax_core::Error),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(key: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { key: key.to_owned(), value: value.to_string(), reason: reason.into() }
    }

    /// Puts the table in front of the name of a setting.
    pub(crate) fn below(self, table: &str) -> Self {
        match self {
            Self::Config { key, value, reason } => {
                Self::Config { key: format!("{table}.{key}"), value, reason }
            }
            other => other,
        }
    }

    pub(crate) fn views(expected: &str, got: usize) -> Self {
        Self::Shape { layer: "views".into(), expected: expected.to_owned(), got: vec![got] }
    }

    /// Names the layer in which an operation failed.
    pub(crate) fn kernel(layer: &str) -> impl FnOnce(infomax_kernels::Error) -> Self + '_ {
        move |source| Self::Kernel { layer: layer.to_owned(), source }
    }
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for infomax_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            Error::Candle(error) => Self::Candle(error),
            Error::Config { key, value, reason } => Self::config(key, value, reason),
            other => Self::other("model", other),
        }
    }
}
