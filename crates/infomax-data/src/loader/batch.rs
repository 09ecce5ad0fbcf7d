//! Makes the batch of a position.

use super::damage::{Damaged, DamagedSamples};
use super::order;
use crate::{Dataset, Error, Result};
use infomax_augment::{CropBox, ImageAugment, Scratch, ViewParams};
use infomax_core::{Cut, Key, Position};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A batch before it becomes tensors.
#[derive(Debug)]
pub(super) struct RawBatch {
    /// The samples of each view, one after the other; none where others compute them.
    pub(super) views: Vec<Vec<f32>>,
    pub(super) labels: Option<Vec<u32>>,
    pub(super) indices: Vec<u64>,
    /// What each view of each sample was drawn with.
    pub(super) params: Vec<Vec<ViewParams>>,
    /// Where each view of each sample was cut.
    pub(super) cuts: Vec<Vec<Cut>>,
}

/// The sample that was used, and what its views were drawn with, with the size of its image.
type Filled = (usize, Vec<ViewParams>, (usize, usize));

/// All that is needed to make any batch.
#[derive(Debug)]
pub(super) struct Maker {
    data: Arc<dyn Dataset>,
    augment: Arc<ImageAugment>,
    key: Key,
    batch: usize,
    rank: usize,
    ranks: usize,
    prefetch: usize,
    pool: rayon::ThreadPool,
    scratch: Vec<Mutex<Scratch>>,
    decode_ns: AtomicU64,
    augment_ns: AtomicU64,
    policy: Damaged,
    damaged: DamagedSamples,
    /// Width and height of all images, where the views are computed elsewhere.
    drawn_only: Option<(usize, usize)>,
}

