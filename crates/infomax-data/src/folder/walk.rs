//! Finds image files below a folder.

use super::{Files, open_error};
use crate::options::Skipped;
use crate::passed::{Passed, is_clutter, is_image_extension};
use crate::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(super) store: Files,
    /// The folders of `store`, by the names that lead to them from the root.
    pub(super) folders: Vec<Vec<String>>,
    pub(super) classes: Vec<String>,
    /// Folders and links below the root that could not be read.
    pub(super) unreadable: Vec<Skipped>,
    /// Files that are no images.
    pub(super) passed: Passed,
    pub(super) notes: Vec<String>,
    /// All files, images or not.
    pub(super) seen: usize,
}

/// Lists the image files in the order of their paths, compared part by part and byte by byte.
pub(crate) fn walk(root: &Path) -> Result<Walked> {
    let real = root.canonicalize().map_err(|e| open_error(root, e))?;
    if !real.is_dir() {
        return Err(Error::NotAFolder { path: root.to_path_buf() });
    }
    let mut found = Walked::default();
    let folders = list(root, &[], &mut found).map_err(|e| open_error(root, e))?;
    let mut above = vec![real];
    for name in folders {
        let names = vec![name.to_string_lossy().into_owned()];
        descend(&root.join(&name), &names, &mut above, &mut found);
    }
    Ok(found)
}

/// Adds the files below a folder. `above` holds the real paths of the folders that lead here.
fn descend(folder: &Path, names: &[String], above: &mut Vec<PathBuf>, found: &mut Walked) {
    let real = match folder.canonicalize() {
        Ok(real) if above.contains(&real) => {
            return found.unreadable.push(Skipped::new(folder, "a link to a folder that contains it"));
        }
        Ok(real) => real,
        Err(e) => return found.unreadable.push(Skipped::new(folder, e.to_string())),
    };
    let folders = match list(folder, names, found) {
        Ok(folders) => folders,
        Err(e) => return found.unreadable.push(Skipped::new(folder, e.to_string())),
    };
    above.push(real);
    for name in folders {
        let inner = [names, &[name.to_string_lossy().into_owned()]].concat();
        descend(&folder.join(name), &inner, above, found);
    }
    above.pop();
}

/// Adds the image files of one folder, sorted by name, and returns its sub-folders; hidden ones and those of the
/// system are left out.
fn list(folder: &Path, names: &[String], found: &mut Walked) -> std::io::Result<Vec<OsString>> {
    let mut files: Vec<Box<OsStr>> = Vec::new();
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_clutter(name.as_encoded_bytes()) {
            found.passed.clutter();
            continue;
        }
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            match std::fs::metadata(entry.path()) {
                Ok(target) => kind = target.file_type(),
                Err(e) => {
                    let reason = format!("a broken link: {e}");
                    found.unreadable.push(Skipped { path: entry.path(), reason });
                    continue;
                }
            }
        }
        if kind.is_dir() {
            folders.push(name);
        } else if kind.is_file() {
            found.seen += 1;
            if is_candidate(&name) {
                files.push(name.into_boxed_os_str());
            } else {
                let path = names.iter().map(String::as_str);
                let name = name.to_string_lossy();
                found.passed.file(&path.chain([&*name]).collect::<Vec<_>>().join("/"));
            }
        }
    }
    files.sort_unstable();
    folders.sort_unstable();
    if !files.is_empty() {
        found.store.enter(folder.to_path_buf());
        found.folders.push(names.to_vec());
        files.into_iter().for_each(|name| found.store.push(name, None));
    }
    Ok(folders)
}

/// Files without an extension, and those with the extension of an image, also of a kind that is not read:
/// they are then listed as left out, instead of being passed over in silence.
fn is_candidate(name: &OsStr) -> bool {
    let Some(extension) = Path::new(name).extension() else { return !is_text(name) };
    extension.to_str().is_some_and(is_image_extension)
}

/// Files that come with data sets and are no images by their name.
fn is_text(name: &OsStr) -> bool {
    const TEXTS: [&str; 8] =
        ["README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CHANGELOG", "Makefile", "checksums"];
    TEXTS.iter().any(|known| name.eq_ignore_ascii_case(known))
}
