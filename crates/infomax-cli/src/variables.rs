//! Variables and labels from files: columns of numbers, or a class a row.

use crate::arrays;
use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device, Tensor};
use infomax_run::infomax_eval::information::Variable;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a column of labels is called.
const HEADERS: [&str; 6] = ["label", "labels", "class", "target", "y", "category"];

/// How a file is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Columns of numbers.
    Continuous,
    /// A class a row.
    Discrete,
    /// Discrete if it holds words, or one column of whole numbers of which each is there five times in the mean.
    Auto,
}

/// A variable with why it is taken as what it is; rows without a class are `None` in the second place.
pub(crate) struct Read {
    pub(crate) variable: Variable,
    pub(crate) note: String,
}

impl Read {
    pub(crate) fn rows(&self) -> usize {
        match &self.variable {
            Variable::Continuous(x) => x.dims().first().copied().unwrap_or(0),
            Variable::Discrete(labels) => labels.len(),
        }
    }

    /// Keeps the rows of these numbers.
    pub(crate) fn keep(&mut self, chosen: &[usize]) -> Result<()> {
        self.variable = match &self.variable {
            Variable::Continuous(x) => Variable::Continuous(rows(x, chosen)?),
            Variable::Discrete(labels) => Variable::Discrete(chosen.iter().map(|&i| labels[i]).collect()),
        };
        Ok(())
    }
}

/// The variable of a file.
pub(crate) fn variable(file: &str, kind: Kind) -> Result<Read> {
    if kind == Kind::Discrete {
        let labels = whole(file)?;
        return Ok(Read {
            note: format!("{file}: a class a row, as was asked"),
            variable: Variable::Discrete(labels),
        });
    }
    let tensor = match arrays::tensor(file) {
        Ok(tensor) => tensor,
        Err(error) if kind == Kind::Auto => {
            // Words are no numbers, but may be classes.
            let Ok(labels) = whole(file) else { return Err(error) };
            return Ok(Read {
                note: format!("{file}: words, a class a row"),
                variable: Variable::Discrete(labels),
            });
        }
        Err(error) => return Err(error),
    };
    let tensor = match tensor.rank() {
        1 => tensor.unsqueeze(1)?,
        2 => tensor,
        _ => bail!("{file}: a matrix (samples, columns) or a vector is needed, not {:?}", tensor.dims()),
    };
    arrays::finite(file, &tensor)?;
    let (n, d) = tensor.dims2()?;
    if kind == Kind::Auto && d == 1 {
        let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let distinct: BTreeSet<i64> =
            values.iter().filter(|v| v.fract() == 0.0 && v.abs() < 9e15).map(|v| *v as i64).collect();
        if values.iter().all(|v| v.fract() == 0.0 && v.abs() < 9e15) && 5 * distinct.len() <= n {
            let number: BTreeMap<i64, u32> = distinct.into_iter().zip(0..).collect();
            let labels =
                values.iter().map(|v| number.get(&(*v as i64)).copied().unwrap_or_default()).collect();
            let note = format!(
                "{file}: one column of {} whole numbers, taken for classes (numbers: `continuous`)",
                number.len()
            );
            return Ok(Read { variable: Variable::Discrete(labels), note });
        }
    }
    Ok(Read {
        note: format!("{file}: {n} rows, {d} columns"),
        variable: Variable::Continuous(tensor.to_dtype(DType::F64)?),
    })
}

/// Refuses labels of a single class.
pub(crate) fn several(file: &str, labels: &[u32]) -> Result<()> {
    if labels.is_empty() || labels.iter().any(|l| *l != labels[0]) {
        return Ok(());
    }
    bail!("{file}: all {} rows have one and the same class: there is nothing to tell apart", labels.len())
}

/// A class for every row.
fn whole(file: &str) -> Result<Vec<u32>> {
    let labels = labels(Path::new(file))?;
    let missing = labels.iter().filter(|l| l.is_none()).count();
    if missing > 0 {
        bail!("{file}: {missing} of {} rows have no class; leave those rows out of both files", labels.len());
    }
    Ok(labels.into_iter().flatten().collect())
}

/// The class of each row, numbered from 0 without gaps in the order of numbers or of the alphabet: whole numbers of an
/// array, or a number or word on each line of a text. Missing: an empty line, NaN, a negative number.
pub(crate) fn labels(path: &Path) -> Result<Vec<Option<u32>>> {
    Ok(numbered(&[named(path)?]).swap_remove(0))
}

/// [`labels`] of two files, whose classes are numbered together: a class is the same number in both.
pub(crate) fn labels_together(first: &Path, second: &Path) -> Result<[Vec<Option<u32>>; 2]> {
    for path in [first, second] {
        // What cannot be read, or names an array among others, is the business of the reader.
        let Ok(bytes) = std::fs::read(path) else { continue };
        let header = String::from_utf8_lossy(bytes.get(..256).unwrap_or(&bytes)).into_owned();
        if bytes.starts_with(b"\x93NUMPY")
            && ["'<U", "'>U", "'|S", "'|O"].iter().any(|kind| header.contains(kind))
        {
            bail!(
                "{}: texts of an .npy file are numbered by themselves, and these two must agree; give both as text files, \
                 one label a line, or as whole numbers",
                path.display()
            );
        }
    }
    let mut both = numbered(&[named(first)?, named(second)?]);
    let second = both.swap_remove(1);
    Ok([both.swap_remove(0), second])
}

