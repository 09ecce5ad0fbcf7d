//! Decoded images, kept within a limit of memory.

use crate::Result;
use infomax_augment::Image;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps the first images that are asked for, until the limit is reached; the others are made anew every
/// time. What is returned never depends on what is kept.
#[derive(Debug)]
pub(crate) struct ImageCache {
    slots: Vec<OnceLock<Box<Image>>>,
    left: AtomicUsize,
}

impl ImageCache {
    /// A cache of `len` images and at most `limit` bytes of pixels.
    pub(crate) fn new(len: usize, limit: usize) -> Self {
        let slots = if limit == 0 { Vec::new() } else { (0..len).map(|_| OnceLock::new()).collect() };
        Self { slots, left: AtomicUsize::new(limit) }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Image> {
        self.slots.get(index).and_then(OnceLock::get).map(|image| &**image)
    }

    /// Whether an image of this many bytes would be kept.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        !self.slots.is_empty() && self.left.load(Ordering::Relaxed) >= bytes
    }

    /// Keeps a copy if there is room.
    pub(crate) fn keep(&self, index: usize, image: &Image) {
        let bytes = image.data().len();
        let Some(slot) = self.slots.get(index) else { return };
        let taken =
            self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_ok() && slot.set(Box::new(image.clone())).is_err() {
            // Another thread was faster: give the bytes back.
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The image that is kept, or a new one.
    pub(crate) fn get_or_make(&self, index: usize, make: impl FnOnce() -> Result<Image>) -> Result<Image> {
        if let Some(image) = self.get(index) {
            return Ok(image.clone());
        }
        let image = make()?;
        self.keep(index, &image);
        Ok(image)
    }

    /// The cache of the images whose index is kept, renumbered in order.
    pub(crate) fn retain(self, keep: &[bool]) -> Self {
        let slots =
            self.slots.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(slot, _)| slot).collect();
        Self { slots, left: self.left }
    }
}
