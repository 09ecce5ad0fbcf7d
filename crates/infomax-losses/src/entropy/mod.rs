//! The entropy estimators: each one type that is a loss term and a monitor.

mod vicreg;

pub use vicreg::{Vicreg, variance_covariance, variance_covariance_composed};

use crate::Result;
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, TermState};

/// An entropy in nats, or a surrogate of it that grows with it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The value; in nats unless the bound is [`Bound::Surrogate`].
    pub nats: f64,
    /// How it relates to the true entropy.
    pub bound: Bound,
}

/// An entropy estimator: a differentiable loss term, and a monitor.
pub trait Entropy: std::fmt::Debug + Send + Sync {
    /// Its name, as in a configuration.
    fn name(&self) -> &'static str;

    /// How its value relates to the true entropy.
    fn bound(&self) -> Bound;

    /// Refuses settings outside of their range.
    ///
    /// # Errors
    /// Names the setting.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The parts of the loss, to be minimised: minus the entropy, or a surrogate of that.
    ///
    /// # Errors
    /// Shapes or embeddings that the estimator has no meaning for.
    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>>;

    /// The entropy of the rows of one matrix `(n, d)`.
    ///
    /// # Errors
    /// As [`Entropy::evaluate`].
    fn estimate(&self, z: &Tensor) -> Result<Estimate>;

    /// Takes a step's embeddings into the running state.
    ///
    /// # Errors
    /// As [`Entropy::evaluate`].
    fn update(&mut self, _z: &Embeddings, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// The running state.
    fn state(&self) -> TermState {
        TermState::new()
    }

    /// Restores a running state.
    ///
    /// # Errors
    /// A state of another estimator.
    fn load_state(&mut self, _state: &TermState) -> Result<()> {
        Ok(())
    }
}

/// How the values of the views are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Their mean.
    #[default]
    Mean,
    /// Twice their mean: the sum for two views, and of the same size for more.
    Sum,
}

impl Reduce {
    /// The factor of the sum over `views` views.
    pub fn factor(self, views: usize) -> f64 {
        match self {
            Self::Mean => 1.0 / views as f64,
            Self::Sum => 2.0 / views as f64,
        }
    }
}

pub(crate) fn entropy_part(name: &str, weight: f64, value: Tensor) -> Part {
    Part { name: name.into(), role: Role::Entropy, weight, value }
}
