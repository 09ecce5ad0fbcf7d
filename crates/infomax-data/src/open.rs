//! Recognizes what lies at a path, and opens it.

use crate::arrays::{self, ArrayImages};
use crate::folder::{ImageFolder, open_error};
use crate::options::{OpenOptions, Skipped};
use crate::shards::{Packing, TarShards, packing, refused};
use crate::split::split_of;
use crate::{Dataset, Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The parts of a data set that were found at a path.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it is, for example `CIFAR-10 binary`.
    pub format: &'static str,
    /// Name and samples of each part: `train`, `test`, `val`, `unlabeled`. There is at least one; a source
    /// without parts is one `train`.
    pub parts: Vec<(&'static str, Arc<dyn Dataset>)>,
}

impl Opened {
    /// A part by its name.
    pub fn part(&self, name: &str) -> Option<&Arc<dyn Dataset>> {
        self.parts.iter().find(|(n, _)| *n == name).map(|(_, data)| data)
    }

    /// The images to train on: `train`, else the first part.
    pub fn train(&self) -> Option<&Arc<dyn Dataset>> {
        self.part("train").or_else(|| self.parts.first().map(|(_, data)| data))
    }

    /// The images to evaluate on: `test` if it has labels, else `val`, else `test`.
    pub fn held_out(&self) -> Option<&Arc<dyn Dataset>> {
        let test = self.part("test");
        test.filter(|data| !data.classes().is_empty()).or_else(|| self.part("val")).or(test)
    }

    /// What was left out of all parts.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.parts.iter().flat_map(|(_, data)| data.skipped())
    }

    fn one(part: &'static str, data: impl Dataset + 'static) -> Self {
        Self { format: data.format(), parts: vec![(part, Arc::new(data))] }
    }
}

type Parts = Vec<(&'static str, Arc<dyn Dataset>)>;

/// Opens whatever lies at a path.
///
/// | at the path | read as |
/// |---|---|
/// | `data_batch_1.bin` ... or `train.bin` | CIFAR-10, CIFAR-100, binary version |
/// | `data_batch_1` ... or `train`, `meta` | the same, Python version (no pickle is run) |
/// | `train_X.bin` | STL-10, binary version |
/// | `train-images-idx3-ubyte`, `.gz` too | MNIST and what has its format |
/// | `wnids.txt` and `train/` | Tiny-ImageNet |
/// | `*.parquet`, also in `data/` | Hugging Face shards (feature `parquet`) |
/// | `*.tar`, `*.tar.gz`, `*.tgz`, `*.tar.zst` (feature `zstd`) | WebDataset shards |
/// | `*.npy`, `*.npz`, `*.safetensors` | arrays of images, labels beside them |
/// | `train/` and `test/` or `val/` | each of them by this table |
/// | a text file | a list of images, see [`ImageFolder::open_list`] |
/// | another folder | an [`ImageFolder`], or what is in its only sub-folder if that is in this table |
///
/// # Errors
/// A path that does not exist or holds nothing of this; whatever the source says about its files.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Opened> {
    let path = path.as_ref();
    open_at(path, options, 0)
}

/// Folders within folders that are looked into; links may lead in a circle.
const MAX_DEPTH: usize = 3;

fn open_at(path: &Path, options: &OpenOptions, depth: usize) -> Result<Opened> {
    let meta = std::fs::metadata(path).map_err(|e| open_error(path, e))?;
    if meta.is_file() {
        return file(path, options);
    }
    match known_folder(path, options, depth)? {
        Some(opened) => Ok(opened),
        None => match ImageFolder::open(path, options) {
            // Archives beside images are left alone; where there is nothing else, they are what was meant.
            Err(empty @ Error::Empty { damaged: 0, .. }) => {
                let files = names(path)?.files.into_iter().filter(|file| packing(file).is_some());
                let files: Vec<PathBuf> = files.collect();
                match files.iter().find(|file| packing(file) == Some(Packing::Other)) {
                    Some(other) => Err(refused(other)),
                    None if files.is_empty() => Err(empty),
                    None => tar_shards(path, &files, options),
                }
            }
            images => Ok(Opened::one("train", images?)),
        },
    }
}

