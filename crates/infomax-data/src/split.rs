//! The part of a data set that a name tells: one vocabulary for folders, files, shards, arrays and lists.

use std::collections::BTreeSet;

/// The parts in the order in which they are listed.
pub(crate) const PARTS: [&str; 4] = ["train", "test", "val", "unlabeled"];

/// The part that one word tells, in any case.
pub(crate) fn part_of_word(word: &str) -> Option<&'static str> {
    match word.to_lowercase().as_str() {
        "train" | "training" | "trn" | "trainset" | "trainval" | "xtrain" | "ytrain" | "trainx"
        | "trainy" => Some("train"),
        "test" | "testing" | "tst" | "testset" | "eval" | "evaluation" | "holdout" | "heldout" | "xtest"
        | "ytest" | "testx" | "testy" => Some("test"),
        "val" | "valid" | "validation" | "validate" | "valset" | "dev" | "devel" | "development" | "xval"
        | "yval" => Some("val"),
        "unlabeled" | "unlabelled" | "unsupervised" => Some("unlabeled"),
        _ => None,
    }
}

/// The part that a name tells, if it has a word of the vocabulary, in any case, between separators, digits or
/// changes of case: `TRAIN-000`, `x_test`, `trainImages`. `unlabeled` counts before all others.
pub(crate) fn split_of(name: &str) -> Option<&'static str> {
    let found: Vec<&'static str> = words(name).iter().filter_map(|word| part_of_word(word)).collect();
    found.iter().find(|part| **part == "unlabeled").or(found.first()).copied()
}

/// The parts that the folders of one level are, `None` for a folder that is none; nothing if they are no parts.
///
/// A folder names a part if its name is a word of the vocabulary, with or without words like `set` or `images`
/// (`training_set`, `Test Images`, `val2017`), or with a word that all parts share (`seg_train`, `seg_test`). They
/// are parts if one of them is `train` and another one something else, or if there is nothing but such folders. A
/// class that is called `train` among other classes makes no parts.
pub(crate) fn parts_of(names: &[&str]) -> Option<Vec<Option<&'static str>>> {
    let named: Vec<Option<(&'static str, String)>> = names.iter().map(|name| part_and_rest(name)).collect();
    let rests: BTreeSet<&str> = named.iter().flatten().map(|(_, rest)| rest.as_str()).collect();
    // Plain names first: the empty rest is the least.
    for rest in rests {
        let of =
            |n: &Option<(&'static str, String)>| n.as_ref().filter(|(_, r)| r == rest).map(|(part, _)| *part);
        let parts: Vec<Option<&'static str>> = named.iter().map(of).collect();
        let different: BTreeSet<&str> = parts.iter().flatten().copied().collect();
        let only = rest.is_empty() && parts.iter().all(Option::is_some);
        if only || (different.len() > 1 && different.contains("train")) {
            return Some(parts);
        }
    }
    None
}

/// Whether a class of this name is probably a part that was not recognized as one.
pub(crate) fn is_part_name(name: &str) -> bool {
    part_and_rest(name).is_some_and(|(_, rest)| rest.is_empty())
}

/// The part that a folder's name tells, and what else the name says.
fn part_and_rest(name: &str) -> Option<(&'static str, String)> {
    const FILLING: [&str; 16] = [
        "set", "data", "dataset", "images", "image", "imgs", "img", "split", "part", "folder", "pictures",
        "photos", "jpg", "jpeg", "png", "files",
    ];
    let words = words(name);
    let parts: BTreeSet<&'static str> = words.iter().filter_map(|word| part_of_word(word)).collect();
    let (Some(part), 1) = (parts.first().copied(), parts.len()) else { return None };
    let rest = words.iter().filter(|w| part_of_word(w).is_none() && !FILLING.contains(&w.as_str()));
    Some((part, rest.cloned().collect::<Vec<_>>().join(" ")))
}

/// The words of a name in lower case: runs of letters, parted where the case changes.
pub(crate) fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (i, c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| chars.get(i));
        let after = chars.get(i + 1);
        let starts = c.is_uppercase()
            && (before.is_some_and(|b| b.is_lowercase())
                || (before.is_some_and(|b| b.is_uppercase()) && after.is_some_and(|a| a.is_lowercase())));
        if (starts || !c.is_alphabetic()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{parts_of, split_of};

    #[test]
    fn words_between_separators() {
        assert_eq!(split_of("data/train-00000-of-00002"), Some("train"));
        assert_eq!(split_of("x_test"), Some("test"));
        assert_eq!(split_of("imagenet-validation-3"), Some("val"));
        assert_eq!(split_of("trainer"), None);
        assert_eq!(split_of("images"), None);
    }

    #[test]
    fn any_case_and_camel_case() {
        for (name, part) in [
            ("TRAIN", "train"),
            ("Testing", "test"),
            ("XTrain", "train"),
            ("trainImages", "train"),
            ("YTEST", "test"),
            ("val2017", "val"),
            ("Dev", "val"),
            ("EVAL-0", "test"),
            ("train_unlabelled", "unlabeled"),
        ] {
            assert_eq!(split_of(name), Some(part), "{name}");
        }
    }

    #[test]
    fn folders_are_parts_or_classes() {
        let parts = |names: &[&str]| parts_of(names);
        assert_eq!(parts(&["Testing", "Training"]), Some(vec![Some("test"), Some("train")]));
        assert_eq!(
            parts(&["seg_pred", "seg_test", "seg_train"]),
            Some(vec![None, Some("test"), Some("train")])
        );
        assert_eq!(parts(&["test_set", "training_set"]), Some(vec![Some("test"), Some("train")]));
        assert_eq!(
            parts(&["annotations", "train2017", "val2017"]),
            Some(vec![None, Some("train"), Some("val")])
        );
        assert_eq!(parts(&["Validation", "train"]), Some(vec![Some("val"), Some("train")]));
        assert_eq!(parts(&["val", "test"]), Some(vec![Some("val"), Some("test")]));
        assert_eq!(parts(&["bus", "car", "train"]), None);
        assert_eq!(parts(&["test tube", "beaker"]), None);
        assert_eq!(parts(&["train station", "test tube"]), None);
        assert_eq!(parts(&["cat", "dog"]), None);
        assert_eq!(parts(&[]), None);
    }
}