impl Maker {
    pub(super) fn new(
        data: Arc<dyn Dataset>,
        augment: Arc<ImageAugment>,
        key: Key,
        batch: usize,
        (rank, ranks): (usize, usize),
        workers: usize,
        prefetch: usize,
        policy: Damaged,
    ) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|i| format!("loader-{i}"))
            .build()
            .map_err(|e| Error::config("workers", workers, format!("threads could not be started: {e}")))?;
        let scratch = (0..pool.current_num_threads()).map(|_| Mutex::default()).collect();
        let (decode_ns, augment_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        let damaged = DamagedSamples::default();
        Ok(Self {
            data,
            augment,
            key,
            batch,
            rank,
            ranks,
            prefetch,
            pool,
            scratch,
            decode_ns,
            augment_ns,
            policy,
            damaged,
            drawn_only: None,
        })
    }

    /// Draws views of images of this width and height, and leaves their computation to others.
    pub(super) fn only_draw(&mut self, extent: (usize, usize)) {
        self.drawn_only = Some(extent);
    }

    /// What was found damaged so far.
    pub(super) fn damaged(&self) -> &DamagedSamples {
        &self.damaged
    }

    pub(super) fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.data
    }

    pub(super) fn augment(&self) -> &ImageAugment {
        &*self.augment
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
    pub(super) fn order(&self, epoch: u64) -> Vec<u32> {
        let mut rng = self.key.fold_named("order").fold_in(epoch).rng();
        order::order(self.data.len(), self.data.blocks(), self.data.mixed_blocks(), &mut rng)
    }

    /// The batch at a position of an epoch with this order; `None` if `stop` was set meanwhile.
    pub(super) fn make(
        &self,
        order: &[u32],
        position: Position,
        stop: &AtomicBool,
    ) -> Result<Option<RawBatch>> {
        let start = (position.batch as usize * self.ranks + self.rank) * self.batch;
        let samples = &order[start..start + self.batch];
        let key = self.key.fold_named("augment").fold_in(position.epoch);
        if let Some(extent) = self.drawn_only {
            return self.draw(samples, key, extent).map(Some);
        }
        let lengths = (0..self.augment.views()).map(|v| Ok(self.augment.shape(v)?.iter().product()));
        let lengths: Vec<usize> = lengths.collect::<Result<_>>()?;
        let mut views: Vec<Vec<f32>> = lengths.iter().map(|n| vec![0.0; n * self.batch]).collect();

        // The places of all views of sample 0, then of sample 1, and so on: one task fills all views of a
        // sample, so that it is decoded once.
        let mut chunks: Vec<_> =
            views.iter_mut().zip(&lengths).map(|(view, n)| view.chunks_exact_mut(*n)).collect();
        let mut places: Vec<&mut [f32]> = Vec::with_capacity(self.batch * lengths.len());
        for _ in 0..self.batch {
            places.extend(chunks.iter_mut().filter_map(Iterator::next));
        }
        let filled: Vec<Option<Result<Filled>>> = self.pool.install(|| {
            places
                .par_chunks_mut(lengths.len())
                .zip(samples)
                .map(|(places, index)| {
                    let going = !stop.load(Ordering::Relaxed);
                    going.then(|| self.fill_or_replace(*index as usize, key, places))
                })
                .collect()
        });
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // Of several failures, the first one of the batch is told, at any number of threads.
        let mut indices = Vec::with_capacity(self.batch);
        let mut params = vec![Vec::with_capacity(self.batch); lengths.len()];
        let mut cuts = vec![Vec::with_capacity(self.batch); lengths.len()];
        for (filled, index) in filled.into_iter().flatten().zip(samples) {
            let (used, drawn, size) = filled.map_err(|source| Error::Sample {
                index: *index as usize,
                name: self.data.name(),
                source: Box::new(source),
            })?;
            indices.push(used);
            for ((params, cuts), drawn) in params.iter_mut().zip(&mut cuts).zip(drawn) {
                cuts.push(cut(&drawn, size));
                params.push(drawn);
            }
        }
        let labels = indices.iter().map(|i| self.data.label(*i)).collect();
        let indices = indices.into_iter().map(|i| i as u64).collect();
        Ok(Some(RawBatch { views, labels, indices, params, cuts }))
    }

    /// What the views of these samples are drawn with, as `fill` draws it.
    fn draw(&self, samples: &[u32], key: Key, extent: (usize, usize)) -> Result<RawBatch> {
        let start = Instant::now();
        let count = self.augment.views();
        let mut params = vec![Vec::with_capacity(samples.len()); count];
        let mut cuts = vec![Vec::with_capacity(samples.len()); count];
        for index in samples {
            let key = key.fold_in(u64::from(*index));
            for (v, (params, cuts)) in params.iter_mut().zip(&mut cuts).enumerate() {
                let drawn = self.augment.draw(v, extent, &mut key.fold_in(v as u64).rng())?;
                cuts.push(cut(&drawn, extent));
                params.push(drawn);
            }
        }
        let labels = samples.iter().map(|i| self.data.label(*i as usize)).collect();
        let indices = samples.iter().map(|i| u64::from(*i)).collect();
        self.augment_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(RawBatch { views: Vec::new(), labels, indices, params, cuts })
    }

    /// Makes the views of a sample, or of the one that takes its place, and returns which one that is.
    fn fill_or_replace(&self, index: usize, key: Key, places: &mut [&mut [f32]]) -> Result<Filled> {
        let error = match self.fill(index, key.fold_in(index as u64), places) {
            Ok((params, size)) => return Ok((index, params, size)),
            Err(error) => error,
        };
        let Damaged::Replace { most } = self.policy else { return Err(error) };
        // A wrong recipe is wrong for every sample; replacing would only hide it.
        if !matches!(error, Error::Decode { .. } | Error::Io { .. }) {
            return Err(error);
        }
        self.damaged.add(index, &self.data.place(index), &error, most)?;
        // Which sample stands in is a function of key and position, like everything else.
        let mut rng = key.fold_named("replace").fold_in(index as u64).rng();
        for _ in 0..TRIES {
            let other = order::below(self.data.len(), &mut rng);
            match self.fill(other, key.fold_in(other as u64), places) {
                Ok((params, size)) => return Ok((other, params, size)),
                Err(e @ (Error::Decode { .. } | Error::Io { .. })) => {
                    self.damaged.add(other, &self.data.place(other), &e, most)?;
                }
                Err(other) => return Err(other),
            }
        }
        Err(error)
    }

    /// Draws the parameters of all views first, so that only what they see is decoded.
    fn fill(
        &self,
        index: usize,
        key: Key,
        places: &mut [&mut [f32]],
    ) -> Result<(Vec<ViewParams>, (usize, usize))> {
        let start = Instant::now();
        let mut params: Vec<ViewParams> = Vec::with_capacity(places.len());
        let mut size = (0, 0);
        let part = self.data.image_part(index, &mut |width, height| {
            params.clear();
            size = (width, height);
            for v in 0..places.len() {
                params.push(self.augment.draw(v, size, &mut key.fold_in(v as u64).rng())?);
            }
            Ok(hull(&params))
        })?;
        let mut image = part.image;
        let channels = self.augment.shape(0)?.first().copied().unwrap_or(0);
        if image.channels() != channels {
            image = image.to_channels(channels)?;
        }
        let decoded = Instant::now();
        let worker = rayon::current_thread_index().unwrap_or(0) % self.scratch.len();
        let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
        for (v, (out, params)) in places.iter_mut().zip(&params).enumerate() {
            let mut inside = *params;
            inside.crop.x -= part.x;
            inside.crop.y -= part.y;
            self.augment.render(v, &image, &inside, &mut scratch, out)?;
        }
        self.decode_ns.fetch_add((decoded - start).as_nanos() as u64, Ordering::Relaxed);
        self.augment_ns.fetch_add(decoded.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok((params, size))
    }
}

/// How many samples are tried in place of a damaged one.
const TRIES: usize = 16;

/// Where a view was cut out of an image of this size.
fn cut(params: &ViewParams, (width, height): (usize, usize)) -> Cut {
    let pixels = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let CropBox { x, y, width: w, height: h } = params.crop;
    Cut {
        image: (pixels(width), pixels(height)),
        x: pixels(x),
        y: pixels(y),
        width: pixels(w),
        height: pixels(h),
        flip: params.flip,
        vertical_flip: params.vertical_flip,
    }
}

/// The least box that holds the crops of all views.
fn hull(params: &[ViewParams]) -> CropBox {
    let crops = params.iter().map(|p| p.crop);
    let joined = crops.reduce(|a, b| {
        let (x, y) = (a.x.min(b.x), a.y.min(b.y));
        let right = (a.x + a.width).max(b.x + b.width);
        let bottom = (a.y + a.height).max(b.y + b.height);
        CropBox { x, y, width: right - x, height: bottom - y }
    });
    joined.unwrap_or(CropBox { x: 0, y: 0, width: 1, height: 1 })
}
