//! The trait of all data sets, and choices from one.

use crate::options::Skipped;
use crate::{Error, Result};
use infomax_augment::{CropBox, Image};
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

    /// A part of an image, large enough for the box that `choose` returns for the size `(width, height)` of
    /// the whole. `choose` is called exactly once, unless the image cannot be read.
    ///
    /// Sources that can decode a part do; the default reads the whole image.
    ///
    /// # Errors
    /// As [`Dataset::image`], and those of `choose`.
    fn image_part(
        &self,
        index: usize,
        choose: &mut dyn FnMut(usize, usize) -> Result<CropBox>,
    ) -> Result<Part> {
        let image = self.image(index)?;
        choose(image.width(), image.height())?;
        Ok(Part { image, x: 0, y: 0 })
    }

    /// The class of a sample, where it is known.
    fn label(&self, index: usize) -> Option<u32>;

    /// The names of the classes, by label; empty without labels.
    fn classes(&self) -> &[String];

    /// A short name for messages, for example the path of a folder.
    fn name(&self) -> String;

    /// Where a sample lies, for messages.
    fn place(&self, index: usize) -> String {
        format!("sample {index} of {}", self.name())
    }

    /// What kind of source this is, in one or two words.
    fn format(&self) -> &'static str {
        "images"
    }

    /// Files and samples that were left out when the source was opened, with the reason.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }

    /// What the user should know of the source: what was passed over, guessed or is ambiguous; a sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// The least and the largest size of an image, where they are known.
    fn sizes(&self) -> Option<SizeRange> {
        None
    }

    /// The ends (exclusive) of runs of samples that are cheap to read together, in ascending order, the last
    /// one being the number of samples; empty where any order is as good as any other.
    ///
    /// A loader then shuffles the runs, and samples within a few of them, instead of all samples at once.
    fn blocks(&self) -> &[usize] {
        &[]
    }

    /// How many of the runs of [`Dataset::blocks`] a loader mixes with each other: as many as are kept in memory
    /// anyway. It follows from the data alone, so that no setting of the machine changes an epoch.
    fn mixed_blocks(&self) -> usize {
        8
    }

    /// One line on what this is: counts, classes, sizes.
    fn describe(&self) -> String {
        let sizes = self.sizes().map_or_else(String::new, |sizes| format!(" of {sizes}"));
        let classes = match self.classes().len() {
            0 => "no labels".to_owned(),
            n => format!("{n} classes"),
        };
        let skipped = match self.skipped().len() {
            0 => String::new(),
            n => format!(", {n} damaged files left out"),
        };
        format!("{}: {} images{sizes}, {classes}{skipped}", self.name(), self.len())
    }
}

/// A part of an image, with its place in the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The pixels.
    pub image: Image,
    /// The column of the whole image in which the part starts.
    pub x: usize,
    /// The row of the whole image in which the part starts.
    pub y: usize,
}

impl Part {
    /// Copies a box out of a whole image.
    pub(crate) fn cut(image: &Image, wanted: CropBox) -> Result<Self> {
        let CropBox { x, y, width, height } = wanted;
        if (width, height) == (image.width(), image.height()) {
            return Ok(Self { image: image.clone(), x: 0, y: 0 });
        }
        let (pitch, c) = (image.width() * image.channels(), image.channels());
        let mut data = Vec::with_capacity(width * height * c);
        for row in image.data().chunks_exact(pitch).skip(y).take(height) {
            data.extend_from_slice(row.get(x * c..(x + width) * c).unwrap_or_default());
        }
        Ok(Self { image: Image::new(width, height, c, data)?, x, y })
    }
}

/// The least and the largest width and height of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SizeRange {
    /// The least width and the least height.
    pub least: (usize, usize),
    /// The largest width and the largest height.
    pub largest: (usize, usize),
}

impl SizeRange {
    /// The range of some sizes; `None` without any.
    pub(crate) fn of(sizes: impl IntoIterator<Item = (usize, usize)>) -> Option<Self> {
        sizes.into_iter().fold(None, |range: Option<Self>, (w, h)| {
            let Self { least, largest } = range.unwrap_or(Self { least: (w, h), largest: (w, h) });
            Some(Self {
                least: (least.0.min(w), least.1.min(h)),
                largest: (largest.0.max(w), largest.1.max(h)),
            })
        })
    }
}

impl std::fmt::Display for SizeRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((lw, lh), (hw, hh)) = (self.least, self.largest);
        match self.least == self.largest {
            true => write!(f, "{lw}x{lh}"),
            false => write!(f, "{lw}x{lh} to {hw}x{hh}"),
        }
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
    blocks: Vec<usize>,
}

impl Subset {
    /// The samples of these indices, in this order.
    ///
    /// # Errors
    /// An index beyond the end of the data set.
    pub fn new(inner: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        match indices.iter().find(|i| **i >= inner.len()) {
            Some(i) => Err(index_error(&*inner, *i)),
            None => {
                // Runs survive a choice that keeps the order.
                let mut blocks = Vec::new();
                if indices.is_sorted() {
                    blocks.extend(inner.blocks().iter().map(|end| indices.partition_point(|i| i < end)));
                    blocks.dedup();
                    blocks.retain(|end| *end > 0);
                }
                Ok(Self { inner, indices, blocks })
            }
        }
    }

    fn at(&self, index: usize) -> Result<usize> {
        self.indices.get(index).copied().ok_or_else(|| index_error(self, index))
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
        self.inner.image(self.at(index)?)
    }

    fn image_part(
        &self,
        index: usize,
        choose: &mut dyn FnMut(usize, usize) -> Result<CropBox>,
    ) -> Result<Part> {
        self.inner.image_part(self.at(index)?, choose)
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

    fn place(&self, index: usize) -> String {
        match self.indices.get(index) {
            Some(inner) => self.inner.place(*inner),
            None => format!("sample {index}"),
        }
    }

    fn format(&self) -> &'static str {
        self.inner.format()
    }

    fn skipped(&self) -> &[Skipped] {
        self.inner.skipped()
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }

    fn sizes(&self) -> Option<SizeRange> {
        self.inner.sizes()
    }

    fn blocks(&self) -> &[usize] {
        &self.blocks
    }

    fn mixed_blocks(&self) -> usize {
        self.inner.mixed_blocks()
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.len(), self.inner.describe())
    }
}
