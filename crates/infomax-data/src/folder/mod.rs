//! Image files below a folder, or named by a list.

mod list;
mod scheme;
mod walk;

pub(crate) use scheme::{Scheme, scheme};

use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::labels::warn_of_parts;
use crate::options::{Labels, OpenOptions, Skipped};
use crate::split::PARTS;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The images below a folder, in the order of their paths.
#[derive(Debug)]
pub struct ImageFolder {
    inner: Encoded<Files>,
}

impl ImageFolder {
    /// Finds the images below `path` and checks them as far as the options ask.
    ///
    /// The class of an image is the first sub-folder, or, where folders wrap all others (`images/cat`,
    /// `images/dog`), the first one at which the paths differ.
    ///
    /// Hidden files, and files whose extension is not one of an image, are passed over and counted in
    /// [`Dataset::notes`](crate::Dataset::notes). Links to folders are followed, but never in a circle. Files that
    /// turn out damaged are left out and listed by [`ImageFolder::skipped`].
    ///
    /// # Errors
    /// A path that is missing, is no folder or cannot be read; no usable image; damaged files under
    /// `strict`.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let root = path.as_ref();
        let mut found = walk::walk(root)?;
        let scheme = scheme(&found.folders, false);
        found.label(&scheme, options.labels);
        Self::of(root, found, "image folder", options)
    }

    /// [`ImageFolder::open`], but where the names of folders tell parts of a data set, above the classes or below
    /// them, each part by itself.
    pub(crate) fn open_parts(root: &Path, options: &OpenOptions) -> Result<Vec<(&'static str, Self)>> {
        let mut found = walk::walk(root)?;
        let scheme = scheme(&found.folders, true);
        found.label(&scheme, options.labels);
        let mut parts = Vec::new();
        if scheme.parts.iter().all(Option::is_none) {
            parts.push(("train", Self::of(root, found, "image folder", options)?));
            return Ok(parts);
        }
        let is_part = |folder: u32| scheme.parts.get(folder as usize).copied().flatten();
        let mut outside = found.store.entries.iter().enumerate().filter(|(_, e)| is_part(e.folder).is_none());
        if let Some((first, _)) = outside.next() {
            let (count, place) = (1 + outside.count(), found.store.place(first));
            found
                .notes
                .push(format!("{count} images beside the parts left out (the first: {})", place.display()));
        }
        for part in PARTS {
            let mine = found.take(|folder| is_part(folder) == Some(part));
            if mine.store.entries.is_empty() {
                continue;
            }
            parts.push((part, Self::of(root, mine, "image folder", options)?));
        }
        Ok(parts)
    }

    /// Reads a list of images: a text file or a table with one image a line, `path` or `path,label` (a comma, a
    /// semicolon or a tab; also a space before a label that is a whole number). Paths are relative to the folder of
    /// the list. Labels are whole numbers from 0, or names, which become classes in the order of the alphabet; no
    /// label is an empty field or -1. A first line that names the columns is read as such: `path` (`file`,
    /// `image` ...), `label` (`class`, `target` ...), `split`. Fields may be quoted. Empty lines and lines that
    /// start with `#` are passed over.
    ///
    /// # Errors
    /// A list that cannot be read; no usable image; lines with a wrong label, missing or damaged files under
    /// `strict`, otherwise they are left out and listed by [`ImageFolder::skipped`].
    pub fn open_list(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let root = path.as_ref();
        let found = list::read(root, options)?;
        Self::of(root, found.whole(), "image list", options)
    }

    /// [`ImageFolder::open_list`], but each part by itself where a column `split` tells parts.
    pub(crate) fn open_list_parts(
        root: &Path,
        options: &OpenOptions,
    ) -> Result<Vec<(Option<&'static str>, Self)>> {
        let parts = list::read(root, options)?.parts();
        let open = |(part, found)| Ok((part, Self::of(root, found, "image list", options)?));
        parts.into_iter().map(open).collect()
    }

    /// Tiny-ImageNet's validation images: a folder `images` and the file `val_annotations.txt`.
    pub(crate) fn open_annotated(root: &Path, classes: &[String], options: &OpenOptions) -> Result<Self> {
        Self::of(root, list::annotations(root, classes)?, "Tiny-ImageNet", options)
    }

    pub(crate) fn of(
        root: &Path,
        found: walk::Walked,
        format: &'static str,
        options: &OpenOptions,
    ) -> Result<Self> {
        let walk::Walked { store, classes, unreadable, seen, passed, mut notes, .. } = found;
        notes.extend(passed.note("files"));
        let found = Found { store, classes, skipped: unreadable, notes, files: seen, format };
        Ok(Self { inner: Encoded::new(root, found, options)? })
    }

    /// The files that were left out, with the reason.
    pub fn skipped(&self) -> &[Skipped] {
        &self.inner.skipped
    }

    /// The path of a sample.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        (index < self.inner.store.len()).then(|| self.inner.store.place(index))
    }

    /// Other names for the classes, as many as there are.
    pub(crate) fn rename_classes(&mut self, name: impl Fn(&str) -> String) {
        self.inner.classes.iter_mut().for_each(|class| *class = name(class));
    }
}

