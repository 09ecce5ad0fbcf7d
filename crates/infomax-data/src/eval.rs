//! Every image of a data set once, in order, without randomness.

use crate::{Damaged, DamagedSamples, Dataset, Error, Result};
use candle_core::{Device, Tensor};
use infomax_augment::{EvalTransform, Scratch};
use rayon::prelude::*;
use std::sync::Arc;

/// Images `(B, C, H, W)` and their labels.
pub type EvalBatch = (Tensor, Vec<Option<u32>>);

/// Goes through a data set in order, in batches; the last batch may be smaller. Images are made in
/// parallel, one batch at a time.
#[derive(Debug)]
pub struct EvalLoader {
    data: Arc<dyn Dataset>,
    transform: EvalTransform,
    batch: usize,
    device: Device,
    at: usize,
    policy: Damaged,
    damaged: DamagedSamples,
}

impl EvalLoader {
    /// A pass over a data set.
    ///
    /// # Errors
    /// A batch of 0.
    pub fn new(
        data: Arc<dyn Dataset>,
        transform: EvalTransform,
        batch: usize,
        device: &Device,
    ) -> Result<Self> {
        if batch == 0 {
            return Err(Error::config("batch", 0, "a batch has at least one sample"));
        }
        let (policy, damaged) = (Damaged::Stop, DamagedSamples::default());
        Ok(Self { data, transform, batch, device: device.clone(), at: 0, policy, damaged })
    }

    /// What happens when a sample cannot be read. There is no stand-in here: under [`Damaged::Replace`] the
    /// sample is left out, counted and named in [`EvalLoader::damaged`].
    pub fn with_damaged(mut self, policy: Damaged) -> Self {
        self.policy = policy;
        self
    }

    /// What was left out so far; the handle stays connected to this pass.
    pub fn damaged(&self) -> DamagedSamples {
        self.damaged.clone()
    }

    fn make(&self, from: usize, to: usize) -> Result<EvalBatch> {
        let (c, h, w) = self.transform.output();
        let mut pixels = vec![0f32; (to - from) * c * h * w];
        let failures: Vec<(usize, Error)> = pixels
            .par_chunks_exact_mut(c * h * w)
            .enumerate()
            .map_init(Scratch::default, |scratch, (i, out)| {
                let index = from + i;
                self.fill(index, scratch, out).err().map(|e| (index, e))
            })
            .flatten_iter()
            .collect();
        let mut left_out = Vec::new();
        for (index, source) in failures {
            match (self.policy, &source) {
                (Damaged::Replace { most }, Error::Decode { .. } | Error::Io { .. }) => {
                    self.damaged.add(index, &self.data.place(index), &source, most)?;
                    left_out.push(index);
                }
                _ => return Err(Error::Sample { index, name: self.data.name(), source: Box::new(source) }),
            }
        }
        let kept: Vec<usize> = (from..to).filter(|i| !left_out.contains(i)).collect();
        let n = c * h * w;
        for (row, index) in kept.iter().enumerate() {
            let start = (index - from) * n;
            pixels.copy_within(start..start + n, row * n);
        }
        pixels.truncate(kept.len() * n);
        let labels = kept.iter().map(|i| self.data.label(*i)).collect();
        Ok((Tensor::from_vec(pixels, (kept.len(), c, h, w), &self.device)?, labels))
    }

    fn fill(&self, index: usize, scratch: &mut Scratch, out: &mut [f32]) -> Result<()> {
        let channels = self.transform.output().0;
        let image = self.data.image(index)?;
        let image = if image.channels() == channels { image } else { image.to_channels(channels)? };
        Ok(self.transform.apply(&image, scratch, out)?)
    }
}

impl Iterator for EvalLoader {
    type Item = Result<EvalBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let from = self.at;
            if from >= self.data.len() {
                return None;
            }
            let to = from.saturating_add(self.batch).min(self.data.len());
            let made = self.make(from, to);
            // After an error there is nothing more: a caller that goes on would silently lose samples.
            self.at = if made.is_ok() { to } else { self.data.len() };
            if !matches!(&made, Ok((_, labels)) if labels.is_empty()) {
                return Some(made);
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.data.len() - self.at).div_ceil(self.batch);
        (0, Some(left))
    }
}

/// A whole data set as one tensor `(N, C, H, W)` on the CPU, with its labels.
///
/// # Errors
/// An image that cannot be read, an empty data set.
pub fn eval_tensors(data: Arc<dyn Dataset>, transform: &EvalTransform) -> Result<EvalBatch> {
    let all = data.len();
    let name = data.name();
    let mut loader = EvalLoader::new(data, transform.clone(), all.max(1), &Device::Cpu)?;
    loader.next().unwrap_or_else(|| Err(Error::config("data", name, "the data set is empty")))
}
