//! Tar files of images, as WebDataset writes them, with random access.

use super::unpack::{packing_of, unpack};
use crate::arrays::Place;
use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::folder::MAX_LABEL;
use crate::options::{OpenOptions, Skipped};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Images in tar files.
///
/// Members that share their path up to the first dot of the name are one sample: an image (`.jpg`, `.jpeg`,
/// `.png`) and its class (`.cls`, a whole number as text). Without any `.cls`, the folder that an image lies
/// in is its class, if there are several folders.
///
/// The members are listed once when the shards are opened, and each image is then read at its place, so
/// samples come in any order without unpacking. Tar files that are compressed with gzip (or with zstd, feature
/// `zstd`) have no such places: the first time they are opened, each is unpacked into a hidden file beside it,
/// `.NAME.unpacked`, which is used again as long as the compressed one does not change.
#[derive(Debug)]
pub struct TarShards {
    inner: Encoded<Members>,
}

impl TarShards {
    /// Opens one or more tar files. `root` stands for all of them in messages.
    ///
    /// # Errors
    /// A file that cannot be read; a compressed one that is damaged, cut, a decompression bomb (more than 100
    /// times its size) or lies where nothing can be written; no usable image; damage under `strict`. Otherwise
    /// damaged samples, and what is missing from a shard that was cut, are left out and listed.
    pub fn open(root: impl AsRef<Path>, files: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let root = root.as_ref();
        let mut index = Index::default();
        for path in files {
            index.read(path)?;
        }
        let (store, classes) = index.finish();
        let found =
            Found { store, classes, skipped: index.skipped, files: index.members, format: "tar shards" };
        Ok(Self { inner: Encoded::new(root, found, options)? })
    }
}

delegate_dataset!(TarShards);

#[derive(Debug)]
struct Members {
    shards: Vec<Place>,
    entries: Vec<Member>,
}

/// An image in a shard.
#[derive(Debug)]
struct Member {
    offset: u64,
    len: u32,
    shard: u32,
    label: u32,
    name: Box<str>,
}

const NONE: u32 = u32::MAX;

impl Store for Members {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn read(&self, index: usize) -> std::io::Result<Vec<u8>> {
        self.take(index, u64::MAX)
    }

    fn head(&self, index: usize, most: usize) -> std::io::Result<Vec<u8>> {
        self.take(index, most as u64)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.entries.get(index).map(|m| m.label).filter(|label| *label != NONE)
    }

