//! What a data set offers to training.

use crate::Result;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// What a view is for in methods with many crops (SwAV, DINO, VICRegL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewKind {
    /// It shows most of the sample: teachers embed it, codes and targets come from it.
    #[default]
    Global,
    /// It shows a small part: students embed it.
    Local,
}

/// Where a view was cut out of its image.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// The size of the image, width and height in pixels.
    pub image: (u32, u32),
    /// The first column of the box, in pixels of the image.
    pub x: u32,
    /// The first row of the box.
    pub y: u32,
    /// The width of the box.
    pub width: u32,
    /// The height of the box.
    pub height: u32,
    /// Whether the view is mirrored left to right.
    pub flip: bool,
    /// Whether it is mirrored top to bottom.
    pub vertical_flip: bool,
}

impl Cut {
    /// The point `(x, y)` of the image, in parts of its width and height, that is seen at the point `(u, v)` of
    /// the view, in parts of its width and height; both from the upper left corner.
    pub fn source_point(&self, u: f64, v: f64) -> (f64, f64) {
        let u = if self.flip { 1.0 - u } else { u };
        let v = if self.vertical_flip { 1.0 - v } else { v };
        let along = |start: u32, length: u32, at: f64, whole: u32| {
            (f64::from(start) + at * f64::from(length)) / f64::from(whole.max(1))
        };
        (along(self.x, self.width, u, self.image.0), along(self.y, self.height, v, self.image.1))
    }
}

/// One view of every sample of a batch.
#[derive(Clone, Debug)]
pub struct View {
    /// The inputs, for images `(B, C, H, W)`; views of a batch may differ in size.
    pub values: Tensor,
    /// What the view is for.
    pub kind: ViewKind,
    /// Where the view of each sample was cut, for losses that match places; `None` for what is no image.
    pub cuts: Option<Arc<[Cut]>>,
}

impl View {
    /// A global view.
    pub fn global(values: Tensor) -> Self {
        Self { values, kind: ViewKind::Global, cuts: None }
    }

    /// A local view.
    pub fn local(values: Tensor) -> Self {
        Self { values, kind: ViewKind::Local, cuts: None }
    }

    /// Whether it is a global one.
    pub fn is_global(&self) -> bool {
        self.kind == ViewKind::Global
    }
}

/// The views of one batch of samples.
#[derive(Clone, Debug)]
pub struct Batch {
    /// View `v` of every sample: the global ones first.
    pub views: Vec<View>,
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

    /// The same batch on a device.
    ///
    /// # Errors
    /// Memory that the device has not.
    pub fn to_device(mut self, device: &Device) -> Result<Self> {
        for view in &mut self.views {
            view.values = view.values.to_device(device)?;
        }
        Ok(self)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_a_view_are_found_in_its_image() {
        let cut =
            Cut { image: (40, 20), x: 10, y: 5, width: 20, height: 10, flip: false, vertical_flip: false };
        assert_eq!(cut.source_point(0.0, 0.0), (0.25, 0.25));
        assert_eq!(cut.source_point(1.0, 0.5), (0.75, 0.5));
        let flipped = Cut { flip: true, vertical_flip: true, ..cut };
        assert_eq!(flipped.source_point(0.0, 0.0), cut.source_point(1.0, 1.0));
    }
}