fn numbered(files: &[Vec<Option<String>>]) -> Vec<Vec<Option<u32>>> {
    let names: BTreeSet<&String> = files.iter().flatten().flatten().collect();
    let number: BTreeMap<&String, u32> = names.into_iter().zip(0..).collect();
    let of = |file: &Vec<Option<String>>| {
        file.iter().map(|l| l.as_ref().and_then(|l| number.get(l).copied())).collect()
    };
    files.iter().map(of).collect()
}

/// The class of each row by its name.
fn named(path: &Path) -> Result<Vec<Option<String>>> {
    let shown = path.display();
    // An array among others, as `infomax embed` writes it: FILE.npz:label.
    let name = path.to_string_lossy();
    let file = name.rsplit_once(':').map_or(&*name, |(file, _)| file);
    if [".npz", ".safetensors", ".pt", ".pth"].iter().any(|ending| file.to_lowercase().ends_with(ending)) {
        let values = arrays::tensor(&name)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        return values.iter().enumerate().map(|(row, v)| number_of(*v, row, path)).collect();
    }
    // A column of a table: FILE:COLUMN, or the one whose name says so.
    let (file, column) = arrays::split(&name);
    if [".parquet", ".pq", ".jsonl", ".ndjson"].iter().any(|ending| file.to_lowercase().ends_with(ending)) {
        let table = infomax_data::read_table(Path::new(file))?;
        let asked = column.map_or_else(|| HEADERS.to_vec(), |column| vec![column]);
        let Some((_, values)) = table.column(&asked) else {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
            bail!("{file} has no column {}; name one: {file}:{}", asked.join(" or "), names.join(" | "));
        };
        let number = |v: &Option<String>| v.as_deref().is_none_or(|v| v.parse::<f64>().is_ok());
        if !values.iter().all(number) {
            return Ok(values.clone());
        }
        let one = |(row, v): (usize, &Option<String>)| match v {
            Some(v) => number_of(v.parse().unwrap_or(f64::NAN), row, path),
            None => Ok(None),
        };
        return values.iter().enumerate().map(one).collect();
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let found: Vec<Option<String>> = if bytes.starts_with(b"\x93NUMPY") {
        let labels = infomax_run::infomax_data::npy::read_some_labels(path)?;
        // Padded, so that the order of the texts is that of the numbers.
        labels.into_iter().map(|l| l.map(|l| format!("{l:010}"))).collect()
    } else {
        let text = String::from_utf8(bytes).map_err(|_| {
            anyhow::anyhow!(
                "{shown} is neither an .npy file of whole numbers or texts nor a text with a label a line"
            )
        })?;
        lines(&text, path)?
    };
    if found.iter().all(Option::is_none) {
        bail!("{shown} holds no label");
    }
    Ok(found)
}

/// The name of a class that is a number, padded, so that the order of the names is that of the numbers.
fn number_of(value: f64, row: usize, path: &Path) -> Result<Option<String>> {
    match value {
        v if v < 0.0 || v.is_nan() => Ok(None),
        v if v.fract() == 0.0 && v <= f64::from(u32::MAX) => Ok(Some(format!("{:010}", v as u64))),
        v => bail!("{}: the label {v} of row {row} is no whole number below 2^32", path.display()),
    }
}

fn lines(text: &str, path: &Path) -> Result<Vec<Option<String>>> {
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    if let Some(wide) = lines.iter().position(|l| l.contains([',', '\t', ';'])) {
        bail!("{}: line {} holds several columns; one label a line is read", path.display(), wide + 1);
    }
    let number = |line: &str| line.is_empty() || line.parse::<f64>().is_ok();
    // A name above numbers, or the word itself, is a header.
    if let Some((first, rest)) = lines.split_first()
        && (HEADERS.contains(&first.to_lowercase().as_str())
            || (!number(first) && !rest.is_empty() && rest.iter().all(|l| number(l))))
    {
        lines.remove(0);
    }
    let numbers = lines.iter().all(|l| number(l));
    let one = |(row, line): (usize, &&str)| -> Result<Option<String>> {
        if line.is_empty() || line.eq_ignore_ascii_case("nan") {
            return Ok(None);
        }
        if !numbers {
            return Ok(Some((*line).to_owned()));
        }
        number_of(line.parse().unwrap_or(f64::INFINITY), row, path)
    };
    lines.iter().enumerate().map(one).collect()
}

/// The rows of these numbers.
pub(crate) fn rows(x: &Tensor, chosen: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = chosen.iter().map(|&i| i as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::from_vec(index, chosen.len(), &Device::Cpu)?, 0)?)
}