delegate_dataset!(ImageFolder);

impl walk::Walked {
    /// Labels all files by what the names of their folders say.
    fn label(&mut self, scheme: &Scheme, labels: Labels) {
        if labels == Labels::None {
            return;
        }
        for entry in &mut self.store.entries {
            entry.label = scheme.labels.get(entry.folder as usize).copied().flatten().unwrap_or(NONE);
        }
        self.notes.extend(warn_of_parts(&scheme.classes));
        self.classes.clone_from(&scheme.classes);
    }

    /// Takes the files of some folders out; what was passed over or could not be read is told with the first ones.
    fn take(&mut self, mut wanted: impl FnMut(u32) -> bool) -> Self {
        let (mine, others) =
            std::mem::take(&mut self.store.entries).into_iter().partition(|e| wanted(e.folder));
        self.store.entries = others;
        let store = Files { folders: self.store.folders.clone(), entries: mine };
        if store.entries.is_empty() {
            return Self::default();
        }
        Self {
            store,
            folders: self.folders.clone(),
            classes: self.classes.clone(),
            unreadable: std::mem::take(&mut self.unreadable),
            passed: std::mem::take(&mut self.passed),
            notes: std::mem::take(&mut self.notes),
            seen: self.seen,
        }
    }
}

/// Paths of files, stored as a number of a folder and a name: a million of them take some 60 MB.
#[derive(Debug, Default)]
pub(crate) struct Files {
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: Box<OsStr>,
    folder: u32,
    label: u32,
}

/// The label of a file without a class.
const NONE: u32 = u32::MAX;

impl Files {
    /// Starts a folder: the next files lie in it.
    fn enter(&mut self, folder: PathBuf) {
        self.folders.push(folder);
    }

    fn push(&mut self, name: Box<OsStr>, label: Option<u32>) {
        let folder = (self.folders.len() - 1) as u32;
        self.entries.push(Entry { name, folder, label: label.unwrap_or(NONE) });
    }

    fn open(&self, index: usize) -> std::io::Result<std::fs::File> {
        std::fs::File::open(self.place(index))
    }
}

impl Store for Files {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn read(&self, index: usize) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.place(index))
    }

    fn head(&self, index: usize, most: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(index)?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.entries.get(index).map(|entry| entry.label).filter(|label| *label != NONE)
    }

    fn place(&self, index: usize) -> PathBuf {
        let Some(entry) = self.entries.get(index) else { return PathBuf::new() };
        match self.folders.get(entry.folder as usize) {
            Some(folder) => folder.join(&*entry.name),
            None => PathBuf::from(&entry.name),
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.entries.retain(|_| *keep.next().unwrap_or(&true));
    }
}

/// Tells a path that does not exist from one that cannot be read.
pub(crate) fn open_error(path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: path.to_path_buf() },
        _ => Error::Io { path: path.to_path_buf(), source },
    }
}
