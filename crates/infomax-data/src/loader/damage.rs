//! Samples that cannot be read while batches are made.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What happens when a sample cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damaged {
    /// The batch is an error that names the file.
    #[default]
    Stop,
    /// Another sample, drawn by the key, takes its place; the damaged one is counted and named. Above `most`
    /// different damaged samples the batch is an error, since then something else is wrong.
    Replace {
        /// The largest number of different damaged samples.
        most: usize,
    },
}

/// The samples that were found damaged, with the reason; a handle that may be kept and cloned.
#[derive(Clone, Debug, Default)]
pub struct DamagedSamples {
    found: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl DamagedSamples {
    /// The number of different samples.
    pub fn count(&self) -> usize {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Index and reason of each, the reason with the name of the file.
    pub fn list(&self) -> Vec<(usize, String)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().map(|(index, reason)| (*index, reason.clone())).collect()
    }

    pub(crate) fn add(&self, index: usize, place: &str, error: &Error, most: usize) -> Result<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let text = error.to_string();
        let text = if text.contains(place) { text } else { format!("{place}: {text}") };
        found.insert(index, text);
        if found.len() <= most {
            return Ok(());
        }
        let list: Vec<_> = found.values().take(5).cloned().collect();
        Err(Error::TooManyDamaged { count: found.len(), most, list: list.join("; ") })
    }
}
