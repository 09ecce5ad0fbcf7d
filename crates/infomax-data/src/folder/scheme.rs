//! Which folder says the class, and which one the part of a data set.

use crate::split::parts_of;
use std::collections::BTreeSet;

/// What the names of the folders that lead to images say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// The part of each folder, where the folders are parts.
    pub(crate) parts: Vec<Option<&'static str>>,
    /// The class of each folder, as an index into `classes`.
    pub(crate) labels: Vec<Option<u32>>,
    /// In the order of the alphabet.
    pub(crate) classes: Vec<String>,
}

/// Reads the names of all folders that hold images; `folders` holds for each of them the names from the root on.
///
/// Folders that wrap all others are passed through: the class is the first name at which the folders differ. Where
/// the names at that level are parts (`split` has the vocabulary), the class is the first name behind it, passing
/// through what wraps again; and where the names one level below the classes are parts (`cat/train`, `cat/test`),
/// they are that. `with_parts` says whether parts are looked for.
pub(crate) fn scheme(folders: &[Vec<String>], with_parts: bool) -> Scheme {
    let all: Vec<usize> = (0..folders.len()).collect();
    let mut parts = vec![None; folders.len()];
    let mut class: Vec<Option<&str>> = vec![None; folders.len()];
    let level = through(folders, &all, 0);
    match parts_at(folders, &all, level).filter(|_| with_parts) {
        Some(found) => {
            parts = found;
            let different: BTreeSet<_> = parts.iter().copied().collect();
            for part in different {
                let mine: Vec<usize> = all.iter().copied().filter(|i| parts[*i] == part).collect();
                let below = through(folders, &mine, level + 1);
                for i in mine {
                    class[i] = folders[i].get(below).map(String::as_str).filter(|_| part.is_some());
                }
            }
        }
        None => {
            for i in &all {
                class[*i] = folders[*i].get(level).map(String::as_str);
            }
            if let Some(found) = parts_at(folders, &all, level + 1).filter(|_| with_parts) {
                // What lies beside the parts of a class is trained on.
                parts = found.into_iter().map(|part| Some(part.unwrap_or("train"))).collect();
            }
        }
    }
    let names: BTreeSet<&str> = class.iter().flatten().copied().collect();
    let classes: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let number = |name: &str| classes.binary_search_by(|c| c.as_str().cmp(name)).ok().map(|i| i as u32);
    let labels = class.iter().map(|name| name.and_then(number)).collect();
    Scheme { parts, labels, classes }
}

/// The names at a level, of some folders.
fn names<'a>(folders: &'a [Vec<String>], some: &[usize], level: usize) -> BTreeSet<&'a str> {
    some.iter().filter_map(|i| folders[*i].get(level)).map(String::as_str).collect()
}

/// The first level from `level` on at which folders differ, or at which images lie in the only one.
fn through(folders: &[Vec<String>], some: &[usize], mut level: usize) -> usize {
    while names(folders, some, level).len() == 1 {
        let direct = some.iter().any(|i| folders[*i].len() == level + 1);
        let below = |k: usize| names(folders, some, level + k).len();
        // Beside images, a folder wraps others only if they differ further down.
        let differ = (1..).map(below).find(|n| *n != 1).is_some_and(|n| n > 1);
        if below(1) == 0 || (direct && !differ) {
            break;
        }
        level += 1;
    }
    level
}

/// The parts that the names at a level are.
fn parts_at(folders: &[Vec<String>], some: &[usize], level: usize) -> Option<Vec<Option<&'static str>>> {
    let names: Vec<&str> = names(folders, some, level).into_iter().collect();
    let parts = parts_of(&names)?;
    let different: BTreeSet<_> = parts.iter().flatten().collect();
    (different.len() > 1).then(|| {
        let of = |i: &usize| {
            let name = folders[*i].get(level)?;
            names.binary_search(&name.as_str()).ok().and_then(|at| parts[at])
        };
        some.iter().map(of).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::scheme;

    /// `part:class` of each folder.
    fn read(folders: &[&str]) -> Vec<String> {
        let split = |path: &&str| path.split('/').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        let found = scheme(&folders.iter().map(split).collect::<Vec<_>>(), true);
        let class = |label: &Option<u32>| label.map_or("-", |l| &*found.classes[l as usize]);
        let both = found.parts.iter().zip(&found.labels);
        both.map(|(part, label)| format!("{}:{}", part.unwrap_or("-"), class(label))).collect()
    }

    #[test]
    fn classes_are_where_folders_differ() {
        assert_eq!(read(&["cat", "dog", "dog/deep"]), ["-:cat", "-:dog", "-:dog"]);
        assert_eq!(read(&["", "cat", "dog"]), ["-:-", "-:cat", "-:dog"]);
        assert_eq!(read(&["set/images/cat", "set/images/dog/x"]), ["-:cat", "-:dog"]);
        assert_eq!(
            read(&["", "set/images", "set/images/cat", "set/images/dog"]),
            ["-:-", "-:-", "-:cat", "-:dog"]
        );
        assert_eq!(read(&["set", "set/images/cat", "set/images/dog"]), ["-:-", "-:cat", "-:dog"]);
        assert_eq!(read(&["cat"]), ["-:cat"]);
        assert_eq!(read(&["images/cat"]), ["-:cat"]);
        assert_eq!(read(&["dog", "dog/deep"]), ["-:dog", "-:dog"]);
        assert_eq!(read(&["n1/images", "n2/images"]), ["-:n1", "-:n2"]);
    }

    #[test]
    fn parts_are_above_or_below_the_classes() {
        assert_eq!(
            read(&["", "x/Train/cat", "x/Train/dog", "x/TEST/data/cat", "x/TEST/data/dog"]),
            ["-:-", "train:cat", "train:dog", "test:cat", "test:dog"]
        );
        assert_eq!(
            read(&["cat/test", "cat/train", "dog/test", "dog/train", "dog/x"]),
            ["test:cat", "train:cat", "test:dog", "train:dog", "train:dog"]
        );
        assert_eq!(read(&["car", "train"]), ["-:car", "-:train"]);
    }
}
