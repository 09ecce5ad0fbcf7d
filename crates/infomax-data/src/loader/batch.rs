//! Makes the batch of a position.

use crate::dataset::shuffle;
use crate::{Dataset, Error, Result};
use infomax_augment::{Augmenter, Scratch};
use infomax_core::{Key, Position};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A batch before it becomes tensors.
#[derive(Debug)]
pub(super) struct RawBatch {
    /// The samples of each view, one after the other.
    pub(super) views: Vec<Vec<f32>>,
    pub(super) labels: Option<Vec<u32>>,
    pub(super) indices: Vec<u64>,
}

/// All that is needed to make any batch.
#[derive(Debug)]
pub(super) struct Maker {
    data: Arc<dyn Dataset>,
    augmenter: Augmenter,
    key: Key,
    batch: usize,
    rank: usize,
    ranks: usize,
    prefetch: usize,
    pool: rayon::ThreadPool,
    scratch: Vec<Mutex<Scratch>>,
    decode_ns: AtomicU64,
    augment_ns: AtomicU64,
}

impl Maker {
    pub(super) fn new(
        data: Arc<dyn Dataset>,
        augmenter: Augmenter,
        key: Key,
        batch: usize,
        (rank, ranks): (usize, usize),
        workers: usize,
        prefetch: usize,
    ) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|i| format!("loader-{i}"))
            .build()
            .map_err(|e| Error::config("workers", workers, format!("threads could not be started: {e}")))?;
        let scratch = (0..pool.current_num_threads()).map(|_| Mutex::default()).collect();
        let (decode_ns, augment_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { data, augmenter, key, batch, rank, ranks, prefetch, pool, scratch, decode_ns, augment_ns })
    }

    pub(super) fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.data
    }

    pub(super) fn augmenter(&self) -> &Augmenter {
        &self.augmenter
    }

    pub(super) fn batch_size(&self) -> usize {
        self.batch
    }

    pub(super) fn prefetch(&self) -> usize {
        self.prefetch
    }

    pub(super) fn batches_per_epoch(&self) -> u64 {
        (self.data.len() / (self.batch * self.ranks)) as u64
    }

    /// The position behind another one.
    pub(super) fn after(&self, Position { epoch, batch }: Position) -> Position {
        if batch + 1 < self.batches_per_epoch() {
            Position { epoch, batch: batch + 1 }
        } else {
            Position { epoch: epoch + 1, batch: 0 }
        }
    }

    /// Seconds of all threads spent on decoding and on augmentation.
    pub(super) fn seconds(&self) -> (f64, f64) {
        let s = |ns: &AtomicU64| ns.load(Ordering::Relaxed) as f64 * 1e-9;
        (s(&self.decode_ns), s(&self.augment_ns))
    }

    /// The order of an epoch.
    pub(super) fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.data.len()).collect();
        shuffle(&mut order, &mut self.key.fold_named("order").fold_in(epoch).rng());
        order
    }

    /// The batch at a position of an epoch with this order; `None` if `stop` was set meanwhile.
    pub(super) fn make(
        &self,
        order: &[usize],
        position: Position,
        stop: &AtomicBool,
    ) -> Result<Option<RawBatch>> {
        let start = (position.batch as usize * self.ranks + self.rank) * self.batch;
        let samples = &order[start..start + self.batch];
        let key = self.key.fold_named("augment").fold_in(position.epoch);
        let lengths: Vec<usize> = (0..self.augmenter.views())
            .map(|v| {
                let (c, h, w) = self.augmenter.output(v);
                c * h * w
            })
            .collect();
        let mut views: Vec<Vec<f32>> = lengths.iter().map(|n| vec![0.0; n * self.batch]).collect();

        // The places of all views of sample 0, then of sample 1, and so on: one task fills all views of a
        // sample, so that it is decoded once.
        let mut chunks: Vec<_> =
            views.iter_mut().zip(&lengths).map(|(view, n)| view.chunks_exact_mut(*n)).collect();
        let mut places: Vec<&mut [f32]> = Vec::with_capacity(self.batch * lengths.len());
        for _ in 0..self.batch {
            places.extend(chunks.iter_mut().filter_map(Iterator::next));
        }
        let failures: Vec<(usize, Error)> = self.pool.install(|| {
            places
                .par_chunks_mut(lengths.len())
                .zip(samples)
                .enumerate()
                .filter_map(|(at, (places, index))| {
                    if stop.load(Ordering::Relaxed) {
                        return None;
                    }
                    self.fill(*index, key.fold_in(*index as u64), places).err().map(|e| (at, e))
                })
                .collect()
        });
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // Of several failures, the same one is told at any number of threads.
        if let Some((at, source)) = failures.into_iter().min_by_key(|(at, _)| *at) {
            return Err(Error::Sample {
                index: samples[at],
                name: self.data.name(),
                source: Box::new(source),
            });
        }
        let labels = samples.iter().map(|i| self.data.label(*i)).collect();
        let indices = samples.iter().map(|i| *i as u64).collect();
        Ok(Some(RawBatch { views, labels, indices }))
    }

    fn fill(&self, index: usize, key: Key, places: &mut [&mut [f32]]) -> Result<()> {
        let start = Instant::now();
        let mut image = self.data.image(index)?;
        if image.channels() != self.augmenter.channels() {
            image = image.to_channels(self.augmenter.channels())?;
        }
        let decoded = Instant::now();
        let worker = rayon::current_thread_index().unwrap_or(0) % self.scratch.len();
        let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
        for (v, out) in places.iter_mut().enumerate() {
            self.augmenter.apply(v, &image, &mut key.fold_in(v as u64).rng(), &mut scratch, out)?;
        }
        self.decode_ns.fetch_add((decoded - start).as_nanos() as u64, Ordering::Relaxed);
        self.augment_ns.fetch_add(decoded.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}
