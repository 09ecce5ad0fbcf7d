//! The class of each row, from whatever holds it.

use crate::arrays;
use anyhow::{Context as _, Result, bail};
use infomax_data::{Table, npy, read_table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a column of labels is called, where none is named.
pub(crate) const LABELS: [&str; 5] = ["label", "labels", "class", "target", "category"];
/// What stands above the labels of a text.
const HEADERS: [&str; 6] = ["label", "labels", "class", "target", "y", "category"];
/// Tables, whose columns are `FILE:NAME`.
const TABLES: [&str; 7] = ["parquet", "pq", "jsonl", "ndjson", "csv", "tsv", "txt"];
/// Archives, whose arrays are `FILE:NAME`.
const ARCHIVES: [&str; 4] = ["npz", "safetensors", "pt", "pth"];

/// The class of each row, where it is known, and the names of classes that have any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    pub(crate) classes: Vec<Option<u32>>,
    pub(crate) names: BTreeMap<u32, String>,
}

impl Labels {
    pub(crate) fn named(classes: Vec<Option<u32>>, names: BTreeMap<u32, String>) -> Self {
        Self { classes, names }
    }
}

/// Labels as they were read: missing are an empty text, NaN and a negative number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    Numbers(Vec<Option<u32>>),
    Words(Vec<Option<String>>),
}

impl Raw {
    /// The classes of a column of texts: whole numbers as they are, else words.
    pub(crate) fn of_column(values: &[Option<String>]) -> Self {
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
        match values.iter().map(number).collect::<Option<Vec<_>>>() {
            Some(classes) => Self::Numbers(classes),
            None => Self::Words(values.to_vec()),
        }
    }

    /// Words are counted in the order of the alphabet; numbers stay.
    pub(crate) fn labels(&self) -> Labels {
        match self {
            Self::Numbers(classes) => Labels { classes: classes.clone(), ..Labels::default() },
            Self::Words(_) => {
                let Classes { names, mut files } = together(&[self]);
                Labels { classes: files.swap_remove(0), names: (0u32..).zip(names).collect() }
            }
        }
    }

    fn words(&self) -> Vec<Option<String>> {
        match self {
            Self::Numbers(values) => values.iter().map(|v| v.map(|v| v.to_string())).collect(),
            Self::Words(values) => values.clone(),
        }
    }

    /// The labels of several files, one after the other: numbers, unless one holds words.
    fn joined(parts: Vec<Self>) -> Self {
        if parts.iter().all(|part| matches!(part, Self::Numbers(_))) {
            let numbers = parts.into_iter().flat_map(|part| match part {
                Self::Numbers(values) => values,
                Self::Words(_) => Vec::new(),
            });
            return Self::Numbers(numbers.collect());
        }
        Self::Words(parts.iter().flat_map(Self::words).collect())
    }
}

/// Classes from 0 without gaps, the same in all files.
pub(crate) struct Classes {
    /// Their names by number: in the order of numbers where all are, else of the alphabet.
    pub(crate) names: Vec<String>,
    /// The class of each row of each file.
    pub(crate) files: Vec<Vec<Option<u32>>>,
}

/// Numbers the classes of several files together: a class is the same number in all of them.
pub(crate) fn together(files: &[&Raw]) -> Classes {
    let numbers: Option<Vec<&Vec<Option<u32>>>> =
        files.iter().map(|file| if let Raw::Numbers(values) = file { Some(values) } else { None }).collect();
    if let Some(files) = numbers {
        let all: BTreeSet<u32> = files.iter().flat_map(|file| file.iter().copied().flatten()).collect();
        let number: BTreeMap<u32, u32> = all.iter().copied().zip(0..).collect();
        let of =
            |file: &&Vec<Option<u32>>| file.iter().map(|v| v.and_then(|v| number.get(&v).copied())).collect();
        return Classes {
            names: all.iter().map(ToString::to_string).collect(),
            files: files.iter().map(of).collect(),
        };
    }
    let words: Vec<Vec<Option<String>>> = files.iter().map(|file| file.words()).collect();
    let all: BTreeSet<&String> = words.iter().flatten().flatten().collect();
    let number: BTreeMap<&String, u32> = all.iter().copied().zip(0..).collect();
    let of = |file: &Vec<Option<String>>| {
        file.iter().map(|v| v.as_ref().and_then(|v| number.get(v).copied())).collect()
    };
    Classes { files: words.iter().map(of).collect(), names: all.iter().map(|v| (*v).clone()).collect() }
}