/// A single file.
fn file(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let one = [path.to_path_buf()];
    let part = split_of(&path.file_name().unwrap_or_default().to_string_lossy()).unwrap_or("train");
    match extension.as_str() {
        _ if arrays::is_idx(path) => Ok(Opened::one(arrays::idx_split(path), arrays::idx(path, options)?)),
        "npy" => arrays_of(path, &with_labels_beside(path), options),
        "npz" | "safetensors" => arrays_of(path, &one, options),
        _ if packing(path) == Some(Packing::Other) => Err(refused(path)),
        _ if packing(path).is_some() => Ok(Opened::one(part, TarShards::open(path, &one, options)?)),
        "tar" => Ok(Opened::one(part, TarShards::open(path, &one, options)?)),
        "parquet" => parquet(path, vec![(part, one.to_vec())], options),
        "txt" | "csv" | "tsv" | "lst" => Ok(Opened::one(part, ImageFolder::open_list(path, options)?)),
        _ => Err(Error::Decode {
            path: path.to_path_buf(),
            reason:
                "not a data set; give a folder of images, a list of images (.txt, .csv, .tsv, .lst), .npy, \
                     .npz, .safetensors, .tar, .tar.gz, .parquet or an IDX file"
                    .into(),
        }),
    }
}

/// A folder of a known layout.
fn known_folder(path: &Path, options: &OpenOptions, depth: usize) -> Result<Option<Opened>> {
    let mut parts: Parts = Vec::new();
    let mut add = |part, data: Option<ArrayImages>| {
        if let Some(data) = data {
            parts.push((part, Arc::new(data)));
        }
    };
    if arrays::is_cifar(path) {
        add("train", arrays::cifar(path, "train", options)?);
        add("test", arrays::cifar(path, "test", options)?);
        return finish(path, parts);
    }
    if arrays::is_cifar_python(path) {
        add("train", arrays::cifar_python(path, "train", options)?);
        add("test", arrays::cifar_python(path, "test", options)?);
        return finish(path, parts);
    }
    if arrays::is_stl10(path) {
        for part in ["train", "test", "unlabeled"] {
            add(part, arrays::stl10(path, part, options)?);
        }
        return finish(path, parts);
    }
    if path.join("wnids.txt").is_file() && path.join("train").is_dir() {
        return tiny_imagenet(path, options).map(Some);
    }
    let names = names(path)?;
    let idx: Vec<_> = names.files.iter().filter(|f| arrays::is_idx(f)).collect();
    if !idx.is_empty() {
        for file in idx {
            let part = arrays::idx_split(file);
            // `train-images` may lie there twice, compressed and not.
            if parts.iter().all(|(p, _)| *p != part) {
                parts.push((part, Arc::new(arrays::idx(file, options)?)));
            }
        }
        return finish(path, parts);
    }
    let by_extension = |extension: &str| -> Vec<PathBuf> {
        let fits = |f: &&PathBuf| f.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        names.files.iter().filter(fits).cloned().collect()
    };
    let shards = by_extension("tar");
    if !shards.is_empty() {
        return tar_shards(path, &shards, options).map(Some);
    }
    let mut shards = by_extension("parquet");
    if shards.is_empty() && path.join("data").is_dir() {
        let inner = self::names(&path.join("data"))?.files;
        shards = inner.into_iter().filter(|f| f.extension().is_some_and(|e| e == "parquet")).collect();
    }
    if !shards.is_empty() {
        return parquet(path, by_split(&shards), options).map(Some);
    }
    let arrays: Vec<PathBuf> = names.files.iter().filter(|f| arrays::is_array_file(f)).cloned().collect();
    if !arrays.is_empty() {
        return arrays_of(path, &arrays, options).map(Some);
    }
    if depth >= MAX_DEPTH {
        return Ok(None);
    }
    // A class may be called `train`, too.
    let parts_named = names.folders.iter().filter(|f| PART_FOLDERS.iter().any(|(_, name)| f.ends_with(name)));
    let parts_named = parts_named.count();
    let has_train = names.folders.iter().any(|f| f.ends_with("train"));
    if has_train && (parts_named > 1 || parts_named == names.folders.len()) {
        return split_folder(path, options, depth).map(Some);
    }
    // The folder that an archive was unpacked into: one folder inside, and nothing else of interest.
    if let ([only], true) = (&names.folders[..], names.files.iter().all(|f| !looks_like_image(f))) {
        return known_folder(only, options, depth + 1);
    }
    Ok(None)
}

fn tar_shards(path: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    for (part, files) in by_split(shards) {
        parts.push((part, Arc::new(TarShards::open(path, &files, options)?)));
    }
    Ok(Opened { format: "tar shards", parts })
}

/// The parts of a data set and the folders that hold them.
const PART_FOLDERS: [(&str, &str); 6] = [
    ("train", "train"),
    ("test", "test"),
    ("val", "val"),
    ("val", "validation"),
    ("val", "valid"),
    ("unlabeled", "unlabeled"),
];

fn split_folder(path: &Path, options: &OpenOptions, depth: usize) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    let mut format = "image folder";
    for (part, name) in PART_FOLDERS {
        let inner = path.join(name);
        if inner.is_dir() && parts.iter().all(|(p, _)| *p != part) {
            let opened = open_at(&inner, options, depth + 1)?;
            if part == "train" {
                format = opened.format;
            }
            parts.extend(opened.train().map(|data| (part, Arc::clone(data))));
        }
    }
    Ok(Opened { format, parts })
}

