//! How well an epoch mixes the samples of shards.

use crate::Dataset;
use std::collections::BTreeMap;

/// How far apart samples may lie that meet in a batch: an epoch takes a few blocks at a time (row groups of parquet
/// files), in random order, and shuffles their samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Mixing {
    /// The blocks that are shuffled with each other.
    pub mixed: usize,
    /// All blocks.
    pub blocks: usize,
    /// The classes that such blocks hold in the mean, over all choices of them.
    pub classes_within: f64,
    /// All classes that occur.
    pub classes: usize,
}

impl Mixing {
    /// How a data set is mixed; `None` where every order of the samples is as likely as any other.
    ///
    /// A class that lies in `g` of `G` blocks is missing from `k` blocks, drawn without replacement, with the
    /// probability `prod_{i<k} (G - g - i) / (G - i)`.
    pub fn of(data: &dyn Dataset) -> Option<Self> {
        let ends = data.blocks();
        let (blocks, mixed) = (ends.len(), data.mixed_blocks());
        if blocks <= mixed {
            return None;
        }
        // For each class the number of blocks, and the last one that it was seen in.
        let mut seen: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        let mut start = 0;
        for (block, end) in ends.iter().enumerate() {
            for label in (start..*end).filter_map(|i| data.label(i)) {
                let entry = seen.entry(label).or_insert((0, usize::MAX));
                if entry.1 != block {
                    *entry = (entry.0 + 1, block);
                }
            }
            start = *end;
        }
        let within = seen.values().map(|(holding, _)| {
            let miss = |i: usize| blocks.saturating_sub(holding + i) as f64 / (blocks - i) as f64;
            1.0 - (0..mixed).map(miss).product::<f64>()
        });
        Some(Self { mixed, blocks, classes_within: within.sum(), classes: seen.len() })
    }
}

impl std::fmt::Display for Mixing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mixed, blocks, classes_within, classes } = self;
        write!(f, "an epoch mixes {mixed} of {blocks} row groups at a time")?;
        if *classes > 1 {
            write!(f, ", which hold {classes_within:.1} of {classes} classes in the mean")?;
            if *classes_within < 0.9 * *classes as f64 {
                write!(
                    f,
                    ": the file is sorted, and a batch sees few classes; shuffle it once, or write smaller groups"
                )?;
            }
        }
        Ok(())
    }
}