/// The labels of `--labels` for `rows` embeddings: a column of `table`, which stands beside the embeddings, or what [`read`] reads; with
/// what is to be said.
pub(crate) fn of_argument(word: &str, rows: usize, table: &Table) -> Result<(Raw, Option<String>)> {
    if !Path::new(word).exists()
        && let Some((_, values)) = table.column(&[word])
    {
        return Ok((Raw::of_column(values), None));
    }
    let found = read(word, Some(rows));
    if is_there(word) {
        return found;
    }
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    let columns = match names.as_slice() {
        [] => "there are no columns beside the embeddings (`infomax inspect` takes some from --columns FILE)"
            .to_owned(),
        names => format!("the columns are: {}", names.join(", ")),
    };
    bail!("--labels {word}: there is neither such a file nor such a column; {columns}")
}

/// Whether a word names files, or an array or a column in one.
fn is_there(word: &str) -> bool {
    let (file, _) = split(word);
    Path::new(file).exists() || word.contains(['*', '?', '[']) || file != word
}

/// The file and the name of `FILE:NAME`, where the file is a table or an archive, or a folder or pattern of such.
fn split(word: &str) -> (&str, Option<&str>) {
    if Path::new(word).exists() {
        return (word, None);
    }
    match word.rsplit_once(':') {
        Some((file, name))
            if TABLES.contains(&kind(Path::new(file)).as_str())
                || ARCHIVES.contains(&kind(Path::new(file)).as_str())
                || Path::new(file).is_dir() =>
        {
            (file, Some(name))
        }
        _ => (word, None),
    }
}

