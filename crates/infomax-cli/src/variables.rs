//! Variables from files: columns of numbers, or a class a row.

use crate::arrays;
use crate::embeddings::{self, Loaded, ReadOptions};
use crate::labels::{self, Raw};
use crate::progress::Progress;
use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use infomax_run::infomax_eval::information::Variable;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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

/// A variable with why it is taken as what it is.
pub(crate) struct Read {
    pub(crate) variable: Variable,
    pub(crate) note: String,
    /// The rows without a class, or with values that are not finite, ascending.
    pub(crate) missing: Vec<usize>,
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
        self.missing.clear();
        Ok(())
    }

    /// Leaves out the columns that are the same in all rows, and says which.
    pub(crate) fn without_constant_columns(&mut self, file: &str) -> Result<Vec<usize>> {
        let Variable::Continuous(x) = &self.variable else { return Ok(Vec::new()) };
        let all = x.to_dtype(DType::F64)?.t()?.to_vec2::<f64>()?;
        let constant = |column: &Vec<f64>| column.iter().all(|v| *v == column[0]);
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|&j| constant(&all[j]));
        if kept.is_empty() {
            bail!(
                "{file}: all {} columns are the same in all {} rows: nothing varies, and it shares no information with \
                 anything",
                all.len(),
                x.dim(0)?
            );
        }
        if !out.is_empty() {
            let index: Vec<u32> = kept.iter().map(|&j| j as u32).collect();
            let index = Tensor::from_vec(index, kept.len(), &Device::Cpu)?;
            self.variable = Variable::Continuous(x.contiguous()?.index_select(&index, 1)?);
        }
        Ok(out)
    }
}

/// The variable of a file, of a folder or pattern of shards, or of a run: its features, or what `RUN:NAME` names of its images.
pub(crate) fn variable(file: &str, kind: Kind, progress: &mut Progress) -> Result<Read> {
    if let Some((place, name)) = in_folder(file) {
        let loaded = embeddings::read(place, &ReadOptions::default(), progress)?;
        return discrete(file, &beside(&loaded, place, name)?, "a class a row");
    }
    if kind == Kind::Discrete {
        return discrete(file, &labels::read(file, None)?.0, "a class a row, as was asked");
    }
    let many = Path::new(file).is_dir() || (!Path::new(file).exists() && file.contains(['*', '?', '[']));
    let tensor = if many {
        embeddings::read(file, &ReadOptions::default(), progress)?.z
    } else {
        match arrays::tensor(file) {
            Ok(tensor) => tensor,
            Err(error) if kind == Kind::Auto => {
                // Words are no numbers, but may be classes.
                let Ok((words, _)) = labels::read(file, None) else { return Err(error) };
                return discrete(file, &words, "words, a class a row");
            }
            Err(error) => return Err(error),
        }
    };
    let tensor = match tensor.rank() {
        1 => tensor.unsqueeze(1)?,
        2 => tensor,
        _ => bail!("{file}: a matrix (samples, columns) or a vector is needed, not {:?}", tensor.dims()),
    };
    let missing = arrays::damaged(&tensor)?;
    let (n, d) = tensor.dims2()?;
    if kind == Kind::Auto && d == 1 {
        let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let whole = |v: &f64| v.fract() == 0.0 && v.abs() < 9e15;
        let there = || values.iter().filter(|v| v.is_finite());
        let distinct: BTreeSet<i64> = there().filter(|v| whole(v)).map(|v| *v as i64).collect();
        if there().all(whole) && !distinct.is_empty() && 5 * distinct.len() <= n {
            let number: BTreeMap<i64, u32> = distinct.into_iter().zip(0..).collect();
            let labels =
                values.iter().map(|v| number.get(&(*v as i64)).copied().unwrap_or_default()).collect();
            let note = format!(
                "{file}: one column of {} whole numbers, taken for classes (numbers: `continuous`){}",
                number.len(),
                if number.keys().any(|class| *class < 0) {
                    "; negative ones too, which are missing labels for `infomax probe`"
                } else {
                    ""
                }
            );
            return Ok(Read { variable: Variable::Discrete(labels), note, missing });
        }
    }
    Ok(Read {
        note: format!("{file}: {n} rows, {d} columns"),
        variable: Variable::Continuous(tensor.to_dtype(DType::F64)?),
        missing,
    })
}

/// The folder and the name of `FOLDER:NAME`.
fn in_folder(file: &str) -> Option<(&str, &str)> {
    let (place, name) = file.rsplit_once(':')?;
    (!Path::new(file).exists() && Path::new(place).is_dir()).then_some((place, name))
}

/// A column beside embeddings, or the labels of a run.
fn beside(loaded: &Loaded, place: &str, name: &str) -> Result<Raw> {
    if let Some((_, values)) = loaded.table.column(&[name]) {
        return Ok(Raw::of_column(values));
    }
    match &loaded.labels {
        Some(labels) if labels::LABELS.iter().any(|own| own.eq_ignore_ascii_case(name)) => {
            Ok(Raw::Numbers(labels.classes.clone()))
        }
        _ => {
            let mut names: Vec<&str> = loaded.table.columns.iter().map(|(name, _)| name.as_str()).collect();
            names.extend(loaded.labels.is_some().then_some("label"));
            bail!("{place} has no column {name}; it has: {}", names.join(", "))
        }
    }
}

fn discrete(file: &str, labels: &Raw, why: &str) -> Result<Read> {
    let classes = labels::together(&[labels]).files.swap_remove(0);
    let missing: Vec<usize> = (0..classes.len()).filter(|&i| classes[i].is_none()).collect();
    Ok(Read {
        note: format!("{file}: {why}"),
        variable: Variable::Discrete(classes.into_iter().map(Option::unwrap_or_default).collect()),
        missing,
    })
}

/// Refuses labels of a single class.
pub(crate) fn several(file: &str, labels: &[u32]) -> Result<()> {
    if labels.is_empty() || labels.iter().any(|l| *l != labels[0]) {
        return Ok(());
    }
    bail!("{file}: all {} rows have one and the same class: there is nothing to tell apart", labels.len())
}

/// The rows of these numbers.
pub(crate) fn rows(x: &Tensor, chosen: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = chosen.iter().map(|&i| i as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::from_vec(index, chosen.len(), &Device::Cpu)?, 0)?)
}
