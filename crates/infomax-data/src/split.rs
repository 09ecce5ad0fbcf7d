//! The part of a data set that a name tells.

/// `train`, `test`, `val` or `unlabeled`, if a name has one of these words (or `validation`, `valid`, `dev`)
/// between separators.
pub(crate) fn split_of(name: &str) -> Option<&'static str> {
    name.to_lowercase().split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match word {
        "train" | "training" | "xtrain" | "ytrain" => Some("train"),
        "test" | "testing" | "xtest" | "ytest" => Some("test"),
        "val" | "valid" | "validation" | "dev" | "xval" | "yval" => Some("val"),
        "unlabeled" | "unlabelled" | "unsupervised" => Some("unlabeled"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::split_of;

    #[test]
    fn words_between_separators() {
        assert_eq!(split_of("data/train-00000-of-00002"), Some("train"));
        assert_eq!(split_of("x_test"), Some("test"));
        assert_eq!(split_of("imagenet-validation-3"), Some("val"));
        assert_eq!(split_of("trainer"), None);
        assert_eq!(split_of("images"), None);
    }
}
