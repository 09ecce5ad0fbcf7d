//! Collecting frozen features over a data set.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Learner;

/// Features `(N, D)` in f32 on the host, with the labels where they are known.
#[derive(Clone, Debug)]
pub struct FeatureBank {
    /// One row for each sample, in the order of the batches.
    pub features: Tensor,
    /// The class of each sample, where it is known.
    pub labels: Vec<Option<u32>>,
}

impl FeatureBank {
    /// Applies `features` to each batch and collects its rows; a batch of rank above 2 is flattened after it,
    /// so that the identity gives raw pixels.
    ///
    /// # Errors
    /// Errors of the batches or of `features`, no batch, or rows that do not fit their labels.
    pub fn collect<E: Into<Error>>(
        batches: impl IntoIterator<Item = Result<(Tensor, Vec<Option<u32>>), E>>,
        mut features: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        const OP: &str = "features";
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for batch in batches {
            let (xs, batch_labels) = batch.map_err(Into::into)?;
            let ys =
                features(&xs)?.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?;
            if ys.dims().first() != Some(&batch_labels.len()) {
                let got = ys.dims().first().copied().unwrap_or(0);
                return Err(Error::Labels { op: OP, name: "batch", rows: got, labels: batch_labels.len() });
            }
            rows.push(ys);
            labels.extend(batch_labels);
        }
        if rows.is_empty() {
            let expected = "at least one batch".to_owned();
            return Err(Error::Shape { op: OP, name: "batches", expected, got: vec![0] });
        }
        Ok(Self { features: Tensor::cat(&rows, 0)?, labels })
    }

    /// [`FeatureBank::collect`] with the encoder's features in evaluation mode; batches are brought to the
    /// device and type of its parameters.
    ///
    /// # Errors
    /// As [`FeatureBank::collect`].
    pub fn of_learner<E: Into<Error>>(
        learner: &dyn Learner,
        batches: impl IntoIterator<Item = Result<(Tensor, Vec<Option<u32>>), E>>,
    ) -> Result<Self> {
        let params = learner.params();
        Self::collect(batches, |xs| {
            Ok(learner.features(&xs.to_device(params.device())?.to_dtype(params.dtype())?)?)
        })
    }

    /// The labels of all samples.
    ///
    /// # Errors
    /// [`Error::MissingLabels`] where a sample has none.
    pub fn known_labels(&self) -> Result<Vec<u32>> {
        let known: Vec<u32> = self.labels.iter().flatten().copied().collect();
        match self.labels.len() - known.len() {
            0 => Ok(known),
            missing => Err(Error::MissingLabels { missing, total: self.labels.len() }),
        }
    }
}
