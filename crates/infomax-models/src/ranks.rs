//! Batch statistics of all processes.

use candle_core::{Device, Tensor};
use infomax_core::{Collective, candle_core};
use infomax_kernels::Peers;
use std::sync::Arc;

/// The processes of a pass, as the operations ask for them; `None` for a single one.
pub(crate) fn peers(ranks: &dyn Collective) -> Option<Arc<dyn Peers>> {
    (ranks.size() > 1).then(|| Arc::new(Ranks(ranks.handle())) as Arc<dyn Peers>)
}

#[derive(Debug)]
struct Ranks(Arc<dyn Collective>);

impl Peers for Ranks {
    fn sum(&self, values: &mut [f64]) -> candle_core::Result<()> {
        let own = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        let sum = self.0.sum(&own).map_err(candle_core::Error::wrap)?;
        values.copy_from_slice(&sum.to_vec1::<f64>()?);
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> candle_core::Result<Vec<Vec<f64>>> {
        let own = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        let all = self.0.gather(&own).map_err(candle_core::Error::wrap)?;
        all.iter().map(Tensor::to_vec1).collect()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