fn kind(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The label of each row of a file, of `FILE:NAME` in a table or an archive, or of all files of a folder or a pattern, one after the other;
/// with what is to be said. `rows` is how many there should be, which tells a header of words from a label.
pub(crate) fn read(word: &str, rows: Option<usize>) -> Result<(Raw, Option<String>)> {
    let (place, name) = split(word);
    let files = crate::embeddings::files(place)?;
    if let [file] = files.as_slice() {
        return of_file(file, name, rows);
    }
    if files.is_empty() {
        bail!("{word}: a folder without files of labels");
    }
    let mut notes = Vec::new();
    let mut parts = Vec::new();
    for file in &files {
        let (part, note) = of_file(file, name, None)?;
        notes.extend(note);
        parts.push(part);
    }
    Ok((Raw::joined(parts), (!notes.is_empty()).then(|| notes.join("; "))))
}

fn of_file(path: &Path, name: Option<&str>, rows: Option<usize>) -> Result<(Raw, Option<String>)> {
    crate::embeddings::readable(path)?;
    let shown = path.display();
    if path.is_dir() {
        bail!("{shown} is a folder without files of labels");
    }
    let own = kind(path);
    let (raw, note) = if ARCHIVES.contains(&own.as_str()) {
        (of_archive(path, name)?, None)
    } else if TABLES[..4].contains(&own.as_str()) || name.is_some() {
        (of_table(path, name)?, None)
    } else {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        if bytes.starts_with(b"\x93NUMPY") {
            let (classes, names) = npy::decode_named_labels(path, &bytes)?;
            (of_numbered(classes, names), None)
        } else {
            let text = String::from_utf8(bytes).map_err(|_| {
                anyhow::anyhow!(
                    "{shown} is neither an .npy file of whole numbers or texts nor a text with a label on each line"
                )
            })?;
            of_text(&text, path, rows)?
        }
    };
    let none = match &raw {
        Raw::Numbers(values) => values.iter().all(Option::is_none),
        Raw::Words(values) => values.iter().all(Option::is_none),
    };
    if none {
        bail!("{shown} holds no label");
    }
    Ok((raw, note))
}

fn of_numbered(classes: Vec<Option<u32>>, names: Vec<String>) -> Raw {
    if names.is_empty() {
        return Raw::Numbers(classes);
    }
    Raw::Words(classes.iter().map(|c| c.and_then(|c| names.get(c as usize).cloned())).collect())
}

/// Numbers of an array among others, or of an .npz also texts.
fn of_archive(path: &Path, name: Option<&str>) -> Result<Raw> {
    let word = name.map_or_else(|| path.display().to_string(), |name| format!("{}:{name}", path.display()));
    if kind(path) == "npz" {
        let (place, bytes) = arrays::npz_array(path, name)?;
        let (classes, names) = npy::decode_named_labels(Path::new(&place), &bytes)?;
        return Ok(of_numbered(classes, names));
    }
    let array = arrays::tensor(&word)?;
    if array.dims().iter().filter(|d| **d != 1).count() > 1 {
        bail!("{word}: one label a row is needed, not an array {:?}", array.dims());
    }
    let values = array.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let classes = values.iter().enumerate().map(|(row, v)| class(*v, row, path));
    Ok(Raw::Numbers(classes.collect::<Result<_>>()?))
}

/// A column of a table: the one that is named, or that is called as labels are.
fn of_table(path: &Path, name: Option<&str>) -> Result<Raw> {
    let table = read_table(path)?;
    let asked = name.map_or_else(|| LABELS.to_vec(), |name| vec![name]);
    let Some((_, values)) = table.column(&asked) else {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let shown = path.display();
        bail!("{shown} has no column {}; name one: {shown}:{}", asked.join(" or "), names.join(" | "));
    };
    Ok(Raw::of_column(values))
}

/// A label on each line; its first line is none if it is the name of the column. A table of several columns has one that is called as
/// labels are.
fn of_text(text: &str, path: &Path, rows: Option<usize>) -> Result<(Raw, Option<String>)> {
    let shown = path.display();
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    if let Some(line) = lines.iter().position(|line| line.contains(['\t', ';', ','])) {
        let first: Vec<&str> = lines[0].split(['\t', ';', ',']).map(|cell| cell.trim_matches('"')).collect();
        if line == 0 && first.iter().any(|cell| LABELS.iter().any(|name| cell.eq_ignore_ascii_case(name))) {
            return Ok((of_table(path, None)?, None));
        }
        let names = if line == 0 { first.join(" | ") } else { "NAME".into() };
        bail!(
            "{shown}: line {} holds several columns, and none is called as labels are; name one: {shown}:{names}",
            line + 1
        );
    }
    let number = |line: &str| line.is_empty() || line.parse::<f64>().is_ok();
    let mut note = None;
    if let Some((&first, rest)) = lines.split_first() {
        // A name above numbers, or the word itself, is a header; so is a word more than there are rows.
        let known = HEADERS.contains(&first.to_lowercase().as_str());
        let above = !number(first) && !rest.is_empty() && rest.iter().all(|line| number(line));
        let one_more = !number(first) && rows.is_some_and(|rows| lines.len() == rows + 1);
        if known || above || one_more {
            if !known && !above {
                note = Some(format!(
                    "{shown}: its first line `{first}` is taken for the name of the column: there are {} rows",
                    lines.len() - 1
                ));
            }
            lines.remove(0);
        }
    }
    let missing = |line: &str| line.is_empty() || line.eq_ignore_ascii_case("nan");
    if lines.iter().all(|line| number(line)) {
        let one = |(row, line): (usize, &&str)| match missing(line) {
            true => Ok(None),
            false => class(line.parse().unwrap_or(f64::INFINITY), row, path),
        };
        return Ok((Raw::Numbers(lines.iter().enumerate().map(one).collect::<Result<_>>()?), note));
    }
    let words = lines.iter().map(|line| (!missing(line)).then(|| (*line).to_owned()));
    Ok((Raw::Words(words.collect()), note))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn column(words: &[&str]) -> Raw {
        let column: Vec<Option<String>> =
            words.iter().map(|w| (!w.is_empty()).then(|| (*w).to_owned())).collect();
        Raw::of_column(&column)
    }

    #[test]
    fn columns_are_numbers_or_words() {
        let numbers = column(&["3", "", "7.0", "-1"]).labels();
        assert!(numbers.classes == [Some(3), None, Some(7), None] && numbers.names.is_empty());
        let words = column(&["dog", "cat", "", "dog"]).labels();
        assert_eq!(words.classes, [Some(1), Some(0), None, Some(1)]);
        assert_eq!(words.names[&1], "dog");
        assert_eq!(column(&["1", "1.5"]).labels().names.len(), 2, "numbers that are no classes are words");
    }

    #[test]
    fn classes_of_several_files_are_the_same() {
        let both = together(&[&column(&["10", "9", ""]), &column(&["9", "2"])]);
        assert_eq!(both.names, ["2", "9", "10"], "in the order of numbers");
        assert_eq!(both.files, [vec![Some(2), Some(1), None], vec![Some(1), Some(0)]]);
        // Numbers beside words are words.
        let both = together(&[&column(&["owl", "1"]), &column(&["1"])]);
        assert_eq!(both.names, ["1", "owl"]);
        assert_eq!(both.files, [vec![Some(1), Some(0)], vec![Some(0)]]);
    }
}
