//! Decoded images, kept within a limit of memory.

use crate::Result;
use infomax_augment::Image;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps the first images that are asked for, until the limit is reached; the others are made anew every
/// time. What is returned never depends on what is kept.
#[derive(Debug)]
pub(crate) struct ImageCache {
    slots: Vec<OnceLock<Image>>,
    left: AtomicUsize,
}

impl ImageCache {
    /// A cache of `len` images and at most `limit` bytes of pixels.
    pub(crate) fn new(len: usize, limit: usize) -> Self {
        let slots = if limit == 0 { Vec::new() } else { (0..len).map(|_| OnceLock::new()).collect() };
        Self { slots, left: AtomicUsize::new(limit) }
    }

    pub(crate) fn get_or_make(&self, index: usize, make: impl FnOnce() -> Result<Image>) -> Result<Image> {
        if let Some(image) = self.slots.get(index).and_then(OnceLock::get) {
            return Ok(image.clone());
        }
        let image = make()?;
        self.keep(index, &image);
        Ok(image)
    }

    /// The cache of the images whose index is kept, renumbered in order.
    pub(crate) fn retain(self, keep: impl Fn(usize) -> bool) -> Self {
        let slots =
            self.slots.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, slot)| slot).collect();
        Self { slots, left: self.left }
    }

    fn keep(&self, index: usize, image: &Image) {
        let bytes = image.data().len();
        let taken =
            self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if let (Ok(_), Some(slot)) = (taken, self.slots.get(index))
            && slot.set(image.clone()).is_err()
        {
            // Another thread was faster: give the bytes back.
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
