//! Batches whose way to the device begins a step before they are used.

use candle_core::Device;
#[cfg(any(feature = "cuda", test))]
use infomax_core::{Batch, Position, SourceStats};
use infomax_core::{BatchSource, Result};
use infomax_data::Loader;
#[cfg(any(feature = "cuda", test))]
use std::fmt::Debug;

/// The batches of a loader for training on a device: on a card, views of the host are copied through pinned memory, a
/// batch ahead of their use.
pub(crate) fn source(loader: Loader, device: &Device) -> Result<Box<dyn BatchSource>> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() && loader.renderer().is_none() {
        return Ok(Box::new(Ahead::new(loader, Pinned::new(device)?)));
    }
    let _ = device;
    Ok(Box::new(loader))
}

/// The way of a batch to a device in two halves.
#[cfg(any(feature = "cuda", test))]
trait Way: Debug + Send {
    type Begun: Debug + Send;

    /// Begins, and returns at once.
    fn begin(&mut self, batch: Batch) -> Result<Self::Begun>;

    /// The batch on the device.
    fn finish(&mut self, begun: Self::Begun) -> Result<Batch>;
}

/// A source that asks for each batch one step early, and lets its way to the device begin then.
///
/// It delivers what the source within delivers, in its order, and an error where it stands in it.
#[cfg(any(feature = "cuda", test))]
#[derive(Debug)]
struct Ahead<S, W: Way> {
    // Before the way, so that it is dropped first.
    waiting: Option<Waiting<W::Begun>>,
    inner: S,
    way: W,
}

#[cfg(any(feature = "cuda", test))]
#[derive(Debug)]
struct Waiting<B> {
    position: Position,
    begun: Result<B>,
    samples: u64,
}

#[cfg(any(feature = "cuda", test))]
impl<S: BatchSource, W: Way> Ahead<S, W> {
    fn new(inner: S, way: W) -> Self {
        Self { waiting: None, inner, way }
    }

    fn ask(&mut self) -> Waiting<W::Begun> {
        let position = self.inner.position();
        let batch = self.inner.next_batch();
        let samples = batch.as_ref().map_or(0, |batch| batch.indices.len() as u64);
        Waiting { position, begun: batch.and_then(|batch| self.way.begin(batch)), samples }
    }
}

#[cfg(any(feature = "cuda", test))]
impl<S: BatchSource, W: Way> BatchSource for Ahead<S, W> {
    fn batches_per_epoch(&self) -> u64 {
        self.inner.batches_per_epoch()
    }

    fn samples_per_epoch(&self) -> u64 {
        self.inner.samples_per_epoch()
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        if position != self.position() {
            self.inner.seek(position)?;
            self.waiting = None;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Batch> {
        let Waiting { position, begun, .. } = match self.waiting.take() {
            Some(waiting) => waiting,
            None => self.ask(),
        };
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // The next call tries this batch again.
                self.inner.seek(position)?;
                return Err(error);
            }
        };
        self.waiting = Some(self.ask());
        self.way.finish(begun)
    }

    fn position(&self) -> Position {
        self.waiting.as_ref().map_or_else(|| self.inner.position(), |waiting| waiting.position)
    }

    fn stats(&self) -> SourceStats {
        let stats = self.inner.stats();
        let early = self.waiting.as_ref().map_or(0, |waiting| waiting.samples);
        SourceStats { samples: stats.samples.saturating_sub(early), ..stats }
    }
}

#[cfg(feature = "cuda")]
use pinned::Pinned;

#[cfg(feature = "cuda")]
mod pinned {
    use super::{Batch, Result, Way};
    use candle_core::{DType, Device, Tensor};
    use infomax_kernels::cuda::{Upload, Uploader};

    /// Through pinned memory, on a stream of its own.
    #[derive(Debug)]
    pub(super) struct Pinned {
        uploader: Uploader,
    }

    impl Pinned {
        pub(super) fn new(device: &Device) -> Result<Self> {
            Ok(Self { uploader: Uploader::new(device).map_err(candle_core::Error::from)? })
        }
    }

    impl Way for Pinned {
        /// The batch with its values on the host, and the copy of them.
        type Begun = (Batch, Upload);

        fn begin(&mut self, mut batch: Batch) -> Result<Self::Begun> {
            for view in &mut batch.views {
                view.values = view.values.to_dtype(DType::F32)?.contiguous()?;
            }
            let values: Vec<Tensor> = batch.views.iter().map(|view| view.values.clone()).collect();
            let upload = self.uploader.begin(&values).map_err(candle_core::Error::from)?;
            Ok((batch, upload))
        }

