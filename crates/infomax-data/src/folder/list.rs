//! Images named by a text file.

use super::walk::Walked;
use super::{Files, open_error};
use crate::options::Skipped;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The largest label that is believed: more classes than that are a mistake in the file.
pub(crate) const MAX_LABEL: u32 = 999_999;

/// The text of a file, with a readable error where it is not UTF-8.
fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| open_error(path, e))?;
    String::from_utf8(bytes).map_err(|_| Error::Decode {
        path: path.to_path_buf(),
        reason: "not a text file (UTF-8); a list holds one image a line".into(),
    })
}

pub(super) fn read(path: &Path) -> Result<Walked> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let text = text(path)?;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if !line.trim().is_empty() && !line.starts_with('#') {
            let (file, label) = split(line);
            lines.push((number + 1, file, label));
        }
    }
    let named = lines.iter().any(|(_, _, label)| label.is_some_and(|l| l.parse::<i64>().is_err()));
    let names: BTreeSet<&str> = lines.iter().filter(|_| named).filter_map(|(_, _, label)| *label).collect();
    let numbers: BTreeMap<&str, u32> = names.iter().zip(0..).map(|(name, i)| (*name, i)).collect();

    let mut found = Walked::default();
    found.store.enter(folder.to_path_buf());
    let mut most = None;
    for (number, file, label) in lines {
        found.seen += 1;
        let label = match label {
            None => None,
            Some(name) if named => numbers.get(name).copied(),
            Some(digits) => match digits.parse::<u32>() {
                Ok(label) if label <= MAX_LABEL => Some(label),
                _ => {
                    let reason = format!("line {number}: the label {digits} is not in 0..={MAX_LABEL}");
                    found.unreadable.push(Skipped::new(path, reason));
                    continue;
                }
            },
        };
        if !folder.join(file).is_file() {
            found.unreadable.push(Skipped::new(path, format!("line {number}: there is no file {file}")));
            continue;
        }
        most = most.max(label);
        found.store.push(Path::new(file).as_os_str().into(), label);
    }
    found.classes = match named {
        true => names.into_iter().map(str::to_owned).collect(),
        false => (0..most.map_or(0, |m| m + 1)).map(|label| label.to_string()).collect(),
    };
    Ok(found)
}

/// Parts a line into path and label.
fn split(line: &str) -> (&str, Option<&str>) {
    let parts = line.rsplit_once('\t').or_else(|| line.rsplit_once(','));
    let parts =
        parts.or_else(|| line.trim_end().rsplit_once(' ').filter(|(_, label)| label.parse::<i64>().is_ok()));
    match parts {
        Some((file, label)) => (file.trim(), Some(label.trim())),
        None => (line.trim(), None),
    }
}

/// Tiny-ImageNet's `val_annotations.txt`: file, class, box, separated by tabs.
pub(super) fn annotations(root: &Path, classes: &[String]) -> Result<Walked> {
    let path = root.join("val_annotations.txt");
    let text = text(&path)?;
    let labels: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut found = Walked { store: Files::default(), classes: classes.to_vec(), ..Walked::default() };
    found.store.enter(root.join("images"));
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        found.seen += 1;
        let mut fields = line.split('\t');
        let (file, class) = (fields.next().unwrap_or(""), fields.next().unwrap_or("").trim());
        match labels.get(class) {
            Some(label) => found.store.push(Path::new(file).as_os_str().into(), Some(*label)),
            None => {
                let reason = format!("line {}: `{class}` is not a class of the training set", number + 1);
                found.unreadable.push(Skipped::new(&path, reason));
            }
        }
    }
    Ok(found)
}
