//! Large buffers, kept between calls: fresh pages cost more than what is computed in them.

use infomax_simd::{Stored, line_room, lined};
use std::sync::PoisonError;

/// Buffers kept for the next user.
const KEPT: usize = 6;

/// A buffer of values of any kind, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pooled<T: Stored> {
    values: Vec<T>,
    len: usize,
}

impl<T: Stored> Pooled<T> {
    /// `len` elements, with any contents, from a line of the cache on.
    pub(super) fn take(len: usize) -> Self {
        let room = len + line_room::<T>();
        let mut spare = T::spare().lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest one that is large enough, else the largest one.
        let best = (0..spare.len()).min_by_key(|i| {
            let have = spare[*i].len();
            if have >= room { (0, have) } else { (1, usize::MAX - have) }
        });
        let mut values = best.map(|i| spare.swap_remove(i)).unwrap_or_default();
        drop(spare);
        if values.len() < room {
            // What is there need not be copied.
            values = Vec::new();
            values.resize(room, T::default());
        }
        Self { values, len }
    }

    pub(super) fn slice(&mut self) -> &mut [T] {
        lined(&mut self.values, self.len)
    }
}

impl<T: Stored> Drop for Pooled<T> {
    fn drop(&mut self) {
        let mut spare = T::spare().lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(std::mem::take(&mut self.values));
        if spare.len() > KEPT {
            let smallest = (0..spare.len()).min_by_key(|i| spare[*i].len());
            if let Some(i) = smallest {
                spare.swap_remove(i);
            }
        }
    }
}
