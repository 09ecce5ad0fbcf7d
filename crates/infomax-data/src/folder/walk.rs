//! Finds image files below a folder.

use super::{Labels, Skipped};
use crate::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file and its class.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) label: Option<u32>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<Entry>,
    pub(super) classes: Vec<String>,
    /// Folders and links below the root that could not be read.
    pub(super) unreadable: Vec<Skipped>,
    /// All files, images or not.
    pub(super) seen: usize,
}

/// Lists the image files in the order of their paths, compared part by part and byte by byte.
pub(super) fn walk(root: &Path, labels: Labels) -> Result<Found> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: root.to_path_buf() },
        _ => Error::Io { path: root.to_path_buf(), source },
    };
    let real = root.canonicalize().map_err(io)?;
    if !real.is_dir() {
        return Err(Error::NotAFolder { path: root.to_path_buf() });
    }
    let mut found = Found::default();
    let (files, folders) = list(root, &mut found).map_err(io)?;
    found.files.extend(files.into_iter().map(|path| Entry { path, label: None }));
    for (name, folder) in folders {
        let before = found.files.len();
        let mut above = vec![real.clone()];
        descend(&folder, &mut above, &mut found);
        if found.files.len() > before && labels == Labels::Folders {
            let label = found.classes.len() as u32;
            found.files[before..].iter_mut().for_each(|f| f.label = Some(label));
            found.classes.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Adds the files below a folder. `above` holds the real paths of the folders that lead here.
fn descend(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Found) {
    let mut skip = |reason: String| found.unreadable.push(Skipped { path: folder.to_path_buf(), reason });
    let real = match folder.canonicalize() {
        Ok(real) if above.contains(&real) => return skip("a link to a folder that contains it".into()),
        Ok(real) => real,
        Err(e) => return skip(e.to_string()),
    };
    let (files, folders) = match list(folder, found) {
        Ok(lists) => lists,
        Err(e) => {
            return found.unreadable.push(Skipped { path: folder.to_path_buf(), reason: e.to_string() });
        }
    };
    found.files.extend(files.into_iter().map(|path| Entry { path, label: None }));
    above.push(real);
    for (_, sub) in folders {
        descend(&sub, above, found);
    }
    above.pop();
}

type Lists = (Vec<PathBuf>, Vec<(OsString, PathBuf)>);

/// The image files and the sub-folders of one folder, sorted by name, hidden ones left out.
fn list(folder: &Path, found: &mut Found) -> std::io::Result<Lists> {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            match std::fs::metadata(&path) {
                Ok(target) => kind = target.file_type(),
                Err(e) => {
                    found.unreadable.push(Skipped { path, reason: format!("a broken link: {e}") });
                    continue;
                }
            }
        }
        if kind.is_dir() {
            folders.push((name, path));
        } else if kind.is_file() {
            found.seen += 1;
            if is_candidate(&path) {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    folders.sort_unstable();
    Ok((files, folders))
}

/// Files without an extension, and those with the extension of an image, also of a kind that is not read:
/// they are then listed as left out, instead of being passed over in silence.
fn is_candidate(path: &Path) -> bool {
    let Some(extension) = path.extension() else { return true };
    const IMAGES: [&str; 11] =
        ["jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "tif", "tiff", "webp", "ppm"];
    extension.to_str().is_some_and(|e| IMAGES.iter().any(|known| e.eq_ignore_ascii_case(known)))
}
