//! The error of this crate.

/// What an operation of this crate can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: {name} must be {expected}, got shape {got:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The shape that it must have, in words.
        expected: String,
        /// The shape that it has.
        got: Vec<usize>,
    },
    /// A number outside of its range.
    #[error("{op}: {name} = {value}: {reason}")]
    Config {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// Its value, as text.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// A type of elements without a kernel, or two that differ.
    #[error("{op}: {name} is {got:?}; this needs {expected}; convert it with `to_dtype`")]
    DType {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// Its type.
        got: candle_core::DType,
        /// The types that are accepted, in words.
        expected: &'static str,
    },
    /// A tensor that is not on a CUDA device.
    #[error("{op}: {name} is not on a CUDA device; move it with `to_device`")]
    Device {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
    },
    /// No algorithm of cuDNN takes this convolution.
    #[error("{op}: cuDNN has no algorithm for {what}")]
    NoAlgorithm {
        /// The operation.
        op: &'static str,
        /// The convolution, in words.
        what: String,
    },
    /// An error of Candle, of the CUDA driver or of a CUDA library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of the operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Lets `?` be used inside of custom operations and of `candle_core::Module` implementations.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}
