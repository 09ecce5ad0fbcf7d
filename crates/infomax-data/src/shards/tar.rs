//! Tar files of images, as WebDataset writes them, with random access.

use super::keys::{Keys, preference, stem_of, without_fields};
use super::unpack::{packing_of, unpack};
use crate::arrays::Place;
use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::folder::scheme;
use crate::labels::{NONE, Value, number, warn_of_parts};
use crate::options::{OpenOptions, Skipped};
use crate::passed::{Passed, is_clutter, is_image_extension};
use crate::split::PARTS;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images in tar files.
///
/// Members of one key are one sample: an image and its class (`.cls`, a whole number or a name as text, -1 for
/// none). The key of a label is its name without the extension. An image belongs to the label of the longest key
/// that its own name without extensions starts with, up to a dot: `v1.00000.jpg` to `v1.00000.cls`, and `k.seg.png`
/// to `k.cls`. Two labels of one key are an error.
///
/// One image a sample is used: the one with the fewest words before its extension (`k.jpg` before `k.seg.png`), then
/// none of a mask, then `jpg` before `png`, then by the alphabet; or the one of the field that
/// [`OpenOptions::image`] names (`seg.png`). Without any `.cls`, folders inside are classes, by the rule of
/// [`ImageFolder`](crate::ImageFolder).
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
    /// times its size) or lies where nothing can be written; two labels for one sample; no usable image; damage
    /// under `strict`. Otherwise damaged samples, and what is missing from a shard that was cut, are left out and
    /// listed.
    pub fn open(root: impl AsRef<Path>, files: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let root = root.as_ref();
        let mut parts = Self::read(files, options)?.finish(false);
        let found = parts.pop().map(|(_, found)| found).unwrap_or_default();
        Ok(Self { inner: Encoded::new(root, found, options)? })
    }

    /// [`TarShards::open`], but each part by itself where the names of folders inside tell parts.
    pub(crate) fn open_parts(
        root: &Path,
        files: &[PathBuf],
        options: &OpenOptions,
    ) -> Result<Vec<(Option<&'static str>, Self)>> {
        let parts = Self::read(files, options)?.finish(true);
        let open = |(part, found)| Ok((part, Self { inner: Encoded::new(root, found, options)? }));
        parts.into_iter().map(open).collect()
    }

    fn read(files: &[PathBuf], options: &OpenOptions) -> Result<Index> {
        let mut index =
            Index { image: options.image.clone(), label: options.label.clone(), ..Index::default() };
        if let Some((field, key)) = options.label.as_deref().and_then(|label| label.split_once('.'))
            && field.eq_ignore_ascii_case("json")
        {
            (index.label, index.json_key) = (Some(field.to_owned()), Some(key.to_owned()));
        }
        for path in files {
            index.read(path)?;
        }
        index.asked(files)?;
        Ok(index)
    }
}

delegate_dataset!(TarShards);

#[derive(Debug, Default)]
struct Members {
    shards: Arc<Vec<Place>>,
    entries: Vec<Member>,
}

/// An image in a shard.
#[derive(Clone, Debug)]
struct Member {
    offset: u64,
    len: u32,
    shard: u32,
    label: u32,
    name: Box<str>,
}

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
    /// The labels of `entries`, by shard and key.
    labels: BTreeMap<(u32, String), (Value, String)>,
    skipped: Vec<Skipped>,
    passed: Passed,
    notes: Vec<String>,
    members: usize,
    /// The fields of the images and of the other members, that is, what stands behind the key.
    image_fields: BTreeSet<String>,
    other_fields: BTreeSet<String>,
    /// The field of the image and of the label that are asked for.
    image: Option<String>,
    label: Option<String>,
    /// The name inside of a JSON object that is asked for, as `json.NAME`.
    json_key: Option<String>,
    labels_seen: bool,
}

/// A shard while it is read.
#[derive(Default)]
struct Shard {
    images: Vec<Member>,
    /// Name and value.
    labels: Vec<(String, Value)>,
    keys: Keys,
    /// Where each file lies, for links to it.
    files: BTreeMap<String, (u64, u64)>,
}

