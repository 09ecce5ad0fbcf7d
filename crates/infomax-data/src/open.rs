//! Recognizes what lies at a path, and opens it.

use crate::arrays::{self, ArrayImages};
use crate::folder::{ImageFolder, open_error};
use crate::options::{OpenOptions, Skipped};
use crate::passed::{Passed, is_clutter, is_image_extension};
use crate::relabeled::unify;
use crate::shards::{Packing, TarShards, packing, refused};
use crate::split::{PARTS, parts_of, split_of};
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
    /// What the user should know of the whole, a sentence each: folders and files beside the parts that are not
    /// used. Each part has [`Dataset::notes`] of its own.
    pub notes: Vec<String>,
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

    /// What the user should know of the whole and of all parts, a sentence each, every sentence once.
    pub fn notes(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (part, note) in self.notes.iter().map(|note| (None, note)).chain(
            self.parts
                .iter()
                .flat_map(|(part, data)| data.notes().iter().map(move |note| (Some(*part), note))),
        ) {
            let text = match part {
                Some(part) if self.parts.len() > 1 => format!("{part}: {note}"),
                _ => note.clone(),
            };
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all
    }

    /// What was left out of all parts.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.parts.iter().flat_map(|(_, data)| data.skipped())
    }

    fn one(part: &'static str, data: impl Dataset + 'static) -> Self {
        Self { format: data.format(), parts: vec![(part, Arc::new(data))], notes: Vec::new() }
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
/// Names of parts are recognized in any case, and with the words that are used for them: `Training`, `dev`, `eval`.
/// All parts have the same list of classes: a class has the same number in each of them, also if it is missing in
/// one.
///
/// # Errors
/// A path that does not exist or holds nothing of this; whatever the source says about its files.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Opened> {
    let path = path.as_ref();
    let mut opened = open_at(path, options, 0)?;
    unify(&mut opened.parts);
    const NAMED: [&str; 6] =
        ["tar shards", "parquet shards", "image list", "NumPy .npy", "NumPy .npz", "safetensors"];
    if let Some(name) = options.label.as_ref().filter(|_| !NAMED.contains(&opened.format)) {
        opened.notes.push(format!(
            "data.label = \"{name}\" is not used: the format {} has one kind of labels",
            opened.format
        ));
    }
    Ok(opened)
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
        None => match ImageFolder::open_parts(path, options) {
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
            images => {
                let parts = images?.into_iter().map(|(part, data)| (part, Arc::new(data) as _)).collect();
                Ok(Opened { format: "image folder", parts, notes: Vec::new() })
            }
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
        _ if packing(path).is_some() => tar_shards(path, &one, options),
        "tar" => tar_shards(path, &one, options),
        "parquet" => parquet(path, vec![(part, one.to_vec())], options),
        "txt" | "csv" | "tsv" | "lst" => {
            let parts = ImageFolder::open_list_parts(path, options)?;
            let parts = parts.into_iter().map(|(told, data)| (told.unwrap_or(part), Arc::new(data) as _));
            Ok(Opened { format: "image list", parts: parts.collect(), notes: Vec::new() })
        }
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
    let mut notes = Vec::new();
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
        let mut used: Vec<(&'static str, &PathBuf)> = Vec::new();
        for file in idx {
            let part = arrays::idx_split(file);
            match used.iter().find(|(p, _)| *p == part) {
                None => used.push((part, file)),
                // `train-images` may lie there twice, compressed and not.
                Some((_, first)) if arrays::idx_stem(first) == arrays::idx_stem(file) => {}
                Some((_, first)) => {
                    return Err(Error::Decode {
                        path: path.to_path_buf(),
                        reason: format!(
                            "two sets of images for `{part}`: {} and {}; give the file of the one that is meant, or \
                             put each set into a folder of its own",
                            file_name(first),
                            file_name(file)
                        ),
                    });
                }
            }
        }
        for (part, file) in used {
            parts.push((part, Arc::new(arrays::idx(file, options)?)));
        }
        notes.extend(names.others(|f| arrays::is_idx(f) || arrays::is_idx_labels(f)));
        return with_notes(finish(path, parts), notes);
    }
    let by_extension = |extension: &str| -> Vec<PathBuf> {
        let fits = |f: &&PathBuf| f.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        names.files.iter().filter(fits).cloned().collect()
    };
    let shards = by_extension("tar");
    if !shards.is_empty() {
        notes.extend(names.others(|f| shards.contains(f)));
        return with_notes(tar_shards(path, &shards, options).map(Some), notes);
    }
    let mut shards = by_extension("parquet");
    if shards.is_empty() && path.join("data").is_dir() {
        let inner = self::names(&path.join("data"))?.files;
        let fits = |f: &PathBuf| f.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
        shards = inner.into_iter().filter(fits).collect();
    }
    if !shards.is_empty() {
        notes.extend(names.others(|f| shards.contains(f)));
        return with_notes(parquet(path, by_split(&shards), options).map(Some), notes);
    }
    let arrays: Vec<PathBuf> = names.files.iter().filter(|f| arrays::is_array_file(f)).cloned().collect();
    if !arrays.is_empty() {
        notes.extend(names.others(|f| arrays::is_array_file(f)));
        return with_notes(arrays_of(path, &arrays, options).map(Some), notes);
    }
    if depth >= MAX_DEPTH {
        return Ok(None);
    }
    // A class may be called `train`, too.
    let folders: Vec<String> = names.folders.iter().map(|f| file_name(f)).collect();
    let folder_names: Vec<&str> = folders.iter().map(String::as_str).collect();
    if let Some(found) = parts_of(&folder_names) {
        return split_folder(path, &names, &found, options, depth).map(Some);
    }
    // The folder that an archive was unpacked into: one folder inside, and nothing else of interest.
    if let ([only], true) = (&names.folders[..], names.files.iter().all(|f| !looks_like_image(f))) {
        notes.extend(names.others(|_| false));
        return with_notes(known_folder(only, options, depth + 1), notes);
    }
    Ok(None)
}

/// Adds what the user should know of the whole.
fn with_notes(opened: Result<Option<Opened>>, mut notes: Vec<String>) -> Result<Option<Opened>> {
    let opened = opened?;
    Ok(opened.map(|opened| {
        notes.extend(opened.notes);
        Opened { notes, ..opened }
    }))
}

fn tar_shards(path: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    let by_name = by_split(shards);
    // Names of files tell the parts; where they tell none, the folders inside may.
    if let [(only, files)] = &by_name[..]
        && files.iter().all(|f| split_of(&file_name(f)).is_none())
    {
        for (part, data) in TarShards::open_parts(path, files, options)? {
            parts.push((part.unwrap_or(only), Arc::new(data)));
        }
        return Ok(Opened { format: "tar shards", parts, notes: Vec::new() });
    }
    for (part, files) in by_name {
        parts.push((part, Arc::new(TarShards::open(path, &files, options)?)));
    }
    Ok(Opened { format: "tar shards", parts, notes: Vec::new() })
}

/// The folders of parts, each by the table of [`open`].
fn split_folder(
    path: &Path,
    names: &Names,
    found: &[Option<&'static str>],
    options: &OpenOptions,
    depth: usize,
) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    let mut notes = Vec::new();
    let mut format = "image folder";
    for part in PARTS {
        let mut mine = names.folders.iter().zip(found).filter(|(_, p)| **p == Some(part)).map(|(f, _)| f);
        // The plain word first: `val` before `val_old`, `train` before `Train`.
        let all: Vec<&PathBuf> = mine.clone().collect();
        let Some(first) = mine.clone().find(|f| f.ends_with(part)).or(mine.next()) else { continue };
        for other in all.into_iter().filter(|f| *f != first) {
            notes.push(format!("{} is `{part}` as {} is, and is not used", other.display(), first.display()));
        }
        let opened = match open_at(first, options, depth + 1) {
            Err(Error::Empty { files: 0, damaged: 0, .. }) if names.folders.len() > 1 => {
                notes.push(format!("{} is empty", first.display()));
                continue;
            }
            opened => opened?,
        };
        if part == "train" || parts.is_empty() {
            format = opened.format;
        }
        if opened.parts.len() > 1 {
            let inner: Vec<_> =
                opened.parts.iter().map(|(p, d)| format!("{p} ({} images)", d.len())).collect();
            notes.push(format!(
                "{} has parts itself, of which one is used: {}",
                first.display(),
                inner.join(", ")
            ));
        }
        notes.extend(opened.notes.iter().map(|note| format!("{part}: {note}")));
        let data = opened.part(part).or_else(|| opened.train());
        parts.extend(data.map(|data| (part, Arc::clone(data))));
    }
    let beside: Vec<String> =
        names.folders.iter().zip(found).filter(|(_, p)| p.is_none()).map(|(f, _)| file_name(f)).collect();
    if !beside.is_empty() {
        notes.push(format!("folders beside the parts that are not used: {}", beside.join(", ")));
    }
    notes.extend(names.others(|_| false));
    match parts.is_empty() {
        true => Err(Error::Empty { path: path.to_path_buf(), files: 0, damaged: 0, example: String::new() }),
        false => Ok(Opened { format, parts, notes }),
    }
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
    Ok(Opened { format: "Tiny-ImageNet", parts, notes: Vec::new() })
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
    Ok(Opened { format, parts, notes: Vec::new() })
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path, files: Vec<(&'static str, Vec<PathBuf>)>, options: &OpenOptions) -> Result<Opened> {
    let mut parts: Parts = Vec::new();
    for (part, files) in files {
        parts.push((part, Arc::new(crate::ParquetShards::open(path, &files, options)?)));
    }
    Ok(Opened { format: "parquet shards", parts, notes: Vec::new() })
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
    parts.sort_by_key(|(part, _)| PARTS.iter().position(|p| p == part));
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
    clutter: usize,
}

impl Names {
    /// What is said of the files that are not used.
    fn others(&self, used: impl Fn(&PathBuf) -> bool) -> Option<String> {
        let mut passed = Passed::default();
        self.files.iter().filter(|f| !used(f)).for_each(|f| passed.file(&file_name(f)));
        (0..self.clutter).for_each(|_| passed.clutter());
        passed.note("files beside it")
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// More entries than this are those of an image folder, and are not looked at one by one here.
const MANY: usize = 20_000;

/// The visible entries of a folder, sorted.
fn names(path: &Path) -> Result<Names> {
    let mut names = Names { files: Vec::new(), folders: Vec::new(), clutter: 0 };
    for entry in std::fs::read_dir(path).map_err(|e| open_error(path, e))?.take(MANY) {
        let entry = entry.map_err(|e| open_error(path, e))?;
        if is_clutter(entry.file_name().as_encoded_bytes()) {
            // What was unpacked beside a compressed shard is ours.
            names.clutter += usize::from(!entry.file_name().as_encoded_bytes().ends_with(b".unpacked"));
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
    path.extension().and_then(|e| e.to_str()).is_some_and(is_image_extension)
}

fn finish(path: &Path, parts: Parts) -> Result<Option<Opened>> {
    match parts.first() {
        Some((_, data)) => Ok(Some(Opened { format: data.format(), parts, notes: Vec::new() })),
        None => Err(Error::Empty { path: path.to_path_buf(), files: 0, damaged: 0, example: String::new() }),
    }
}
