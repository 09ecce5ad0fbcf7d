//! The images of a run: what is trained on, and what is held out.

use crate::config::{DataConfig, Source};
use crate::error::of;
use crate::{Error, Result};
use infomax_core::Key;
use infomax_data::{Damaged, Dataset, Mixing, OpenOptions, Shapes, ShapesConfig, Split, Subset};
use std::collections::{BTreeMap, BTreeSet};
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
    /// What the user should know before training, a sentence each: what was passed over, guessed or has no label.
    pub notes: Vec<String>,
    /// Why nothing is held out, if so.
    pub no_test: Option<String>,
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

    /// Why no probe is possible, if so. Images without a label, and held-out ones of a class that is not among the
    /// others, are left out of the probes and are no reason by themselves.
    pub fn no_probe(&self) -> Option<String> {
        let name = self.labeled.name();
        let train = occurring(&*self.labeled);
        let class = |label: &u32| self.labeled.classes().get(*label as usize).cloned().unwrap_or_default();
        match (train.len(), &self.test) {
            (0, _) if self.labeled.format() == "image folder" => {
                Some(format!("{name} has no class sub-folders, so there are no labels to probe with"))
            }
            (0, _) => Some(format!("{name} has no labels to probe with")),
            (1, _) => Some(format!(
                "{name} has one class only (`{}`); a probe needs at least two class sub-folders",
                train.first().map(class).unwrap_or_default(),
            )),
            (_, None) => {
                let unset = "nothing is held out (data.test_images = 0 or data.test_fraction = 0, and no test/ folder)";
                Some(self.no_test.clone().unwrap_or_else(|| unset.into()))
            }
            (_, Some(test)) => {
                let held_out = occurring(&**test);
                if held_out.is_empty() {
                    return Some(format!("the held-out images of {} have no labels", test.name()));
                }
                held_out.is_disjoint(&train).then(|| {
                    format!(
                        "the classes of {} ({}) are not those of {name} ({})",
                        test.name(),
                        list(&held_out.iter().map(class).collect::<Vec<_>>()),
                        list(&train.iter().map(class).collect::<Vec<_>>()),
                    )
                })
            }
        }
    }

    /// What probes leave out, a sentence each.
    fn probe_notes(&self) -> Vec<String> {
        let train = occurring(&*self.labeled);
        let mut notes = Vec::new();
        if train.is_empty() {
            return notes;
        }
        let mut unlabeled = |what: &str, data: &dyn Dataset, trained: &str| {
            let mut missing = (0..data.len()).filter(|i| data.label(*i).is_none());
            if let Some(first) = missing.next() {
                let (count, place) = (1 + missing.count(), data.place(first));
                let all = data.len();
                notes.push(format!(
                    "{count} of {all} {what} images have no label (the first: {place}); they are {trained}left out of \
                     the probes"
                ));
            }
        };
        unlabeled("training", &*self.labeled, "trained on, and ");
        let Some(test) = &self.test else { return notes };
        unlabeled("held-out", &**test, "");
        let held_out = occurring(&**test);
        let named = |labels: BTreeSet<u32>| {
            let name = |l: &u32| test.classes().get(*l as usize).cloned().unwrap_or_default();
            list(&labels.iter().map(name).collect::<Vec<_>>())
        };
        let missing: BTreeSet<u32> = train.difference(&held_out).copied().collect();
        let unknown: BTreeSet<u32> = held_out.difference(&train).copied().collect();
        if !missing.is_empty() && !held_out.is_empty() {
            notes.push(format!(
                "{} of {} classes have no held-out image ({}); the probes say nothing of them",
                missing.len(),
                train.len(),
                named(missing)
            ));
        }
        if !unknown.is_empty() {
            let count =
                (0..test.len()).filter(|i| test.label(*i).is_some_and(|l| unknown.contains(&l))).count();
            notes.push(format!(
                "{count} held-out images are of classes that no training image has ({}); they are left out of the probes",
                named(unknown)
            ));
        }
        notes
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

/// The classes that occur.
fn occurring(data: &dyn Dataset) -> BTreeSet<u32> {
    if data.classes().is_empty() {
        return BTreeSet::new();
    }
    (0..data.len()).filter_map(|i| data.label(i)).collect()
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
        notes: Vec::new(),
        no_test: None,
    })
}

/// Whatever lies at a path.
fn folder(config: &DataConfig, path: &Path) -> Result<Images> {
    let options = OpenOptions {
        strict: config.strict,
        max_pixels: usize::try_from(config.max_pixels).unwrap_or(usize::MAX),
        cache_bytes: config.cache_mib << 19,
        image: config.image.clone(),
        label: config.label.clone(),
        exif_orientation: config.exif_orientation,
        ..OpenOptions::default()
    };
    let opened = infomax_data::open(path, &options)?;
    let mut notes = opened.notes();
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
    if let (None, "train", true) = (opened.part("train"), &*config.part, names.len() > 1) {
        let chosen =
            opened.parts.iter().find(|(_, data)| Arc::ptr_eq(data, &all)).map_or("", |(name, _)| name);
        notes.push(format!("there is no part `train` ({}); `{chosen}` is trained on", names.join(", ")));
    }
    // Of the parts that are not trained on: the test part if it has labels, else the validation part.
    let other = |name: &str| opened.part(name).filter(|data| !Arc::ptr_eq(data, &all));
    let with_labels = |data: &&Arc<dyn Dataset>| !occurring(&***data).is_empty();
    let held_out = other("test").filter(with_labels).or(other("val").filter(with_labels));
    let held_out = held_out.or(other("val")).or(other("test")).cloned();
    let whole = Arc::ptr_eq(&all, &labeled);
    let mut no_test = None;
    let (train, test) = if held_out.is_some() || all.classes().is_empty() || config.test_fraction == 0.0 {
        (all, held_out)
    } else {
        let (train, test) = split(&*all, config.test_fraction, config.seed);
        if train.is_empty() || test.is_empty() {
            no_test = Some(format!(
                "nothing is held out: data.test_fraction = {} of the images of each class leaves {} to train and {} to \
                 test on",
                config.test_fraction,
                train.len(),
                test.len()
            ));
            (all, None)
        } else {
            (Arc::new(Subset::new(all.clone(), train)?) as _, Some(Arc::new(Subset::new(all, test)?) as _))
        }
    };
    let train = first_of_each_class(train, config.train_images, "data.train_images")?;
    notes.extend(Mixing::of(&*train).map(|mixing| mixing.to_string()));
    let name = path.file_name().map_or_else(|| "images".into(), |n| n.to_string_lossy().to_lowercase());
    let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let test =
        test.map(|test| first_of_each_class(test, config.test_images, "data.test_images")).transpose()?;
    let labeled = if whole { train.clone() } else { labeled };
    let mut images = Images { labeled, train, test, name, skipped, notes, no_test };
    let more = images.probe_notes();
    images.notes.extend(more);
    Ok(images)
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

/// Splits by class: of every class the same part is held out, drawn by the seed. Images without a class are of no use
/// there, and are trained on.
fn split(data: &dyn Dataset, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let key = Key::new(seed).fold_named("test split");
    let mut members: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for i in 0..data.len() {
        members.entry(data.label(i)).or_default().push(i);
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    train.extend(members.remove(&None).unwrap_or_default());
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
