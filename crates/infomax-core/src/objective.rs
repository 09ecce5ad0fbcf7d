//! A loss as a sum of named, weighted parts.

use crate::{Collective, Embeddings, Key, Local, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// What a part of an objective is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Pulls the views of a sample together: `-E log q(z | z')` up to constants.
    Invariance,
    /// Keeps the embeddings spread: `-H(Z)` or a stand-in for it.
    Entropy,
    /// Neither: weight decay on activations, auxiliary penalties.
    Auxiliary,
}

/// How an entropy or information value relates to the true one. The unit is always nats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Never below the truth (in expectation, under the stated assumptions).
    Upper,
    /// Never above the truth.
    Lower,
    /// Converges to the truth, from either side.
    Estimate,
    /// Moves with the entropy but is not a value in nats of it.
    Surrogate,
}

/// What the views of a batch tell of each other, `I(Z; X') >= H(Z) + E ln q(z | z')`, in nats.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InformationAccount {
    /// The entropy part, `H(Z)`.
    pub entropy: f64,
    /// How the entropy part relates to the truth; the sum inherits it.
    pub bound: Bound,
    /// The estimator of the entropy part.
    pub estimator: String,
    /// Whether that estimator stands in for an entropy term that is not in nats, or missing.
    pub stands_in: bool,
    /// The conditional part, `E ln q(z | z')`.
    pub conditional: f64,
    /// Their sum.
    pub information: f64,
}

/// A named scalar of an objective.
#[derive(Clone, Debug)]
pub struct Part {
    /// The name under which it is logged, for example `variance`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The factor with which it enters the total.
    pub weight: f64,
    /// The unweighted value: a scalar tensor, with gradient.
    pub value: Tensor,
}

/// The value of an objective on one batch.
#[derive(Clone, Debug)]
pub struct Report {
    /// `sum_k weight_k value_k`: the scalar to differentiate.
    pub total: Tensor,
    /// The parts, in the order in which they are logged.
    pub parts: Vec<Part>,
}

impl Report {
    /// Sums weighted parts. Parts of weight 0 are reported but add nothing.
    ///
    /// # Errors
    /// No parts, or parts that are not scalars of one dtype.
    pub fn from_parts(parts: Vec<Part>) -> Result<Self> {
        let mut total: Option<Tensor> = None;
        for part in &parts {
            part.value.to_scalar_shape(&part.name)?;
            if part.weight != 0.0 {
                let weighted = (&part.value * part.weight)?;
                total = Some(match total {
                    None => weighted,
                    Some(sum) => (sum + weighted)?,
                });
            }
        }
        let total = match (total, parts.first()) {
            (Some(total), _) => total,
            (None, Some(part)) => part.value.zeros_like()?,
            (None, None) => {
                return Err(crate::Error::config(
                    "objective",
                    "empty",
                    "an objective needs at least one term",
                ));
            }
        };
        Ok(Self { total, parts })
    }
}

trait ScalarShape {
    fn to_scalar_shape(&self, name: &str) -> Result<()>;
}

impl ScalarShape for Tensor {
    fn to_scalar_shape(&self, name: &str) -> Result<()> {
        if self.rank() == 0 {
            return Ok(());
        }
        Err(crate::Error::Shape {
            op: format!("part `{name}` of an objective"),
            expected: "a scalar".into(),
            got: self.dims().to_vec(),
        })
    }
}

/// What a term may know of the run beside the embeddings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The number of optimizer steps taken before this one.
    pub step: u64,
    /// The number of steps of the whole run, if it is known (for annealed weights).
    pub total_steps: Option<u64>,
    /// Randomness of this step, equal on all ranks.
    pub key: Key,
    /// The processes of the run.
    pub collective: &'a dyn Collective,
}

impl Context<'static> {
    /// A context outside of training: step 0, one process, key 0.
    pub fn standalone() -> Self {
        Self { step: 0, total_steps: None, key: Key::new(0), collective: &Local }
    }
}

/// Named tensors that a stateful term carries from step to step, and that a checkpoint saves.
pub type TermState = BTreeMap<String, Tensor>;

/// One summand of an objective, or a small group of summands that share work.
pub trait Term: std::fmt::Debug + Send + Sync {
    /// The field's standard name, in kebab-case.
    fn name(&self) -> &str;

    /// What the term is for.
    fn role(&self) -> Role;

    /// For terms in nats or instead of an entropy: how the value relates to the true one.
    fn bound(&self) -> Option<Bound> {
        None
    }

    /// Evaluates the term. Values are to be minimized: an entropy estimator returns minus the entropy.
    ///
    /// # Errors
    /// Shapes that the term has no meaning for.
    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>>;

    /// Takes the step's embeddings into the running state, after the optimizer's step.
    fn update(&mut self, _z: &Embeddings, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// The running state, if any.
    fn state(&self) -> TermState {
        TermState::new()
    }

    /// Restores a state that [`Term::state`] gave.
    fn load_state(&mut self, _state: &TermState) -> Result<()> {
        Ok(())
    }
}

/// A whole loss: a batch of embeddings in, a scalar with named parts out.
pub trait Objective: std::fmt::Debug + Send + Sync {
    /// The name of the method, for example `vicreg`.
    fn name(&self) -> &str;

    /// Evaluates the objective.
    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Report>;

    /// The entropy and the conditional part of the information that it maximizes, in nats, without gradient;
    /// `None` for an objective that has no such account.
    fn account(&self, _z: &Embeddings) -> Result<Option<InformationAccount>> {
        Ok(None)
    }

    /// Takes the step's embeddings into the running state, after the optimizer's step.
    fn update(&mut self, _z: &Embeddings, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// The running state, if any; it is part of a checkpoint.
    fn state(&self) -> TermState {
        TermState::new()
    }

    /// Restores a state that [`Objective::state`] gave.
    fn load_state(&mut self, _state: &TermState) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn part(name: &str, weight: f64, value: f64) -> Part {
        let value = Tensor::new(value, &Device::Cpu).unwrap();
        Part { name: name.into(), role: Role::Auxiliary, weight, value }
    }

    #[test]
    fn total_is_the_weighted_sum() {
        let report = Report::from_parts(vec![part("a", 2.0, 3.0), part("b", 0.5, 4.0), part("c", 0.0, 9.0)]);
        assert_eq!(report.unwrap().total.to_scalar::<f64>().unwrap(), 8.0);
    }

    #[test]
    fn empty_and_non_scalar_are_refused() {
        assert!(Report::from_parts(vec![]).is_err());
        let mut vector = part("v", 1.0, 0.0);
        vector.value = Tensor::new(&[1.0f64, 2.0], &Device::Cpu).unwrap();
        assert!(Report::from_parts(vec![vector]).unwrap_err().to_string().contains('v'));
    }
}