impl Index {
    /// Refuses fields that are asked for and not there.
    fn asked(&self, files: &[PathBuf]) -> Result<()> {
        let refuse = |what: &str, name: &str, there: Vec<&str>| {
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let reason = format!("no member has the field `{name}` for the {what}; there are: {there}");
            Error::Decode { path: files.first().cloned().unwrap_or_default(), reason }
        };
        let fields = |of: &BTreeSet<String>| of.iter().take(12).cloned().collect::<Vec<_>>();
        let (images, others) = (fields(&self.image_fields), fields(&self.other_fields));
        match (&self.image, &self.label) {
            (Some(name), _) if self.entries.is_empty() && !images.is_empty() => {
                Err(refuse("images", name, images.iter().map(String::as_str).collect()))
            }
            (_, Some(name)) if !self.labels_seen && !self.entries.is_empty() => {
                Err(refuse("labels", name, others.iter().chain(&images).map(String::as_str).collect()))
            }
            _ => Ok(()),
        }
    }

    /// Remembers the field of a member that is no image, of a few different ones.
    fn other_field(&mut self, name: &str) {
        let stem = stem_of(name).0;
        let stem = without_fields(stem.strip_suffix(".cls").unwrap_or(stem));
        let field = name[stem.len()..].trim_start_matches('.').to_lowercase();
        if !field.is_empty() && self.other_fields.len() < 64 {
            self.other_fields.insert(field);
        }
    }

    /// What is said of members that may hold labels, where no label was found.
    fn hint(&self) -> Option<String> {
        let like = |field: &&String| {
            ["cls", "label", "class", "target", "json"]
                .iter()
                .any(|word| field.split(['.', '_', '-']).any(|part| part.starts_with(word)))
        };
        let like: Vec<&str> = self.other_fields.iter().filter(like).map(String::as_str).collect();
        let first = like.first()?;
        Some(format!(
            "no member ends with .cls, so that nothing but folders tells classes; labels may be in {}: \
             data.label = \"{first}\" reads them",
            like.iter().map(|field| format!(".{field}")).collect::<Vec<_>>().join(", ")
        ))
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let io = |source: std::io::Error| Error::Io { path: path.to_path_buf(), source };
        let mut place = Place::open(path)?;
        let start = place.take(0, place.len().min(6)).map_err(io)?;
        let mut file = path.to_path_buf();
        if let Some(packing) = packing_of(&start) {
            file = unpack(path, packing)?;
            place = Place::open(&file)?.shown_as(path);
        }
        let mut shard = Shard::default();
        if let Some(reason) = self.members(path, &file, place.len(), &mut shard).map_err(io)? {
            self.skipped.push(Skipped::new(path, reason));
        }
        let number = self.shards.len() as u32;
        self.shards.push(place);
        self.samples(path, number, shard)
    }

