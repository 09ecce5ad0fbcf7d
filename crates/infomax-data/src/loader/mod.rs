//! Shuffled, augmented batches, made in parallel ahead of their use.

mod batch;
mod damage;
mod order;
mod producer;
mod renderer;

pub use damage::{Damaged, DamagedSamples};
pub use renderer::Renderer;

use crate::{Dataset, Error, Result};
use batch::Maker;
use candle_core::{Device, Tensor};
use infomax_augment::{Augment, Image, ImageAugment, Scratch, ViewParams};
use infomax_core::{Batch, BatchSource, Key, Position, SourceStats, View, ViewKind};
use producer::Producer;
use std::sync::Arc;
use std::time::Instant;

/// How batches are made.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// The number of samples of a batch, in this process.
    pub batch: usize,
    /// The key of the order of samples and of the augmentations.
    pub key: Key,
    /// The number of threads that make batches; 0 takes one for each core.
    pub workers: usize,
    /// The number of finished batches that wait for their use, at least 1. Memory is bounded by this
    /// number plus two batches.
    pub prefetch: usize,
    /// Where the tensors live.
    pub device: Device,
    /// The number of this process in a data-parallel run.
    pub rank: usize,
    /// The number of processes; each gets its own part of every global batch.
    pub ranks: usize,
    /// What happens when a sample cannot be read.
    pub damaged: Damaged,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch: 256,
            key: Key::new(0),
            workers: 0,
            prefetch: 2,
            device: Device::Cpu,
            rank: 0,
            ranks: 1,
            damaged: Damaged::Stop,
        }
    }
}

/// A stream of augmented batches: `f32` tensors `(B, C, H, W)`, one for each view.
///
/// Every epoch visits the samples in an order of its own, seeded by the key, and drops what does not fill
/// a batch. View `v` of sample `i` in epoch `e` is drawn from
/// `key.fold_named("augment").fold_in(e).fold_in(i).fold_in(v)`, so it can be made again alone, and no
/// number of workers changes it.
///
/// An error of a sample ends the batch that needs it: it is returned by [`BatchSource::next_batch`], with
/// the name of the file, and the position stays at that batch. Under [`Damaged::Replace`] another sample takes
/// its place, and the damaged one is counted and named in [`Loader::damaged`].
///
/// Where a data set has [`Dataset::blocks`], an epoch visits them in random order and shuffles the samples of
/// a few of them at a time, so that shards are read nearly one after the other.
///
/// Of an image that is not kept in memory, only the part that some view sees is decoded, where the data set
/// can ([`Dataset::image_part`]); the views are the same, bit for bit.
#[derive(Debug)]
pub struct Loader {
    maker: Arc<Maker>,
    renderer: Option<Arc<dyn Renderer>>,
    device: Device,
    position: Position,
    producer: Option<Producer>,
    samples: u64,
    wait_s: f64,
    params: Vec<Vec<ViewParams>>,
}

impl Loader {
    /// A loader at the start of the first epoch. Threads start with the first batch.
    ///
    /// # Errors
    /// A batch of 0 or larger than the data set, a rank that is not below the number of ranks.
    pub fn new<A>(data: Arc<dyn Dataset>, augment: A, config: LoaderConfig) -> Result<Self>
    where
        A: Augment<Sample = Image, Extent = (usize, usize), Params = ViewParams, Scratch = Scratch> + 'static,
    {
        Self::with_augment(data, Arc::new(augment), config)
    }

