//! The composition of terms.

use crate::ObjectiveConfig;
use infomax_core::{
    Context, Embeddings, Error, InformationAccount, Objective, Part, Report, Result, Term, TermState, Views,
};

/// A sum of terms, each part with its weight and name: `invariance + entropy`, or any other terms, those of this
/// crate and of others.
///
/// ```
/// use infomax_core::{Objective as _, Term};
/// use infomax_losses::{Composed, entropy::{IntoTerm as _, LogDet, Uniformity}, invariance::Cosine};
/// let entropies: [Box<dyn Term>; 2] = [LogDet::default().into_term(), Uniformity::default().into_term()];
/// let terms = std::iter::once(Box::new(Cosine::default()) as Box<dyn Term>).chain(entropies);
/// assert_eq!(Composed::new("mine", terms.collect())?.name(), "mine");
/// # Ok::<(), infomax_losses::Error>(())
/// ```
///
/// Values are not judged here: whether a part is finite is the trainer's to see, which names the step and the
/// last good checkpoint.
#[derive(Debug)]
pub struct Composed {
    name: String,
    terms: Vec<Box<dyn Term>>,
    config: Option<ObjectiveConfig>,
}

/// Rows of a batch that an account in training looks at: its cost stays bounded.
const ACCOUNT_ROWS: usize = 512;

impl Composed {
    /// Composes terms under a name. The state of a term is kept under the term's name.
    ///
    /// # Errors
    /// No term, or two of one name.
    pub fn new(name: &str, terms: Vec<Box<dyn Term>>) -> crate::Result<Self> {
        let refuse = |value: &str, reason| {
            Err(crate::Error::Config { term: "objective", key: "terms", value: value.to_owned(), reason })
        };
        if terms.is_empty() {
            return refuse("none", "at least one term is needed");
        }
        for (i, term) in terms.iter().enumerate() {
            if terms[..i].iter().any(|other| other.name() == term.name()) {
                return refuse(term.name(), "two terms have this name");
            }
        }
        Ok(Self { name: name.to_owned(), terms, config: None })
    }

    /// The same with the configuration that it was built from, which its account needs.
    #[must_use]
    pub fn with_config(self, config: ObjectiveConfig) -> Self {
        Self { config: Some(config), ..self }
    }

    /// The terms, in order.
    pub fn terms(&self) -> impl Iterator<Item = &dyn Term> {
        self.terms.iter().map(|term| &**term)
    }

    /// An error of a term that names an operation only, with the name of the term.
    fn named(&self, term: &dyn Term, error: Error) -> Error {
        let what = || format!("term `{}` of the objective `{}`", term.name(), self.name);
        match error {
            Error::Candle(error) => Error::other(what(), error),
            Error::Other { what: operation, source } if operation == crate::error::OPERATION => {
                Error::Other { what: what(), source }
            }
            other => other,
        }
    }
}

impl Objective for Composed {
    fn name(&self) -> &str {
        &self.name
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Report> {
        let mut parts: Vec<Part> = Vec::new();
        for term in self.terms() {
            parts.extend(term.evaluate(z, ctx).map_err(|e| self.named(term, e))?);
        }
        Report::from_parts(parts)
    }

    /// That of [`ObjectiveConfig::account`], on the first 512 rows.
    fn account(&self, z: &Embeddings) -> Result<Option<InformationAccount>> {
        let Some(config) = &self.config else { return Ok(None) };
        let rows = z.projections.batch().min(ACCOUNT_ROWS);
        let some = z.projections.iter().map(|v| v.narrow(0, 0, rows)).collect::<candle_core::Result<_>>()?;
        let answer = config.account(&Embeddings::new(Views::new(some)?))?;
        Ok(Some(InformationAccount {
            entropy: answer.account.entropy.nats,
            bound: answer.account.entropy.bound,
            estimator: answer.estimator,
            stands_in: answer.stands_in,
            conditional: answer.account.conditional,
            information: answer.account.information,
        }))
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> Result<()> {
        self.terms.iter_mut().try_for_each(|term| term.update(z, ctx))
    }

    fn state(&self) -> TermState {
        let mut state = TermState::new();
        for term in self.terms() {
            let own = term.state().into_iter();
            state.extend(own.map(|(key, value)| (format!("{}.{key}", term.name()), value)));
        }
        state
    }

    fn load_state(&mut self, state: &TermState) -> Result<()> {
        let known = |key: &str| {
            self.terms().any(|term| key.strip_prefix(term.name()).is_some_and(|rest| rest.starts_with('.')))
        };
        if let Some(key) = state.keys().find(|key| !known(key)) {
            return Err(Error::Weights(format!("the state `{key}` belongs to no term of `{}`", self.name)));
        }
        for term in &mut self.terms {
            let prefix = format!("{}.", term.name());
            let own = state
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.to_owned(), value.clone())));
            let own = own.collect();
            term.load_state(&own)?;
        }
        Ok(())
    }
}
