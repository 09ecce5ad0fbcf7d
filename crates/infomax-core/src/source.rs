//! What a data set offers to training.

use crate::Result;
use candle_core::Tensor;

/// The views of one batch of samples.
#[derive(Clone, Debug)]
pub struct Batch {
    /// View `v` of every sample, for images `(B, C, H, W)`; views may differ in size (multi-crop).
    pub views: Vec<Tensor>,
    /// The class of every sample, where it is known. Training without labels never reads it.
    pub labels: Option<Vec<u32>>,
    /// The index of every sample in its data set.
    pub indices: Vec<u64>,
}

impl Batch {
    /// The number of samples.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.indices.len()
    }
}

/// Where in the stream of batches a run is: the next batch to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch within the epoch, from 0.
    pub batch: u64,
}

/// Counters of a source since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SourceStats {
    /// Samples delivered.
    pub samples: u64,
    /// Seconds of worker time spent on reading and decoding, over all threads.
    pub decode_s: f64,
    /// Seconds of worker time spent on augmentation, over all threads.
    pub augment_s: f64,
    /// Seconds the consumer waited for a batch.
    pub wait_s: f64,
}

/// A stream of batches that can be entered at any position: the batch at a position depends on the
/// position alone, so a resumed run sees what the uninterrupted one would have seen.
pub trait BatchSource: std::fmt::Debug + Send {
    /// The number of batches in an epoch.
    fn batches_per_epoch(&self) -> u64;

    /// The number of samples in an epoch that are delivered (the rest of the last batch is dropped).
    fn samples_per_epoch(&self) -> u64;

    /// Continues at `position`.
    fn seek(&mut self, position: Position) -> Result<()>;

    /// The next batch; after the last one of an epoch comes the first one of the next.
    fn next_batch(&mut self) -> Result<Batch>;

    /// The position of the batch that [`BatchSource::next_batch`] will return.
    fn position(&self) -> Position;

    /// Throughput counters.
    fn stats(&self) -> SourceStats {
        SourceStats::default()
    }
}
