//! The composition of an invariance and an entropy term.

use crate::{Entropy, Invariance, ObjectiveConfig};
use infomax_core::{
    Context, Embeddings, Error, InformationAccount, Objective, Report, Result, TermState, Views,
};

/// `invariance + entropy`, each part with its weight and name.
#[derive(Debug)]
pub struct Composed {
    name: String,
    invariance: Invariance,
    entropy: Option<Box<dyn Entropy>>,
    config: Option<ObjectiveConfig>,
}

/// Rows of a batch that an account in training looks at: its cost stays bounded.
const ACCOUNT_ROWS: usize = 512;

impl Composed {
    /// Composes two terms under a name.
    pub fn new(name: &str, invariance: Invariance, entropy: Option<Box<dyn Entropy>>) -> Self {
        Self { name: name.to_owned(), invariance, entropy, config: None }
    }

    /// The same with the configuration that it was built from, which its account needs.
    #[must_use]
    pub fn with_config(self, config: ObjectiveConfig) -> Self {
        Self { config: Some(config), ..self }
    }
}

impl Objective for Composed {
    fn name(&self) -> &str {
        &self.name
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Report> {
        let named = |term: &str, error: crate::Error| match error {
            // These name an operation, but not the term that called it.
            crate::Error::Kernel(_) | crate::Error::Candle(_) => {
                Error::other(format!("term `{term}` of the objective `{}`", self.name), error)
            }
            other => other.into(),
        };
        let mut parts = self.invariance.evaluate(z, ctx).map_err(|e| named("invariance", e))?;
        if let Some(entropy) = &self.entropy {
            parts.extend(entropy.evaluate(z, ctx).map_err(|e| named(entropy.name(), e))?);
        }
        for part in &parts {
            let value = crate::op::number(&part.value)?;
            if !value.is_finite() {
                let what = format!("part `{}` of the objective `{}`", part.name, self.name);
                return Err(Error::NonFinite { what, value, step: ctx.step });
            }
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
            estimator: answer.estimator.to_owned(),
            stands_in: answer.stands_in,
            conditional: answer.account.conditional,
            information: answer.account.information,
        }))
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> Result<()> {
        match &mut self.entropy {
            Some(entropy) => Ok(entropy.update(z, ctx)?),
            None => Ok(()),
        }
    }

    fn state(&self) -> TermState {
        self.entropy.as_ref().map(|e| e.state()).unwrap_or_default()
    }

    fn load_state(&mut self, state: &TermState) -> Result<()> {
        match &mut self.entropy {
            Some(entropy) => Ok(entropy.load_state(state)?),
            None => Ok(()),
        }
    }
}