    /// [`Loader::new`] with an augmentation that is chosen at run time.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn with_augment(
        data: Arc<dyn Dataset>,
        augment: Arc<ImageAugment>,
        config: LoaderConfig,
    ) -> Result<Self> {
        let LoaderConfig { batch, key, workers, prefetch, device, rank, ranks, damaged } = config;
        if batch == 0 {
            return Err(Error::config("batch", 0, "a batch has at least one sample"));
        }
        if ranks == 0 || rank >= ranks {
            return Err(Error::config("rank", rank, format!("a rank lies in 0..{ranks}")));
        }
        if u32::try_from(data.len()).is_err() {
            return Err(Error::config("data", data.len(), "a data set has at most 2^32 - 1 samples"));
        }
        if batch.checked_mul(ranks).is_none_or(|all| all > data.len()) {
            let (len, name) = (data.len(), data.name());
            return Err(Error::BatchTooLarge { batch, ranks, len, most: len / ranks, name });
        }
        let maker = Maker::new(data, augment, key, batch, (rank, ranks), workers, prefetch.max(1), damaged)?;
        let position = Position::default();
        let maker = Arc::new(maker);
        let params = Vec::new();
        Ok(Self { maker, renderer: None, device, position, producer: None, samples: 0, wait_s: 0.0, params })
    }

    /// The same loader with its views computed by `renderer`: its threads draw, and read no image. Nothing is found damaged
    /// then, as the renderer read all images before.
    ///
    /// # Errors
    /// A loader that has begun.
    pub fn with_renderer(mut self, renderer: Arc<dyn Renderer>) -> Result<Self> {
        let Some(maker) = Arc::get_mut(&mut self.maker) else {
            let reason = "views are computed elsewhere from the first batch on, and this loader has begun";
            return Err(Error::config("renderer", format!("{renderer:?}"), reason));
        };
        maker.only_draw(renderer.extent());
        self.renderer = Some(renderer);
        Ok(self)
    }

    /// What computes the views in place of the loader's threads, if it was given.
    pub fn renderer(&self) -> Option<&dyn Renderer> {
        self.renderer.as_deref()
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        self.maker.dataset()
    }

    /// The augmentation.
    pub fn augment(&self) -> &ImageAugment {
        self.maker.augment()
    }

    /// What was found damaged and replaced so far; the handle stays connected to this loader.
    pub fn damaged(&self) -> DamagedSamples {
        self.maker.damaged().clone()
    }

    /// What the views of the last batch were drawn with: `view_params()[v][i]` for view `v` of sample `i` of the
    /// batch, with the crop in pixels of the whole image. Empty before the first batch. (Where each view was cut
    /// is in the batch itself, [`View::cuts`].)
    pub fn view_params(&self) -> &[Vec<ViewParams>] {
        &self.params
    }

    fn receive(&mut self) -> Result<Batch> {
        let start = Instant::now();
        let producer = match self.producer.take() {
            Some(producer) => self.producer.insert(producer),
            None => self.producer.insert(Producer::start(Arc::clone(&self.maker), self.position)?),
        };
        let received = producer.next();
        self.wait_s += start.elapsed().as_secs_f64();
        let raw = match received {
            Ok(raw) => raw,
            Err(error) => {
                // The next call tries this batch again.
                self.producer = None;
                return Err(error);
            }
        };
        let mut data = raw.views.into_iter();
        let mut views = Vec::with_capacity(raw.cuts.len());
        for (v, (cuts, params)) in raw.cuts.iter().zip(&raw.params).enumerate() {
            let kind = if self.maker.augment().is_local(v) { ViewKind::Local } else { ViewKind::Global };
            let values = match &self.renderer {
                Some(renderer) => renderer.render(v, &raw.indices, params)?,
                None => {
                    let mut shape = self.maker.augment().shape(v)?;
                    shape.insert(0, raw.indices.len());
                    Tensor::from_vec(data.next().unwrap_or_default(), shape, &self.device)?
                }
            };
            views.push(View { values, kind, cuts: Some(cuts.as_slice().into()) });
        }
        self.params = raw.params;
        Ok(Batch { views, labels: raw.labels, indices: raw.indices })
    }
}

impl BatchSource for Loader {
    fn batches_per_epoch(&self) -> u64 {
        self.maker.batches_per_epoch()
    }

    fn samples_per_epoch(&self) -> u64 {
        self.maker.batches_per_epoch() * self.maker.batch_size() as u64
    }

    fn seek(&mut self, position: Position) -> infomax_core::Result<()> {
        let batches = self.batches_per_epoch();
        if position.batch >= batches {
            let reason =
                format!("an epoch has {batches} batches; was the run saved with another batch size?");
            return Err(infomax_core::Error::config("position.batch", position.batch, reason));
        }
        if position != self.position {
            self.producer = None;
            self.position = position;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> infomax_core::Result<Batch> {
        let batch = self.receive()?;
        self.samples += batch.indices.len() as u64;
        self.position = self.maker.after(self.position);
        Ok(batch)
    }

    fn position(&self) -> Position {
        self.position
    }

    fn stats(&self) -> SourceStats {
        let (decode_s, augment_s) = self.maker.seconds();
        SourceStats { samples: self.samples, decode_s, augment_s, wait_s: self.wait_s }
    }
}
