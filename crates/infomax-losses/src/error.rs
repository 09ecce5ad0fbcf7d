//! The error of this crate.

/// What a term, estimator or configuration of this crate can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is not in a list of names.
    #[error("unknown {what} `{name}`; did you mean {nearest}? (all: {all})")]
    Unknown {
        /// What was named, for example `objective`.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The closest valid names.
        nearest: String,
        /// All valid names.
        all: String,
    },
    /// A setting outside of its range.
    #[error("{term}: {key} = {value}: {reason}")]
    Config {
        /// The term or estimator.
        term: &'static str,
        /// The setting.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// A tensor that the term has no meaning for.
    #[error("{term}: needs {expected}, got shape {got:?}")]
    Shape {
        /// The term or estimator.
        term: &'static str,
        /// What it needs, in words.
        expected: &'static str,
        /// The shape that it was given.
        got: Vec<usize>,
    },
    /// Something beside the projections is missing.
    #[error("{term}: needs `{field}` of the embeddings; {hint}")]
    Missing {
        /// The term.
        term: &'static str,
        /// The field of the embeddings.
        field: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// An error of a kernel, with the term that called it.
    #[error(transparent)]
    Kernel(#[from] infomax_kernels::Error),
    /// An error of the shared vocabulary.
    #[error(transparent)]
    Core(#[from] infomax_core::Error),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Unknown`] with the names closest to the given one.
    pub(crate) fn unknown(what: &'static str, name: &str, all: &[&str]) -> Self {
        let mut ranked: Vec<(usize, &str)> =
            all.iter().map(|n| (strsim::damerau_levenshtein(&name.to_lowercase(), n), *n)).collect();
        ranked.sort();
        let nearest = ranked.iter().take(3).map(|(_, n)| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        Self::Unknown { what, name: name.to_owned(), nearest, all: all.join(", ") }
    }
}

/// What an error of a kernel is wrapped with where no term is known; [`crate::Composed`] replaces it.
pub(crate) const OPERATION: &str = "an operation of a term";

impl From<Error> for infomax_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            Error::Candle(error) => Self::Candle(error),
            Error::Kernel(error) => Self::other(OPERATION, error),
            other => Self::other("objective", other),
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest() {
        let message =
            Error::unknown("objective", "vicregg", &["simclr", "vicreg", "vicreg-logdet"]).to_string();
        assert!(message.contains("did you mean `vicreg`,"), "{message}");
    }
}
