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
    /// A setting of a term of an objective outside of its range, by the key that a configuration has for it.
    #[error("{table}.{key} = {value}: {reason} ({term})")]
    Setting {
        /// The table of the term within the objective: `invariance` or `entropy`.
        table: &'static str,
        /// The term.
        term: &'static str,
        /// The setting.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// Settings of an objective that contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// Fewer views of each sample than the term compares.
    #[error(
        "{term}: needs at least {needed} views of each sample, got {got}; give one file a view here, or in a run a \
         recipe of more views (augment.preset, or `count` in augment.recipe.views)"
    )]
    Views {
        /// The term or estimator.
        term: &'static str,
        /// The least number of views.
        needed: usize,
        /// The number that was given.
        got: usize,
    },
    /// Embeddings without any spread, which hold no information.
    #[error(
        "view {view} has no spread: {found}; what does not vary tells nothing, so the information is 0 nats and \
         no number is made of it"
    )]
    NoSpread {
        /// The view, from 1.
        view: usize,
        /// What was found in its place.
        found: String,
    },
    /// A view that is another one, or a multiple of it on the sphere, has no account.
    #[error(
        "view {view} equals view 1, and what a continuous variable tells of itself has no end: no number is made of it"
    )]
    EqualViews {
        /// The view, from 1.
        view: usize,
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
    /// An [`Error::Unknown`] with the names closest to the given one: those that hold it as a word or begin with it
    /// come first, then those that few changes lead to.
    pub(crate) fn unknown(what: &'static str, name: &str, all: &[&str]) -> Self {
        let word = name.to_lowercase().replace(['_', ' '], "-");
        let rank = |candidate: &str| {
            let parts = |text: &str| text.split('-').map(ToOwned::to_owned).collect::<Vec<_>>();
            let shared = parts(&word).iter().any(|w| w.len() > 2 && parts(candidate).contains(w));
            let begins = word.len() > 2 && (candidate.starts_with(&word) || word.starts_with(candidate));
            let distance = strsim::damerau_levenshtein(&word, candidate);
            // Two changes are a slip of the pen, whatever the words.
            (if distance <= 2 { 0 } else { usize::from(!(shared || begins)) + 1 }, distance)
        };
        let mut ranked: Vec<((usize, usize), &str)> = all.iter().map(|n| (rank(n), *n)).collect();
        ranked.sort();
        let best = ranked.first().map_or(0, |first| first.0.0);
        let close = ranked.iter().filter(|(rank, _)| rank.0 == best || best == 2).take(3);
        let nearest = close.map(|(_, n)| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        Self::Unknown { what, name: name.to_owned(), nearest, all: all.join(", ") }
    }

    /// A refused setting of a term that another one is made of, under the name of that one.
    pub(crate) fn of_term(self, term: &'static str) -> Self {
        match self {
            Self::Config { key, value, reason, .. } => Self::Config { term, key, value, reason },
            other => other,
        }
    }

    /// A refused setting of a term with the table that it stands in.
    pub(crate) fn of_table(self, table: &'static str) -> Self {
        match self {
            Self::Config { term, key, value, reason } => Self::Setting { table, term, key, value, reason },
            other => other,
        }
    }
}

/// Refuses fewer views than a term compares.
pub(crate) fn views(term: &'static str, needed: usize, got: usize) -> Result<()> {
    if got >= needed { Ok(()) } else { Err(Error::Views { term, needed, got }) }
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
        assert!(message.contains("did you mean `vicreg`"), "{message}");
        let nearest = |name: &str| match Error::unknown("objective", name, &["byol", "barlow-twins", "hydes"])
        {
            Error::Unknown { nearest, .. } => nearest,
            other => other.to_string(),
        };
        assert_eq!(nearest("barlow"), "`barlow-twins`");
        assert_eq!(nearest("Barlow_Twins"), "`barlow-twins`");
        assert_eq!(nearest("hyde"), "`hydes`");
    }
}
