//! One list of classes for all parts of a data set.

use crate::Result;
use crate::dataset::{Dataset, Part, SizeRange};
use crate::labels::{NONE, natural};
use crate::options::Skipped;
use infomax_augment::{CropBox, Image};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Another data set with other numbers of classes.
#[derive(Debug)]
struct Relabeled {
    inner: Arc<dyn Dataset>,
    /// The new number of each class.
    numbers: Vec<u32>,
    classes: Vec<String>,
}

/// Gives all parts the same list of classes, so that a class has the same number in each of them. Classes are the
/// same if their names are; where one part of a file format knows names and another one numbers only, class number
/// `n` is the `n`-th name.
pub(crate) fn unify(parts: &mut [(&'static str, Arc<dyn Dataset>)]) {
    let lists: Vec<&[String]> =
        parts.iter().map(|(_, data)| data.classes()).filter(|c| !c.is_empty()).collect();
    let Some(first) = lists.first() else { return };
    if lists.iter().all(|list| list == first) {
        return;
    }
    let numeric = |list: &[String]| list.iter().all(|name| name.parse::<i64>().is_ok());
    let named: Option<Vec<String>> = lists.iter().find(|list| !numeric(list)).map(|list| list.to_vec());
    // Folders that are called by numbers are called so, and no numbers of other folders.
    let folders = parts.iter().any(|(_, data)| data.format() == "image folder");
    let is_number = |name: &String| name.parse::<i64>().is_ok();
    let by_number = named.as_ref().filter(|names| !folders && !names.iter().any(is_number));
    // The name that stands for one of a list.
    let name_of = |list: &[String], name: &str| -> String {
        match (by_number, name.parse::<usize>()) {
            (Some(names), Ok(number)) if numeric(list) => {
                names.get(number).cloned().unwrap_or_else(|| name.to_owned())
            }
            _ => name.to_owned(),
        }
    };
    let mut classes: Vec<String> = named.clone().unwrap_or_default();
    let known: BTreeSet<String> = classes.iter().cloned().collect();
    let others: BTreeSet<String> =
        lists.iter().flat_map(|list| list.iter().map(|name| name_of(list, name))).collect();
    let mut others: Vec<String> = others.into_iter().filter(|name| !known.contains(name)).collect();
    others.sort_by(|a, b| natural(a, b));
    classes.extend(others);
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, number) in classes.iter().zip(0u32..) {
        numbers.entry(name).or_insert(number);
    }
    for (_, data) in parts.iter_mut().filter(|(_, data)| !data.classes().is_empty()) {
        let list = data.classes();
        if list == classes {
            continue;
        }
        let number = |name: &String| numbers.get(name_of(list, name).as_str()).copied().unwrap_or(NONE);
        let numbers = list.iter().map(number).collect();
        *data = Arc::new(Relabeled { inner: Arc::clone(data), numbers, classes: classes.clone() });
    }
}

impl Dataset for Relabeled {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.inner.image(index)
    }

    fn image_part(
        &self,
        index: usize,
        choose: &mut dyn FnMut(usize, usize) -> Result<CropBox>,
    ) -> Result<Part> {
        self.inner.image_part(index, choose)
    }

    fn label(&self, index: usize) -> Option<u32> {
        let label = self.inner.label(index)?;
        self.numbers.get(label as usize).copied().filter(|number| *number != NONE)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn place(&self, index: usize) -> String {
        self.inner.place(index)
    }

    fn format(&self) -> &'static str {
        self.inner.format()
    }

    fn skipped(&self) -> &[Skipped] {
        self.inner.skipped()
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }

    fn sizes(&self) -> Option<SizeRange> {
        self.inner.sizes()
    }

    fn blocks(&self) -> &[usize] {
        self.inner.blocks()
    }

    fn mixed_blocks(&self) -> usize {
        self.inner.mixed_blocks()
    }
}
