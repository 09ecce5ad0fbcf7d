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
        "{op}: the labels hold only the class {class}; at least two classes are needed to say what is known of them \
         (of images: one sub-folder for each class)"
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
    /// Values are NaN or infinite.
    #[error(
        "{op}: {name} holds values that are not finite in {}; the encoder diverged or its input is damaged: \
         leave those rows out or repair them",
        numbered("row", .rows)
    )]
    NonFinite {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The rows with such a value, from 0.
        rows: Vec<usize>,
    },
    /// Too few rows for the question.
    #[error("{op}: {name} has {rows} rows; at least {needed} are needed")]
    TooFew {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The number of rows.
        rows: usize,
        /// The smallest number that is accepted.
        needed: usize,
    },
    /// Columns without any spread, where the question needs one.
    #[error("{op}: {name} is constant in {}; leave those columns out", numbered("column", .columns))]
    Constant {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The constant columns, from 0.
        columns: Vec<usize>,
    },
    /// The columns are linearly dependent, where the question needs an invertible covariance.
    #[error(
        "{op}: the covariance of {name} ({rows} rows, {columns} columns) is singular; \
         use more rows than columns, or leave out columns that depend on others"
    )]
    Singular {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        columns: usize,
    },
    /// Rows that coincide, where the question needs a density.
    #[error(
        "{op}: {rows} of {n} rows of {name} have {k} exact duplicates: a density does not exist there; leave \
         duplicates out, use more neighbors, or an estimator for mixed data"
    )]
    Ties {
        /// The evaluation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// The rows whose `k` nearest neighbors coincide with them.
        rows: usize,
        /// All rows.
        n: usize,
        /// The number of neighbors.
        k: usize,
    },
    /// Two matrices that should hold the same samples have different numbers of rows.
    #[error(
        "{op}: {first} has {} rows and {second} has {}; row i of both must be the same sample",
        .rows[0], .rows[1]
    )]
    Paired {
        /// The evaluation.
        op: &'static str,
        /// The first argument.
        first: &'static str,
        /// The second argument.
        second: &'static str,
        /// Their numbers of rows.
        rows: [usize; 2],
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

/// "3 rows: 2, 7, 19", cut after ten.
pub(crate) fn numbered(what: &str, numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(10).map(usize::to_string).collect();
    let (plural, more) =
        (if numbers.len() == 1 { "" } else { "s" }, if numbers.len() > 10 { ", ..." } else { "" });
    format!("{} {what}{plural}: {}{more}", numbers.len(), shown.join(", "))
}
