//! The trait of all data sets, and choices from one.

use crate::{Error, Result};
use infomax_augment::Image;
use infomax_core::Key;
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Images by index. Implementations are shared by threads, and the same index always gives the same image.
pub trait Dataset: Send + Sync + Debug {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image of a sample.
    ///
    /// # Errors
    /// An index beyond the end, or a file that cannot be read; the error names it.
    fn image(&self, index: usize) -> Result<Image>;

    /// The class of a sample, where it is known.
    fn label(&self, index: usize) -> Option<u32>;

    /// The names of the classes, by label; empty without labels.
    fn classes(&self) -> &[String];

    /// A short name for messages, for example the path of a folder.
    fn name(&self) -> String;

    /// One line on what this is: counts, classes, sizes.
    fn describe(&self) -> String {
        format!("{}: {} samples, {} classes", self.name(), self.len(), self.classes().len())
    }
}

pub(crate) fn index_error(data: &dyn Dataset, index: usize) -> Error {
    Error::Index { index, len: data.len(), name: data.name() }
}

/// Some samples of another data set.
#[derive(Clone, Debug)]
pub struct Subset {
    inner: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples of these indices, in this order.
    ///
    /// # Errors
    /// An index beyond the end of the data set.
    pub fn new(inner: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        match indices.iter().find(|i| **i >= inner.len()) {
            Some(i) => Err(index_error(&*inner, *i)),
            None => Ok(Self { inner, indices }),
        }
    }

    /// A random choice of `count` samples with the same number of each class, as far as the classes have
    /// as many, in ascending order. Without labels the choice is uniform.
    ///
    /// # Errors
    /// A count of 0 or above the size of the data set.
    pub fn balanced(inner: Arc<dyn Dataset>, count: usize, key: Key) -> Result<Self> {
        if count == 0 || count > inner.len() {
            return Err(Error::config(
                "count",
                count,
                format!("{} has {} samples; choose 1 to {0}", inner.name(), inner.len())
                    .replace("{0}", &inner.len().to_string()),
            ));
        }
        let mut classes: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
        for i in 0..inner.len() {
            classes.entry(inner.label(i)).or_default().push(i);
        }
        let mut rng = key.fold_named("subset").rng();
        for members in classes.values_mut() {
            shuffle(members, &mut rng);
        }
        // One of each class in turn, until there are enough.
        let mut indices = Vec::with_capacity(count);
        let deepest = classes.values().map(Vec::len).max().unwrap_or(0);
        'all: for depth in 0..deepest {
            for members in classes.values() {
                if let Some(i) = members.get(depth) {
                    indices.push(*i);
                    if indices.len() == count {
                        break 'all;
                    }
                }
            }
        }
        indices.sort_unstable();
        Self::new(inner, indices)
    }

    /// The index in the whole data set of every sample.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

/// Fisher and Yates' shuffle.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl rand::Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.random_range(0..=i as u64) as usize);
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.inner.image(*self.indices.get(index).ok_or_else(|| index_error(self, index))?)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.inner.label(*self.indices.get(index)?)
    }

    fn classes(&self) -> &[String] {
        self.inner.classes()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.len(), self.inner.describe())
    }
}
