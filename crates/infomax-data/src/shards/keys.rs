//! Which members of a tar shard are one sample.

use crate::passed::is_image_extension;
use std::collections::BTreeSet;

/// A name parted into folder and stem (which together are the longest possible key), and the last extension in lower
/// case.
pub(super) fn stem_of(name: &str) -> (&str, String) {
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    match name[slash..].rfind('.') {
        Some(dot) => (&name[..slash + dot], name[slash + dot + 1..].to_lowercase()),
        None => (name, String::new()),
    }
}

/// Words before the extension that say what an image or a label is of a sample, not which sample it is of.
const FIELDS: [&str; 30] = [
    "seg",
    "segmentation",
    "mask",
    "masks",
    "depth",
    "normal",
    "normals",
    "edge",
    "edges",
    "label",
    "labels",
    "class",
    "target",
    "gt",
    "annotation",
    "annotations",
    "image",
    "img",
    "rgb",
    "input",
    "output",
    "thumb",
    "thumbnail",
    "preview",
    "instance",
    "semantic",
    "panoptic",
    "heatmap",
    "flow",
    "attention",
];

/// Whether a word is one of [`FIELDS`], or the extension of an image.
fn is_field(word: &str) -> bool {
    let word = word.trim_end_matches(|c: char| c.is_ascii_digit()).to_lowercase();
    FIELDS.contains(&word.as_str()) || is_image_extension(&word)
}

/// A stem without the words of fields at its end.
pub(super) fn without_fields(stem: &str) -> &str {
    let slash = stem.rfind('/').map_or(0, |at| at + 1);
    let mut end = stem.len();
    while let Some(dot) = stem[slash..end].rfind('.') {
        if dot == 0 || !is_field(&stem[slash + dot + 1..end]) {
            break;
        }
        end = slash + dot;
    }
    &stem[..end]
}

/// The keys of a shard.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Those of labels.
    labels: BTreeSet<String>,
    /// The stems of all members.
    stems: BTreeSet<String>,
}

impl Keys {
    /// Takes a member into account: its stem, and whether it is a label.
    pub(super) fn add(&mut self, stem: &str, is_label: bool) {
        if is_label {
            self.labels.insert(without_fields(stem).to_owned());
        }
        self.stems.insert(stem.to_owned());
    }

    /// The key of an image by its stem.
    ///
    /// The stem itself, if a label has it; else the longest part of it up to a dot that a label has, unless labels
    /// have longer keys that start alike (`v1.00003` is no sample `v1` beside labels of `v1.00000`); else the stem
    /// without the words of fields (`k.seg`), or, where such a part of it is the stem of another member, without
    /// any words that begin with a letter (`k.left` beside `k.jpg` or `k.json`).
    pub(super) fn of<'a>(&self, stem: &'a str) -> &'a str {
        if self.labels.contains(stem) {
            return stem;
        }
        let slash = stem.rfind('/').map_or(0, |at| at + 1);
        let dots: Vec<usize> = stem[slash..].match_indices('.').map(|(at, _)| slash + at).collect();
        let shorter = || dots.iter().rev().filter(|at| **at > slash).map(|at| &stem[..*at]);
        for part in shorter().filter(|part| self.labels.contains(*part)) {
            let longer = format!("{part}.");
            if self.labels.range(longer.clone()..).next().is_none_or(|next| !next.starts_with(&longer)) {
                return part;
            }
        }
        let plain = without_fields(stem);
        let lettered = |part: &str| {
            let words = stem[part.len()..].split('.').skip(1);
            words.into_iter().all(|word| word.starts_with(|c: char| c.is_alphabetic()))
        };
        let other = shorter().filter(|part| part.len() < plain.len() && lettered(part));
        let mut other = other.filter(|part| self.stems.contains(*part));
        other.next().unwrap_or(plain)
    }
}

/// How an image is preferred among those of a sample: fewer words before the extension, none of a mask or the like,
/// then by its extension.
pub(super) fn preference(field: &str) -> (usize, bool, usize) {
    const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"];
    let words: Vec<&str> = field.split('.').collect();
    let last = words.last().copied().unwrap_or_default();
    let annotates = |w: &&str| {
        is_field(w)
            && !["image", "img", "rgb", "input"].iter().any(|known| w.to_lowercase().starts_with(known))
    };
    let masks = words.iter().take(words.len().saturating_sub(1)).any(annotates);
    let extension = EXTENSIONS.iter().position(|e| last.eq_ignore_ascii_case(e)).unwrap_or(EXTENSIONS.len());
    (words.len(), masks, extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(members: &[&str]) -> Keys {
        let mut keys = Keys::default();
        for name in members {
            let (stem, extension) = stem_of(name);
            keys.add(stem, extension == "cls");
        }
        keys
    }

    fn key<'a>(members: &[&str], name: &'a str) -> &'a str {
        keys(members).of(stem_of(name).0)
    }

    #[test]
    fn the_full_stem_as_far_as_members_allow() {
        let dotted = ["v1.00000.jpg", "v1.00000.cls", "v1.00001.jpg", "v1.00001.cls", "v1.00002.jpg"];
        assert_eq!(key(&dotted, "v1.00001.jpg"), "v1.00001");
        assert_eq!(key(&dotted, "v1.00002.jpg"), "v1.00002");
        assert_eq!(key(&["v1.cls", "v1.00000.cls"], "v1.00003.jpg"), "v1.00003");
        assert_eq!(key(&["2024.01.05.cls", "2024.01.06.cls"], "2024.01.05.jpg"), "2024.01.05");
        assert_eq!(key(&["k.cls", "k.jpg", "k.seg.png"], "k.seg.png"), "k");
        assert_eq!(key(&["k.jpg", "k.seg.png"], "k.seg.png"), "k");
        assert_eq!(key(&["a.b/k.left.png", "a.b/k.right.png", "a.b/k.cls"], "a.b/k.left.png"), "a.b/k");
        assert_eq!(key(&["k.json", "k.left.png"], "k.left.png"), "k");
        assert_eq!(key(&["k.0.jpg", "k.1.jpg", "k.cls"], "k.0.jpg"), "k");
        assert_eq!(key(&["k.label.cls", "k.jpg"], "k.jpg"), "k");
        // Without anything else at the shorter key, names with dots are samples of their own.
        assert_eq!(key(&["img.alpha.jpg", "img.beta.jpg"], "img.beta.jpg"), "img.beta");
        assert_eq!(key(&["v1.jpg", "v1.00000.jpg"], "v1.00000.jpg"), "v1.00000");
        assert_eq!(key(&[], ".x.jpg"), ".x");
    }

    #[test]
    fn one_image_is_preferred() {
        let best = |fields: &[&'static str]| *fields.iter().min_by_key(|f| preference(f)).unwrap();
        assert_eq!(best(&["seg.png", "jpg"]), "jpg");
        assert_eq!(best(&["png", "jpg"]), "jpg");
        assert_eq!(best(&["mask.png", "image.png"]), "image.png");
        assert_eq!(best(&["depth.png", "left.png"]), "left.png");
    }
}