    /// Lists the members of a shard, and says what is wrong with its end.
    fn members(
        &mut self,
        path: &Path,
        file: &Path,
        len: u64,
        shard: &mut Shard,
    ) -> std::io::Result<Option<String>> {
        // Headers are 512 bytes apart from each other by the sizes of the members: a small buffer is best.
        let reader = BufReader::with_capacity(512, File::open(file)?);
        let mut archive = tar::Archive::new(reader);
        let (mut end, mut last) = (0u64, String::from("the first member"));
        for entry in archive.entries_with_seek()? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    return Ok(Some(format!("damaged behind {last} ({e}); what comes before it is used")));
                }
            };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            self.members += 1;
            if name.split('/').any(|part| part != "." && part != ".." && is_clutter(part.as_bytes())) {
                self.passed.clutter();
                continue;
            }
            let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let (mut offset, mut size) = (entry.raw_file_position(), entry.size());
            if kind.is_hard_link() || kind.is_symlink() {
                let target = target.unwrap_or_default();
                let full = if kind.is_symlink() { beside(&name, &target) } else { plain(&target) };
                match shard.files.get(&full) {
                    Some(found) => (offset, size) = *found,
                    None => {
                        let reason =
                            format!("{name}: a link to {target}, which is not in the shard before it");
                        self.skipped.push(Skipped::new(path, reason));
                        continue;
                    }
                }
            } else if kind.is_gnu_sparse() || is_pax_sparse(&mut entry) {
                let reason = format!(
                    "{name}: a sparse member, whose bytes do not lie together; write the shard without --sparse"
                );
                self.skipped.push(Skipped::new(path, reason));
                continue;
            } else if !kind.is_file() && !kind.is_contiguous() {
                let reason = format!("{name}: neither a file nor a link ({kind:?})");
                self.skipped.push(Skipped::new(path, reason));
                continue;
            } else {
                end = offset.saturating_add(size);
            }
            if offset.saturating_add(size) > len {
                return Ok(Some(format!("cut within {name}; what comes before it is used")));
            }
            last.clone_from(&name);
            shard.files.insert(plain(&name), (offset, size));
            let (stem, extension) = stem_of(&name);
            let is_label = match &self.label {
                Some(field) => name.to_lowercase().ends_with(&format!(".{}", field.to_lowercase())),
                None => extension == "cls",
            };
            shard.keys.add(stem, is_label);
            if is_label {
                self.labels_seen = true;
                let mut text = Vec::new();
                let json = extension == "json";
                let most = if json { MAX_JSON } else { MAX_TEXT };
                let read = match kind.is_file() || kind.is_contiguous() {
                    true => entry.by_ref().take(most + 1).read_to_end(&mut text).map(drop),
                    false => take(file, offset, size.min(most + 1)).map(|bytes| text = bytes),
                };
                let value = match (read, std::str::from_utf8(&text)) {
                    (Ok(()), Ok(text)) if json && text.len() as u64 <= most => {
                        json_value(text.trim_start_matches('\u{feff}'), self.json_key.as_deref())
                    }
                    (Ok(()), Ok(text)) if text.len() as u64 <= most => {
                        Value::of_text(text.trim_start_matches('\u{feff}'))
                    }
                    _ => Value::Wrong(format!("the label is not a text of at most {most} bytes")),
                };
                shard.labels.push((name, value));
            } else if is_image_extension(&extension) {
                let len = u32::try_from(size).unwrap_or(u32::MAX);
                shard.images.push(Member { offset, len, shard: 0, label: NONE, name: name.into() });
            } else {
                self.other_field(&name);
                self.passed.file(&name);
            }
        }
        // A whole archive ends with two blocks of zeros: without them, members may be missing.
        let whole = len >= end.next_multiple_of(512).saturating_add(512);
        Ok((!whole).then(|| format!("no end mark behind {last}: probably cut; what comes before it is used")))
    }

    /// Pairs images and labels of a shard.
    fn samples(&mut self, path: &Path, number: u32, shard: Shard) -> Result<()> {
        let Shard { images, labels, keys, .. } = shard;
        for (name, value) in labels {
            let key = without_fields(field_stem(&name, self.label.as_deref())).to_owned();
            if let Some((_, first)) = self.labels.insert((number, key.clone()), (value, name.clone())) {
                return Err(Error::Decode {
                    path: path.to_path_buf(),
                    reason: format!(
                        "two labels for the sample `{key}`: {first} and {name}; remove one of them"
                    ),
                });
            }
        }
        // The image of each sample, in the order of the first ones.
        let mut of_key: BTreeMap<String, usize> = BTreeMap::new();
        let mut chosen: Vec<(String, Member)> = Vec::new();
        let (mut left_out, mut example) = (0, None);
        for mut image in images {
            image.shard = number;
            let name = image.name.clone();
            let key = keys.of(stem_of(&name).0);
            let field = name[key.len()..].trim_start_matches('.');
            if self.image_fields.len() < 64 {
                self.image_fields.insert(field.to_lowercase());
            }
            if let Some(wanted) = &self.image
                && !field.eq_ignore_ascii_case(wanted)
            {
                left_out += 1;
                example.get_or_insert_with(|| (format!("the field `{wanted}`"), name.to_string()));
                continue;
            }
            match of_key.get(key) {
                None => {
                    of_key.insert(key.to_owned(), chosen.len());
                    chosen.push((key.to_owned(), image));
                }
                Some(at) => {
                    left_out += 1;
                    let there = &chosen[*at].1.name;
                    let other = there[key.len()..].trim_start_matches('.');
                    // Of two members of one name the later one is meant, as for tar itself.
                    let (new, old) = ((preference(field), field), (preference(other), other));
                    let (used, not) = if new <= old { (field, other) } else { (other, field) };
                    if example.is_none() {
                        example = Some((format!("`{used}`"), format!("{key}.{not}")));
                    }
                    if new <= old {
                        chosen[*at].1 = image;
                    }
                }
            }
        }
        if let Some((used, first)) = example {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.notes.push(format!(
                "{name}: samples with several images: {used} is used, {left_out} others are not (the first: {first}); \
                 data.image names another field"
            ));
        }
        // The key stands in the place of the name until labels are known.
        for (key, image) in chosen {
            if let Some((value, _)) = self.labels.remove(&(number, key)) {
                self.labels.insert((number, image.name.to_string()), (value, String::new()));
            }
            self.entries.push(image);
        }
        let orphans: Vec<&(u32, String)> = self
            .labels
            .iter()
            .filter(|((n, _), (_, name))| *n == number && !name.is_empty())
            .map(|(k, _)| k)
            .collect();
        if let Some((_, first)) = orphans.first() {
            let count = orphans.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.notes.push(format!("{name}: {count} labels without an image (the first: {first})"));
        }
        Ok(())
    }

    /// The images of each part, with their classes.
    fn finish(mut self, with_parts: bool) -> Vec<(Option<&'static str>, Found<Members>)> {
        let mut entries = std::mem::take(&mut self.entries);
        let any_class = self.labels.values().any(|(_, name)| name.is_empty());
        let folders: Vec<Vec<String>> = entries.iter().map(|m| folders_of(&m.name)).collect();
        let different: Vec<Vec<String>> =
            folders.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let scheme = scheme(&different, with_parts);
        let folder = |i: usize| different.binary_search(&folders[i]).unwrap_or(0);
        let mut parts: Vec<Option<&'static str>> =
            (0..entries.len()).map(|i| scheme.parts[folder(i)]).collect();
        let mut classes = Vec::new();
        if any_class {
            let value =
                |m: &Member| self.labels.get(&(m.shard, m.name.to_string())).map(|(value, _)| value.clone());
            let values: Vec<Value> = entries.iter().map(|m| value(m).unwrap_or(Value::Missing)).collect();
            let numbered = number(&values, &[]);
            classes = numbered.classes;
            let mut keep = Vec::with_capacity(entries.len());
            for (member, label) in entries.iter_mut().zip(numbered.labels) {
                keep.push(label.is_ok());
                match label {
                    Ok(label) => member.label = label,
                    Err(reason) => {
                        let shard = self.shards[member.shard as usize].path();
                        self.skipped.push(Skipped::new(shard, format!("{}: {reason}", member.name)));
                    }
                }
            }
            let (mut first, mut second) = (keep.iter(), keep.iter());
            entries.retain(|_| *first.next().unwrap_or(&true));
            parts.retain(|_| *second.next().unwrap_or(&true));
        } else if scheme.classes.len() > 1 {
            classes.clone_from(&scheme.classes);
            for (i, member) in entries.iter_mut().enumerate() {
                member.label = scheme.labels[folder(i)].unwrap_or(NONE);
            }
            self.notes.extend(warn_of_parts(&classes));
        }
        self.notes.extend(self.passed.note("members"));
        if !any_class && self.label.is_none() {
            self.notes.extend(self.hint());
        }
        let shards = Arc::new(std::mem::take(&mut self.shards));
        let mut rest = Found {
            skipped: std::mem::take(&mut self.skipped),
            notes: std::mem::take(&mut self.notes),
            files: self.members,
            format: "tar shards",
            classes,
            store: Members { shards: Arc::clone(&shards), entries: Vec::new() },
        };
        if parts.iter().all(Option::is_none) {
            rest.store.entries = entries;
            return vec![(None, rest)];
        }
        let beside = parts.iter().filter(|part| part.is_none()).count();
        if beside > 0 {
            rest.notes.push(format!("{beside} images beside the parts are not used"));
        }
        let mut found = Vec::new();
        for part in PARTS {
            let mine: Vec<Member> = entries
                .iter()
                .zip(&parts)
                .filter(|(_, p)| **p == Some(part))
                .map(|(m, _)| m.clone())
                .collect();
            if !mine.is_empty() {
                let store = Members { shards: Arc::clone(&shards), entries: mine };
                let (skipped, notes) = (std::mem::take(&mut rest.skipped), std::mem::take(&mut rest.notes));
                let (files, format) = (rest.files, rest.format);
                found.push((
                    Some(part),
                    Found { store, classes: rest.classes.clone(), skipped, notes, files, format },
                ));
            }
        }
        found
    }
}

