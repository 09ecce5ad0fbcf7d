//! JPEG and PNG files below a folder, or named by a list.

mod list;
mod walk;

pub(crate) use list::MAX_LABEL;

use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::options::{OpenOptions, Skipped};
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
    /// Hidden files, and files whose extension is not one of an image, are passed over. Links to folders
    /// are followed, but never in a circle. Files that turn out damaged are left out and listed by
    /// [`ImageFolder::skipped`].
    ///
    /// # Errors
    /// A path that is missing, is no folder or cannot be read; no usable image; damaged files under
    /// `strict`.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let root = path.as_ref();
        let found = walk::walk(root, options.labels)?;
        Self::of(root, found, "image folder", options)
    }

    /// Reads a list of images: a text file with one image a line, `path` or `path,label` (a comma or a tab;
    /// also a space before a label that is a whole number). Paths are relative to the folder of the list.
    /// Labels are whole numbers from 0, or names, which become classes in the order of the alphabet. Empty
    /// lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    /// A list that cannot be read; no usable image; lines with a wrong label, missing or damaged files under
    /// `strict`, otherwise they are left out and listed by [`ImageFolder::skipped`].
    pub fn open_list(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let root = path.as_ref();
        Self::of(root, list::read(root)?, "image list", options)
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
        let walk::Walked { store, classes, unreadable, seen } = found;
        let found = Found { store, classes, skipped: unreadable, files: seen, format };
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

    /// Labels all files from the one of this number on.
    fn label_from(&mut self, first: usize, label: u32) {
        self.entries.iter_mut().skip(first).for_each(|entry| entry.label = label);
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