        fn finish(&mut self, (mut batch, upload): Self::Begun) -> Result<Batch> {
            let there = upload.finish().map_err(candle_core::Error::from)?;
            for (view, values) in batch.views.iter_mut().zip(there) {
                view.values = values;
            }
            Ok(batch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use infomax_core::{Error, View};
    use std::sync::{Arc, Mutex};

    /// Batches whose only value is their number; one of them fails twice.
    #[derive(Debug)]
    struct Numbers {
        at: Position,
        failures: u32,
        samples: u64,
    }

    impl BatchSource for Numbers {
        fn batches_per_epoch(&self) -> u64 {
            4
        }
        fn samples_per_epoch(&self) -> u64 {
            8
        }
        fn seek(&mut self, position: Position) -> Result<()> {
            self.at = position;
            Ok(())
        }
        fn next_batch(&mut self) -> Result<Batch> {
            let number = self.at.epoch * 4 + self.at.batch;
            if number == 5 && self.failures > 0 {
                self.failures -= 1;
                return Err(Error::config("batch", number, "it fails"));
            }
            self.at = match self.at.batch {
                3 => Position { epoch: self.at.epoch + 1, batch: 0 },
                batch => Position { batch: batch + 1, ..self.at },
            };
            self.samples += 2;
            let values = Tensor::new(&[number as f32], &Device::Cpu)?;
            Ok(Batch { views: vec![View::global(values)], labels: None, indices: vec![number; 2] })
        }
        fn position(&self) -> Position {
            self.at
        }
        fn stats(&self) -> SourceStats {
            SourceStats { samples: self.samples, ..SourceStats::default() }
        }
    }

    /// Writes down what begins and ends.
    #[derive(Debug)]
    struct Noted(Arc<Mutex<Vec<String>>>);

    impl Way for Noted {
        type Begun = Batch;
        fn begin(&mut self, batch: Batch) -> Result<Batch> {
            self.0.lock().unwrap().push(format!("+{}", batch.indices[0]));
            Ok(batch)
        }
        fn finish(&mut self, batch: Batch) -> Result<Batch> {
            self.0.lock().unwrap().push(format!("-{}", batch.indices[0]));
            Ok(batch)
        }
    }

    fn source(failures: u32) -> (Ahead<Numbers, Noted>, Arc<Mutex<Vec<String>>>) {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let inner = Numbers { at: Position::default(), failures, samples: 0 };
        (Ahead::new(inner, Noted(Arc::clone(&notes))), notes)
    }

    #[test]
    fn each_way_begins_a_batch_early_and_nothing_else_changes() {
        let (mut ahead, notes) = source(0);
        let mut plain = Numbers { at: Position::default(), failures: 0, samples: 0 };
        for _ in 0..10 {
            assert_eq!(ahead.position(), plain.position());
            let (a, b) = (ahead.next_batch().unwrap(), plain.next_batch().unwrap());
            assert_eq!(a.indices, b.indices);
            assert_eq!(ahead.stats().samples, plain.stats().samples);
        }
        assert_eq!(notes.lock().unwrap()[..5], ["+0", "+1", "-0", "+2", "-1"]);
    }

    #[test]
    fn a_seek_forgets_what_had_begun_and_an_error_stands_where_it_belongs() {
        let (mut ahead, notes) = source(0);
        ahead.next_batch().unwrap();
        // Where it is already: nothing begins again.
        ahead.seek(Position { epoch: 0, batch: 1 }).unwrap();
        assert_eq!(ahead.next_batch().unwrap().indices[0], 1);
        ahead.seek(Position { epoch: 2, batch: 3 }).unwrap();
        assert_eq!(ahead.position(), Position { epoch: 2, batch: 3 });
        assert_eq!(ahead.next_batch().unwrap().indices[0], 11);
        assert_eq!(notes.lock().unwrap().iter().filter(|note| *note == "+1").count(), 1);

        let (mut ahead, _) = source(2);
        let failing = Position { epoch: 1, batch: 1 };
        for number in 0..5 {
            assert_eq!(ahead.next_batch().unwrap().indices[0], number);
        }
        for _ in 0..2 {
            assert_eq!(ahead.position(), failing);
            assert!(ahead.next_batch().unwrap_err().to_string().contains("it fails"));
        }
        assert_eq!(ahead.next_batch().unwrap().indices[0], 5);
        assert_eq!(ahead.position(), Position { epoch: 1, batch: 2 });
    }
}
