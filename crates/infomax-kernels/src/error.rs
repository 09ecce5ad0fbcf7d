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
    /// A tensor without elements where a value must be computed from them.
    #[error("{op}: {name} has no elements (shape {got:?}); skip empty batches before calling it")]
    Empty {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
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
    /// Two tensors of one call have different types of elements.
    #[error("{op}: {name} is {got:?} but the input is {expected:?}; convert one of them with `to_dtype`")]
    DType {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// Its type.
        got: candle_core::DType,
        /// The type of the input.
        expected: candle_core::DType,
    },
    /// A matrix is not positive definite, even with the largest jitter on its diagonal.
    #[error(
        "{op}: a {size}x{size} matrix is not positive definite, even with {jitter:e} added to its diagonal; \
         is it symmetric and finite?"
    )]
    NotPositiveDefinite {
        /// The operation.
        op: &'static str,
        /// The number of rows.
        size: usize,
        /// The largest jitter that was tried, absolute.
        jitter: f64,
    },
    /// Elements, or squares of them, that are not finite.
    #[error("{op}: {name} has elements that are not finite, or too large for their squares to be")]
    NonFinite {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
    },
    /// An iterative decomposition did not converge: its input is not finite.
    #[error("{op}: the decomposition of a {rows}x{cols} matrix did not converge; is it finite?")]
    NoConvergence {
        /// The operation.
        op: &'static str,
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        cols: usize,
    },
    /// An arithmetic that this machine does not have.
    #[error(
        "products by {arithmetic} are not possible here: {reason}; leave the choice to the program (`auto`)"
    )]
    Arithmetic {
        /// Its name.
        arithmetic: &'static str,
        /// What is missing.
        reason: String,
    },
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of the operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the CUDA operations refuse: in their words.
impl From<infomax_cuda::Error> for Error {
    fn from(error: infomax_cuda::Error) -> Self {
        Self::Candle(error.into())
    }
}

/// Lets `?` be used inside of `candle_core::Module` implementations.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}