    fn place(&self, index: usize) -> PathBuf {
        match self.entries.get(index) {
            Some(m) => self.shards[m.shard as usize].path().join(&*m.name),
            None => PathBuf::new(),
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.entries.retain(|_| *keep.next().unwrap_or(&true));
    }
}

impl Members {
    fn take(&self, index: usize, most: u64) -> std::io::Result<Vec<u8>> {
        let member = self.entries.get(index).ok_or(std::io::ErrorKind::NotFound)?;
        self.shards[member.shard as usize].take(member.offset, u64::from(member.len).min(most))
    }
}

/// What is known of all shards so far.
#[derive(Debug, Default)]
struct Index {
    shards: Vec<Place>,
    entries: Vec<Member>,
    /// Class numbers by shard and sample.
    labels: BTreeMap<(u32, String), u32>,
    skipped: Vec<Skipped>,
    members: usize,
    any_class: bool,
}

impl Index {
    fn read(&mut self, path: &Path) -> Result<()> {
        let io = |source: std::io::Error| Error::Io { path: path.to_path_buf(), source };
        let mut place = Place::open(path)?;
        let start = place.take(0, place.len().min(6)).map_err(io)?;
        let mut file = path.to_path_buf();
        if let Some(packing) = packing_of(&start) {
            file = unpack(path, packing)?;
            place = Place::open(&file)?.shown_as(path);
        }
        let (shard, len) = (self.shards.len() as u32, place.len());
        // Headers are 512 bytes apart from each other by the sizes of the members: a small buffer is best.
        let reader = BufReader::with_capacity(512, File::open(&file).map_err(io)?);
        let mut archive = tar::Archive::new(reader);
        let (mut end, mut last) = (0, String::from("the first member"));
        for entry in archive.entries_with_seek().map_err(io)? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    let reason = format!("damaged behind {last} ({e}); what comes before it is used");
                    self.skipped.push(Skipped::new(path, reason));
                    self.shards.push(place);
                    return Ok(());
                }
            };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            self.members += 1;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            end = offset.saturating_add(size);
            if end > len {
                let reason = format!("cut within {name}; what comes before it is used");
                self.skipped.push(Skipped::new(path, reason));
                self.shards.push(place);
                return Ok(());
            }
            last.clone_from(&name);
            let (sample, extension) = split(&name);
            match extension.as_str() {
                "jpg" | "jpeg" | "png" => {
                    let len = u32::try_from(size).unwrap_or(u32::MAX);
                    self.entries.push(Member { offset, len, shard, label: NONE, name: name.into() });
                }
                "cls" => {
                    self.any_class = true;
                    let mut text = String::new();
                    let read = entry.by_ref().take(32).read_to_string(&mut text);
                    match text.trim().parse::<u32>() {
                        Ok(label) if read.is_ok() && label <= MAX_LABEL => {
                            self.labels.insert((shard, sample), label);
                        }
                        _ => {
                            let reason =
                                format!("{name}: the label `{}` is not in 0..={MAX_LABEL}", text.trim());
                            self.skipped.push(Skipped::new(path, reason));
                            self.labels.insert((shard, sample), NONE);
                        }
                    }
                }
                _ => {}
            }
        }
        // A whole archive ends with two blocks of zeros: without them, members may be missing.
        if len < end.next_multiple_of(512).saturating_add(512) {
            let reason = format!("no end mark behind {last}: probably cut; what comes before it is used");
            self.skipped.push(Skipped::new(path, reason));
        }
        self.shards.push(place);
        Ok(())
    }

    fn finish(&mut self) -> (Members, Vec<String>) {
        let mut entries = std::mem::take(&mut self.entries);
        let shards = std::mem::take(&mut self.shards);
        let mut classes = Vec::new();
        if self.any_class {
            // A sample with a wrong label is listed already; an image without one is unlabeled.
            let labels = &self.labels;
            let label = |m: &Member| labels.get(&(m.shard, split(&m.name).0)).copied();
            entries.retain(|m| label(m) != Some(NONE));
            entries.iter_mut().for_each(|m| m.label = label(m).unwrap_or(NONE));
            let most = entries.iter().map(|m| m.label).filter(|l| *l != NONE).max();
            classes.extend((0..most.map_or(0, |m| m + 1)).map(|label| label.to_string()));
        } else {
            let folders: BTreeSet<&str> = entries.iter().filter_map(|m| folder(&m.name)).collect();
            if folders.len() > 1 {
                classes.extend(folders.into_iter().map(str::to_owned));
                for m in &mut entries {
                    let class = folder(&m.name).and_then(|f| classes.binary_search_by(|c| (**c).cmp(f)).ok());
                    m.label = class.map_or(NONE, |c| c as u32);
                }
            }
        }
        (Members { shards, entries }, classes)
    }
}

/// The sample of a member, and the last extension in lower case: `a/b.c.jpg` belongs to `a/b`.
fn split(name: &str) -> (String, String) {
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let dot = name[slash..].find('.').map_or(name.len(), |at| slash + at);
    let extension = name[dot..].rsplit('.').next().unwrap_or_default().to_lowercase();
    (name[..dot].to_owned(), extension)
}

/// The folder that a member lies in.
fn folder(name: &str) -> Option<&str> {
    let (path, _) = name.rsplit_once('/')?;
    Some(path.rsplit('/').next().unwrap_or(path)).filter(|f| *f != ".")
}

#[cfg(test)]
mod tests {
    use super::{folder, split};

    #[test]
    fn names_are_parted_at_the_first_dot() {
        assert_eq!(split("a.b/000.seg.PNG"), ("a.b/000".into(), "png".into()));
        assert_eq!(split("000"), ("000".into(), String::new()));
        assert_eq!(folder("./cat/1.jpg"), Some("cat"));
        assert_eq!(folder("./1.jpg"), None);
        assert_eq!(folder("1.jpg"), None);
    }
}
