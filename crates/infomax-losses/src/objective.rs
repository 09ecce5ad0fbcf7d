//! The composition of an invariance and an entropy term.

use crate::{Entropy, Invariance};
use infomax_core::{Context, Embeddings, Error, Objective, Report, Result, TermState};

/// `invariance + entropy`, each part with its weight and name.
#[derive(Debug)]
pub struct Composed {
    name: String,
    invariance: Invariance,
    entropy: Option<Box<dyn Entropy>>,
}

impl Composed {
    /// Composes two terms under a name.
    pub fn new(name: &str, invariance: Invariance, entropy: Option<Box<dyn Entropy>>) -> Self {
        Self { name: name.to_owned(), invariance, entropy }
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
