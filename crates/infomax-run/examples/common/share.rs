//! The rows of one rank of every batch.

use infomax_core::{Batch, BatchSource, Position, Result, SourceStats, View};
use std::sync::Arc;

/// The rows of one rank of every batch of the whole.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) inner: Box<dyn BatchSource>,
    pub(crate) rank: usize,
    pub(crate) ranks: usize,
}

impl BatchSource for Share {
    fn batches_per_epoch(&self) -> u64 {
        self.inner.batches_per_epoch()
    }

    fn samples_per_epoch(&self) -> u64 {
        self.inner.samples_per_epoch()
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.inner.seek(position)
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn stats(&self) -> SourceStats {
        self.inner.stats()
    }

    fn next_batch(&mut self) -> Result<Batch> {
        let batch = self.inner.next_batch()?;
        let rows = batch.len() / self.ranks;
        let (from, to) = (self.rank * rows, (self.rank + 1) * rows);
        let part = |view: &View| -> Result<View> {
            let cuts = view.cuts.as_ref().and_then(|cuts| cuts.get(from..to));
            Ok(View {
                values: view.values.narrow(0, from, rows)?,
                kind: view.kind,
                cuts: cuts.map(Arc::from),
            })
        };
        Ok(Batch {
            views: batch.views.iter().map(part).collect::<Result<_>>()?,
            labels: batch.labels.and_then(|labels| Some(labels.get(from..to)?.to_vec())),
            indices: batch.indices.get(from..to).map(<[u64]>::to_vec).unwrap_or_default(),
        })
    }
}
