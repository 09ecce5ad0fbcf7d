//! The class of each row.

use anyhow::{Context as _, Result, bail};
use infomax_data::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

/// The class of each row, where it is known, and the names of classes that have any.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    pub(super) classes: Vec<Option<u32>>,
    pub(super) names: BTreeMap<u32, String>,
    /// The first line of a text of words, which may have been the name of the column.
    header: Option<String>,
}

impl Labels {
    pub(super) fn named(classes: Vec<Option<u32>>, names: BTreeMap<u32, String>) -> Self {
        Self { classes, names, header: None }
    }
}

/// What a column of labels is called.
const HEADERS: [&str; 6] = ["label", "labels", "class", "target", "y", "category"];

/// The labels of `--labels`: a file, `FILE:NAME` of an archive, for `rows` embeddings; with what is to be said. `table`
/// has the columns that could have been meant.
pub(super) fn of_argument(path: &Path, rows: usize, table: &Table) -> Result<(Labels, Option<String>)> {
    let word = path.to_string_lossy();
    if !path.exists() {
        let archive = word.rsplit_once(':').map(|(file, _)| Path::new(file));
        let archive = archive.filter(|file| {
            let kind = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            ["npz", "safetensors", "pt", "pth"].contains(&kind.as_str())
        });
        if let Some(archive) = archive {
            super::read::readable(archive)?;
            return Ok((of_archive(&word)?, None));
        }
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let columns = match names.as_slice() {
            [] => "there are no columns beside the embeddings; --columns FILE adds some".to_owned(),
            names => format!("the columns are: {}", names.join(", ")),
        };
        bail!("--labels {word}: there is neither such a file nor such a column; {columns}");
    }
    super::read::readable(path)?;
    let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if ["npz", "safetensors", "pt", "pth"].contains(&kind.as_str()) {
        return Ok((of_archive(&word)?, None));
    }
    let labels = of_file(path)?;
    // A header that looks as a label: one line more than rows.
    if labels.classes.len() == rows + 1
        && let Some(first) = labels.header.clone()
    {
        let note = format!(
            "{word}: its first line `{first}` is taken for the name of the column: there are {rows} rows"
        );
        return Ok((of_lines(path, true)?, Some(note)));
    }
    Ok((labels, None))
}

/// Whole numbers of an array among others, `FILE:NAME`; a file of one array needs no name.
fn of_archive(word: &str) -> Result<Labels> {
    let array = crate::arrays::tensor(word).with_context(|| format!("--labels {word}"))?;
    let values = array.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if array.dims().iter().filter(|d| **d != 1).count() > 1 {
        bail!("--labels {word}: one label a row is needed, not an array {:?}", array.dims());
    }
    let classes = values.iter().enumerate().map(|(row, v)| class(*v, row, Path::new(word)));
    Ok(Labels { classes: classes.collect::<Result<_>>()?, ..Labels::default() })
}

/// One class a row: whole numbers of an array, or words of a text.
fn of_file(path: &Path) -> Result<Labels> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(6).read_to_end(&mut start)?;
    if start == b"\x93NUMPY" {
        let (classes, names) = infomax_data::npy::read_named_labels(path)?;
        return Ok(Labels { classes, names: (0u32..).zip(names).collect(), header: None });
    }
    of_lines(path, false)
}

/// A label on each line of a text; its first line is none if it is the name of the column.
fn of_lines(path: &Path, named: bool) -> Result<Labels> {
    let shown = path.display();
    let array = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let text = String::from_utf8(array).map_err(|_| {
        anyhow::anyhow!("{shown} is neither an .npy file nor a text with a label on each line")
    })?;
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    if let Some(line) = lines.iter().position(|line| line.contains(['\t', ';', ','])) {
        bail!(
            "{shown}: line {} holds several columns, and one label a line is read; as a table: --columns {shown} --labels \
             NAME, with the name of the column of the labels",
            line + 1
        );
    }
    let header = lines.first().filter(|line| line.parse::<f64>().is_err()).map(|line| (*line).to_owned());
    // A name above numbers, or the word itself, is a header.
    let number = |line: &&str| line.is_empty() || line.parse::<f64>().is_ok();
    if let Some((first, rest)) = lines.split_first()
        && (named
            || HEADERS.contains(&first.to_lowercase().as_str())
            || (!number(first) && !rest.is_empty() && rest.iter().all(number)))
    {
        lines.remove(0);
    }
    let numbers: Option<Vec<Option<f64>>> =
        lines.iter().map(|l| if l.is_empty() { Some(None) } else { l.parse().ok().map(Some) }).collect();
    if let Some(numbers) = numbers {
        let known = |(row, v): (usize, &Option<f64>)| v.map_or(Ok(None), |v| class(v, row, path));
        let classes = numbers.iter().enumerate().map(known).collect::<Result<_>>()?;
        return Ok(Labels { classes, ..Labels::default() });
    }
    let words: Vec<Option<&str>> = lines.iter().map(|l| Some(*l).filter(|l| !l.is_empty())).collect();
    Ok(Labels { header, ..of_words(&words) })
}

/// A whole number as a class; a negative one or NaN is unknown.
fn class(value: f64, row: usize, path: &Path) -> Result<Option<u32>> {
    if value.is_nan() || value < 0.0 {
        return Ok(None);
    }
    if value.fract() != 0.0 || value > f64::from(u32::MAX) {
        bail!("{}: the label {value} of row {row} is no class: a whole number below 2^32", path.display());
    }
    Ok(Some(value as u32))
}

/// The classes of a column of texts: whole numbers as they are, else words.
pub(super) fn of_column(values: &[Option<String>]) -> Labels {
    let number = |v: &Option<String>| match v {
        None => Some(None),
        Some(text) => {
            let value = text.parse::<f64>().ok()?;
            if value.is_nan() || value == -1.0 {
                return Some(None);
            }
            (value.fract() == 0.0 && (0.0..4e9).contains(&value)).then_some(Some(value as u32))
        }
    };
    if let Some(classes) = values.iter().map(number).collect::<Option<Vec<_>>>() {
        return Labels { classes, ..Labels::default() };
    }
    of_words(&values.iter().map(Option::as_deref).collect::<Vec<_>>())
}

/// Words are counted in the order of the alphabet.
fn of_words(words: &[Option<&str>]) -> Labels {
    let all: BTreeSet<&str> = words.iter().copied().flatten().collect();
    let number: BTreeMap<&str, u32> = all.into_iter().zip(0u32..).collect();
    Labels {
        classes: words.iter().map(|word| word.and_then(|word| number.get(word).copied())).collect(),
        names: number.into_iter().map(|(word, number)| (number, word.to_owned())).collect(),
        header: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_numbers_or_words() {
        let of = |words: &[&str]| {
            let column: Vec<Option<String>> =
                words.iter().map(|w| (!w.is_empty()).then(|| (*w).to_owned())).collect();
            of_column(&column)
        };
        let numbers = of(&["3", "", "7.0", "-1"]);
        assert!(numbers.classes == [Some(3), None, Some(7), None] && numbers.names.is_empty());
        let words = of(&["dog", "cat", "", "dog"]);
        assert_eq!(words.classes, [Some(1), Some(0), None, Some(1)]);
        assert_eq!(words.names[&1], "dog");
        assert_eq!(of(&["1", "1.5"]).names.len(), 2, "numbers that are no classes are words");
    }
}