/// The longest label that is read.
const MAX_TEXT: u64 = 256;
/// The longest JSON that is read for a label.
const MAX_JSON: u64 = 1 << 20;

/// The label that a JSON holds: itself, or in an object the value of a name, by default one that means labels.
fn json_value(text: &str, key: Option<&str>) -> Value {
    const NAMES: [&str; 9] =
        ["label", "cls", "class", "target", "class_id", "label_id", "category", "category_id", "y"];
    let json: serde_json::Value = match serde_json::from_str(text) {
        Ok(json) => json,
        Err(e) => return Value::Wrong(format!("the label is damaged JSON: {e}")),
    };
    let found = match (&json, key) {
        (serde_json::Value::Object(all), Some(key)) => all.get(key),
        (serde_json::Value::Object(all), None) => NAMES.iter().find_map(|name| all.get(*name)),
        (_, Some(_)) => None,
        (other, None) => Some(other),
    };
    let Some(found) = found else {
        let all = json.as_object().map_or_else(Vec::new, |all| all.keys().take(12).cloned().collect());
        return Value::Wrong(format!(
            "its JSON has no `{}`; there are: {} (data.label = \"json.NAME\" names one)",
            key.unwrap_or("label"),
            all.join(", ")
        ));
    };
    match found {
        serde_json::Value::Null => Value::Missing,
        serde_json::Value::Bool(v) => Value::Number(i64::from(*v)),
        serde_json::Value::String(text) => Value::of_text(text),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::of_number(whole),
            (None, Some(float)) => Value::of_float(float),
            (None, None) => Value::Wrong(format!("the label {number} is no whole number")),
        },
        _ => Value::Wrong("the label in its JSON is neither a number nor a text".into()),
    }
}

/// A name without the field that is asked for, or without its extension.
fn field_stem<'a>(name: &'a str, field: Option<&str>) -> &'a str {
    match field {
        Some(field) => name.get(..name.len().saturating_sub(field.len() + 1)).unwrap_or(name),
        None => stem_of(name).0,
    }
}

/// Whether the extended header of a member says that it is sparse: its bytes then begin with a table.
fn is_pax_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let extensions = entry.pax_extensions().ok().flatten();
    extensions.is_some_and(|all| all.flatten().any(|e| e.key_bytes().starts_with(b"GNU.sparse")))
}

/// Bytes of a file.
fn take(file: &Path, offset: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let place = Place::open(file).map_err(std::io::Error::other)?;
    place.take(offset, len)
}

/// A name without `.` and `..` and double slashes.
fn plain(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The target of a link that lies at `name`.
fn beside(name: &str, target: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, _)) => plain(&format!("{folder}/{target}")),
        None => plain(target),
    }
}

/// The folders that lead to a member.
fn folders_of(name: &str) -> Vec<String> {
    let plain = plain(name);
    let mut folders: Vec<String> = plain.split('/').map(str::to_owned).collect();
    folders.pop();
    folders
}