fn tiny_imagenet(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let mut train = ImageFolder::open(path.join("train"), options)?;
    let codes = train.classes().to_vec();
    // One line a class: code, tab, names.
    let text = std::fs::read(path.join("words.txt")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let words: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('\t')).collect();
    let name = |code: &str| words.get(code).map_or_else(|| code.to_owned(), |w| (*w).trim().to_owned());
    train.rename_classes(name);
    let mut parts: Parts = vec![("train", Arc::new(train))];
    let val = path.join("val");
    if val.join("val_annotations.txt").is_file() {
        let mut val = ImageFolder::open_annotated(&val, &codes, options)?;
        val.rename_classes(name);
        parts.push(("val", Arc::new(val)));
    } else if val.is_dir() {
        let mut val = ImageFolder::open(&val, options)?;
        val.rename_classes(name);
        parts.push(("val", Arc::new(val)));
    }
    Ok(Opened { format: "Tiny-ImageNet", parts })
}

fn arrays_of(root: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Opened> {
    let found = arrays::open_arrays(root, files, options)?;
    let format = found.first().map_or("arrays", |(_, data)| data.format());
    let mut parts: Parts = Vec::new();
    for (part, data) in found {
        if parts.iter().any(|(p, _)| *p == part) {
            return Err(Error::Decode {
                path: root.to_path_buf(),
                reason: format!(
                    "two arrays of images for `{part}`; name them apart by `train`, `test`, `val`"
                ),
            });
        }
        parts.push((part, Arc::new(data)));
    }
    Ok(Opened { format, parts })
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path, files: Vec<(&'static str, Vec<PathBuf>)>, options: &OpenOptions) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    for (part, files) in files {
        parts.push((part, Arc::new(crate::ParquetShards::open(path, &files, options)?)));
    }
    Ok(Opened { format: "parquet shards", parts })
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _: Vec<(&'static str, Vec<PathBuf>)>, _: &OpenOptions) -> Result<Opened> {
    Err(Error::Decode {
        path: path.to_path_buf(),
        reason: "parquet files are read by builds with the feature `parquet` of infomax-data only".into(),
    })
}

/// Files by the part that their names tell; without a word for it, all are `train`.
fn by_split(files: &[PathBuf]) -> Vec<(&'static str, Vec<PathBuf>)> {
    let mut parts: Vec<(&'static str, Vec<PathBuf>)> = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let part = split_of(&name).unwrap_or("train");
        match parts.iter_mut().find(|(p, _)| *p == part) {
            Some((_, files)) => files.push(file.clone()),
            None => parts.push((part, vec![file.clone()])),
        }
    }
    parts.sort_by_key(|(part, _)| ["train", "test", "val", "unlabeled"].iter().position(|p| p == part));
    parts
}

/// `images.npy` and the `.npy` files beside it.
fn with_labels_beside(path: &Path) -> Vec<PathBuf> {
    let part = |p: &Path| split_of(&p.file_stem().unwrap_or_default().to_string_lossy());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = names(folder).map(|n| n.files).unwrap_or_default().into_iter().filter(|other| {
        other.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
            && other.file_name() != path.file_name()
            && part(other) == part(path)
            && arrays::is_label_file(other)
    });
    std::iter::once(path.to_path_buf()).chain(beside).collect()
}

struct Names {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// More entries than this are those of an image folder, and are not looked at one by one here.
const MANY: usize = 20_000;

/// The visible entries of a folder, sorted.
fn names(path: &Path) -> Result<Names> {
    let mut names = Names { files: Vec::new(), folders: Vec::new() };
    for entry in std::fs::read_dir(path).map_err(|e| open_error(path, e))?.take(MANY) {
        let entry = entry.map_err(|e| open_error(path, e))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(|e| open_error(path, e))?;
        let kind = if kind.is_symlink() {
            std::fs::metadata(entry.path()).map(|m| m.file_type()).ok()
        } else {
            Some(kind)
        };
        match kind {
            Some(kind) if kind.is_dir() => names.folders.push(entry.path()),
            Some(kind) if kind.is_file() => names.files.push(entry.path()),
            _ => {}
        }
    }
    names.files.sort();
    names.folders.sort();
    Ok(names)
}

fn looks_like_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["jpg", "jpeg", "png"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn finish(path: &Path, parts: Parts) -> Result<Option<Opened>> {
    match parts.first() {
        Some((_, data)) => Ok(Some(Opened { format: data.format(), parts })),
        None => Err(Error::Empty { path: path.to_path_buf(), files: 0, damaged: 0, example: String::new() }),
    }
}
