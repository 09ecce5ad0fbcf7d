//! A failed step, made again.

use crate::budget::Clock;
use crate::capsule::{Attempt, DIGEST, Failure, FailureKind};
use crate::{Checkpoint, Result, Trainer};
use candle_core::{DType, Device, Tensor};

/// What a tensor held. `min`, `max`, `mean` and `rms` are those of its finite values; `None` if it has none.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Held {
    /// What it is: `parameter`, `buffer`, `view`, `layer` (what a layer gave, or the statistics of what came in), `feature`, `projection`, `prediction`, `target`, `term`, `gradient`.
    pub kind: String,
    /// Its name, or the number of the view.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
    /// The root of the mean of the squares.
    pub rms: Option<f64>,
    /// The number of NaN.
    pub nan: usize,
    /// The number of infinities.
    pub inf: usize,
}

impl Held {
    pub(crate) fn of(kind: &str, name: &str, tensor: &Tensor) -> Result<Self> {
        let values = tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let values = values.flatten_all()?.to_vec1::<f64>()?;
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let any = !finite.is_empty();
        let n = finite.len() as f64;
        // By the largest value, so that no square overflows.
        let largest = finite.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let squares = finite.iter().map(|value| (value / scale) * (value / scale)).sum::<f64>();
        let mean = finite.iter().map(|value| value / scale).sum::<f64>() / n;
        Ok(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            shape: tensor.dims().to_vec(),
            min: finite.iter().copied().reduce(f64::min),
            max: finite.iter().copied().reduce(f64::max),
            mean: any.then_some(mean * scale),
            rms: any.then(|| (squares / n).sqrt() * scale),
            nan: values.iter().filter(|value| value.is_nan()).count(),
            inf: values.iter().filter(|value| value.is_infinite()).count(),
        })
    }
}

/// A failed step that was made again.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Replay {
    /// The number of steps that were finished before.
    pub step: u64,
    /// How it failed in the run.
    pub recorded: Failure,
    /// How it failed now; `None` if it did not.
    pub found: Option<Failure>,
    /// Whether both are the same, with the views and every value to the bit; NaN is equal to itself.
    pub same: bool,
    /// What differs from the run that wrote the capsule.
    pub warnings: Vec<String>,
    /// What the tensors of the step held, in the order in which it came to them.
    pub held: Vec<Held>,
}

impl Trainer {
    /// Makes the step of a capsule again, from the state that it was made from. The trainer is spent afterwards: its
    /// parameters are those after the step.
    ///
    /// # Errors
    /// [`crate::Error::NotACapsule`] for a checkpoint; what [`Trainer::resume`] refuses; a batch that
    /// cannot be read. A step that fails is no error: it is what is asked for.
    pub fn replay(&mut self, capsule: &Checkpoint) -> Result<Replay> {
        let Some(recorded) = capsule.state().failure.clone() else {
            return Err(crate::Error::NotACapsule { path: capsule.path().to_owned() });
        };
        let warnings = self.restore(capsule)?.into_iter();
        // Nothing goes on here.
        let said = |warning: String| warning.replace("the run continues", "the step is made");
        let warnings = warnings.map(said).collect();
        // Of a run whose length follows from its time, this one does not know it.
        self.total_steps = recorded.total_steps;
        let mut held = Vec::new();
        for (name, param) in self.parts.learner.params().all() {
            let kind = if param.kind == infomax_core::ParamKind::Buffer { "buffer" } else { "parameter" };
            held.push(Held::of(kind, &name, param.var.as_tensor())?);
        }
        for (name, tensor) in self.parts.objective.state() {
            held.push(Held::of("state of the objective", &name, &tensor)?);
        }
        let parameter = match (recorded.kind, self.check_parameters()) {
            (FailureKind::Parameter, Err(error)) => Failure::of(&error, self.total_steps, Vec::new())
                .map(|failure| Failure { kind: FailureKind::Parameter, ..failure }),
            _ => None,
        };
        self.trace.borrow_mut().write_down(held);
        let found = match self.attempt(&Clock::new(self.spent, self.parts.config.budget)) {
            Attempt::Made(_, changed) => self.collapse(changed),
            Attempt::Failed(_, Some(failure)) | Attempt::Panicked(_, failure) => Some(failure),
            Attempt::Failed(error, None) => return Err(error),
        };
        let mut found = parameter.or(found);
        // Older capsules have no checksums.
        if !recorded.reached.iter().any(|(name, _)| name.starts_with(DIGEST))
            && let Some(found) = &mut found
        {
            found.reached.retain(|(name, _)| !name.starts_with(DIGEST));
        }
        let same = found.as_ref() == Some(&recorded);
        let held = self.trace.borrow_mut().written();
        Ok(Replay { step: capsule.state().step, recorded, found, same, warnings, held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_counted_and_the_rest_measured() {
        let values = [f32::NAN, 3.0, f32::NEG_INFINITY, -4.0, f32::INFINITY, 1.0];
        let held = Held::of("term", "x", &Tensor::new(&values, &Device::Cpu).unwrap()).unwrap();
        assert_eq!((held.nan, held.inf, held.min, held.max), (1, 2, Some(-4.0), Some(3.0)));
        assert_eq!((held.mean, held.shape.as_slice()), (Some(0.0), &[6][..]));
        assert!((held.rms.unwrap() - (26.0f64 / 3.0).sqrt()).abs() < 1e-12);
        let huge = Tensor::new(&[1e300f64, -1e300], &Device::Cpu).unwrap();
        assert!((Held::of("gradient", "w", &huge).unwrap().rms.unwrap() / 1e300 - 1.0).abs() < 1e-12);
        let none = Held::of("term", "x", &Tensor::new(&[f32::NAN], &Device::Cpu).unwrap()).unwrap();
        assert_eq!((none.min, none.mean, none.rms), (None, None, None));
    }
}
