//! The images of a run: what is trained on, and what is held out.

use crate::config::{DataConfig, Source};
use crate::error::of;
use crate::{Error, Result};
use infomax_core::Key;
use infomax_data::{Damaged, Dataset, OpenOptions, Shapes, ShapesConfig, Split, Subset};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The images of a run.
#[derive(Clone, Debug)]
pub struct Images {
    /// What is trained on.
    pub train: Arc<dyn Dataset>,
    /// What the probes are trained on: the same images, unless those have no labels.
    pub labeled: Arc<dyn Dataset>,
    /// Held-out images; none for a folder without labels and without a `test/`.
    pub test: Option<Arc<dyn Dataset>>,
    /// A short name for the run's folder.
    pub name: String,
    /// Files that were left out: path and reason.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Images {
    /// Opens the images of a configuration.
    ///
    /// # Errors
    /// What is not there or is no data set, with what to do.
    pub fn open(config: &DataConfig) -> Result<Self> {
        match (config.source, &config.path) {
            (Source::Shapes, _) => shapes(config),
            (Source::Folder, Some(path)) => folder(config, path),
            (Source::Folder, None) => Err(Error::Config("data.source = \"folder\" needs data.path".into())),
        }
    }

    /// Why no probe is possible, if so.
    pub fn no_probe(&self) -> Option<String> {
        let classes = self.labeled.classes();
        match (&self.test, classes.len()) {
            (_, 0) if self.labeled.format() == "image folder" => Some(format!(
                "{} has no class sub-folders, so there are no labels to probe with",
                self.labeled.name()
            )),
            (_, 0) => {
                Some(format!("{} has no classes, so there are no labels to probe with", self.labeled.name()))
            }
            (_, 1) => Some(format!(
                "{} has one class only (`{}`); a probe needs at least two class sub-folders",
                self.labeled.name(),
                classes[0]
            )),
            (None, _) => Some(
                "nothing is held out (data.test_images = 0 or data.test_fraction = 0, and no test/ folder)"
                    .into(),
            ),
            (Some(test), _) if test.classes() != classes => Some(format!(
                "the classes of {} ({}) are not those of {} ({})",
                test.name(),
                list(test.classes()),
                self.labeled.name(),
                list(classes)
            )),
            _ => None,
        }
    }

    /// One line for each part.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!("train: {}", self.train.describe())];
        if let Some(test) = &self.test {
            lines.push(format!("test:  {}", test.describe()));
        }
        lines
    }
}

/// What happens to a sample that turns out unreadable during a run.
pub(crate) fn damaged(config: &DataConfig, samples: usize) -> Damaged {
    match config.strict {
        true => Damaged::Stop,
        // One in a hundred is a bad download; more is a bad disk.
        false => Damaged::Replace { most: (samples / 100).max(10) },
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(5).cloned().collect();
    shown.join(", ") + if names.len() > 5 { ", ..." } else { "" }
}

fn shapes(config: &DataConfig) -> Result<Images> {
    if config.train_images == 0 {
        return Err(Error::Config("data.train_images = 0: the embedded data set draws at least 1".into()));
    }
    let s = &config.shapes;
    let part = |split, len: usize| -> Result<Arc<dyn Dataset>> {
        Ok(Arc::new(Shapes::new(ShapesConfig {
            split,
            seed: config.seed,
            len,
            size: s.size,
            scale: s.scale,
            rotation: s.rotation,
            cut: s.cut,
            contrast: s.contrast,
            texture: s.texture,
            clutter: s.clutter,
            noise: s.noise,
            cache_bytes: config.cache_mib << 19,
        })?) as _)
    };
    let train = part(Split::Train, config.train_images).map_err(of("data.shapes"))?;
    Ok(Images {
        labeled: train.clone(),
        train,
        test: match config.test_images {
            0 => None,
            len => Some(part(Split::Test, len)?),
        },
        name: "shapes".into(),
        skipped: Vec::new(),
    })
}

/// Whatever lies at a path.
fn folder(config: &DataConfig, path: &Path) -> Result<Images> {
    let options = OpenOptions {
        strict: config.strict,
        max_pixels: usize::try_from(config.max_pixels).unwrap_or(usize::MAX),
        cache_bytes: config.cache_mib << 19,
        ..OpenOptions::default()
    };
    let opened = infomax_data::open(path, &options)?;
    let skipped = opened.skipped().map(|s| (s.path.clone(), s.reason.clone())).collect();
    let names: Vec<_> = opened.parts.iter().map(|(name, _)| *name).collect();
    let wanted = match &*config.part {
        "train" => opened.train(),
        other => opened.part(other),
    };
    let all = wanted.cloned().ok_or_else(|| {
        Error::Config(format!("data.part = `{}`: there are {}", config.part, names.join(", ")))
    })?;
    let labeled = if all.classes().is_empty() { opened.train().unwrap_or(&all).clone() } else { all.clone() };
    let held_out = opened.held_out().filter(|data| !Arc::ptr_eq(data, &all)).cloned();
    let whole = Arc::ptr_eq(&all, &labeled);
    let (train, test) = if held_out.is_some() || all.classes().is_empty() || config.test_fraction == 0.0 {
        (all, held_out)
    } else {
        let (train, test) = split(&*all, config.test_fraction, config.seed);
        if train.is_empty() || test.is_empty() {
            (all, None)
        } else {
            (Arc::new(Subset::new(all.clone(), train)?) as _, Some(Arc::new(Subset::new(all, test)?) as _))
        }
    };
    let train = first_of_each_class(train, config.train_images, "data.train_images")?;
    let name = path.file_name().map_or_else(|| "images".into(), |n| n.to_string_lossy().to_lowercase());
    let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(Images {
        labeled: if whole { train.clone() } else { labeled },
        train,
        test: test
            .map(|test| first_of_each_class(test, config.test_images, "data.test_images"))
            .transpose()?,
        name,
        skipped,
    })
}

/// The first images of each class in the order of paths, as evenly as the classes allow; 0 means all.
fn first_of_each_class(data: Arc<dyn Dataset>, count: usize, key: &str) -> Result<Arc<dyn Dataset>> {
    if count == 0 || count == data.len() {
        return Ok(data);
    }
    if count > data.len() {
        let (name, len) = (data.name(), data.len());
        let text = format!("{key} = {count}, but {name} has {len} images; set it to 0 for all of them");
        return Err(Error::Config(text));
    }
    let mut by_class: BTreeMap<Option<u32>, std::vec::IntoIter<usize>> = BTreeMap::new();
    let mut members: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for i in 0..data.len() {
        members.entry(data.label(i)).or_default().push(i);
    }
    by_class.extend(members.into_iter().map(|(label, indices)| (label, indices.into_iter())));
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        for indices in by_class.values_mut() {
            chosen.extend(indices.next().filter(|_| chosen.len() < count));
        }
    }
    chosen.sort_unstable();
    Ok(Arc::new(Subset::new(data, chosen)?))
}

/// Splits by class: of every class the same part is held out, drawn by the seed.
fn split(data: &dyn Dataset, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let key = Key::new(seed).fold_named("test split");
    let mut members: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for i in 0..data.len() {
        members.entry(data.label(i)).or_default().push(i);
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for indices in members.values_mut() {
        // Sorting by a pseudo-random word is a random order that needs no shared generator.
        indices.sort_by_key(|i| key.fold_in(*i as u64).words());
        let held = (indices.len() as f64 * fraction).round() as usize;
        test.extend_from_slice(&indices[..held]);
        train.extend_from_slice(&indices[held..]);
    }
    train.sort_unstable();
    test.sort_unstable();
    (train, test)
}
