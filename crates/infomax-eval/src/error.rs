//! The error of this crate.

/// What an evaluation can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the evaluation needs.
    #[error("{op}: {name} must be {expected}, got shape {got:?}")]
    Shape {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// What it must be, in words.
        expected: String,
        /// The shape that it has.
        got: Vec<usize>,
    },
    /// Features and labels are not of one number.
    #[error("{op}: {name} has {rows} rows but {labels} labels; give one label for each row")]
    Labels {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The number of rows.
        rows: usize,
        /// The number of labels.
        labels: usize,
    },
    /// A probe of a single class says nothing.
    #[error(
        "{op}: the training labels hold only the class {class}; a probe needs at least two classes: \
         sort the images into one sub-folder for each class, or leave out the labeled evaluation"
    )]
    OneClass {
        /// The evaluation.
        op: &'static str,
        /// The only class.
        class: u32,
    },
    /// Samples without a class where classes are needed.
    #[error(
        "{missing} of {total} samples have no label; a probe needs all of them: \
         sort the images into one sub-folder for each class, or leave out the labeled evaluation"
    )]
    MissingLabels {
        /// Samples without a label.
        missing: usize,
        /// All samples.
        total: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "{op}: {name} holds a value that is not finite in row {row}; the encoder diverged or its input is damaged"
    )]
    NonFinite {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The first such row.
        row: usize,
    },
    /// A configured value is outside of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The setting.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// An error of the operations.
    #[error(transparent)]
    Kernel(#[from] infomax_kernels::Error),
    /// An error of the model.
    #[error(transparent)]
    Core(#[from] infomax_core::Error),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
