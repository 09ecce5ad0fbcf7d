//! What embeddings know, and what is wrong with them: a report from plain tensors.

mod compare;
mod content;
mod figure;
mod groups;
mod health;
mod labels;
mod page;
mod plots;
mod rank;
mod shape;

pub use crate::condition::Condition;
pub use compare::{compare, compare_labeled};
pub use figure::{Figure, Section};
pub use page::{PageExtras, page, with_comparison};
pub use plots::{Marginal, Plots};

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_core::Key;
use infomax_data::Scan;
use infomax_eval::Resampling;
use serde::Serialize;
use std::collections::BTreeMap;

/// Embeddings, and what is known of them.
#[derive(Clone, Debug)]
pub struct InspectInput {
    /// The embeddings `(N, D)`.
    pub z: Tensor,
    /// The embeddings of other views of the same samples, row by row.
    pub views: Option<Tensor>,
    /// The class of each row, where it is known.
    pub labels: Option<Vec<Option<u32>>>,
    /// Names of the classes by number; a class without one shows its number.
    pub class_names: BTreeMap<u32, String>,
    /// What else is known of each row: a name, and a value for each row. Groups are compared by columns of few values;
    /// a column `split`, `part`, `subset` or `fold` says which rows must not be the same sample.
    pub columns: Vec<(String, Vec<Option<String>>)>,
    /// The number of each row in its file, if rows were drawn from a larger one.
    pub drawn: Option<Vec<usize>>,
    /// What is known of all rows of that file.
    pub scan: Option<Scan>,
}

impl InspectInput {
    /// Embeddings alone.
    pub fn new(z: Tensor) -> Self {
        Self {
            z,
            views: None,
            labels: None,
            class_names: BTreeMap::new(),
            columns: Vec::new(),
            drawn: None,
            scan: None,
        }
    }
}

/// How much is looked at, and how surely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InspectConfig {
    /// How intervals are made.
    pub resampling: Resampling,
    /// What compares all pairs of rows looks at so many of them at most, drawn by the seed.
    pub max_rows: usize,
    /// Neighbors of each row.
    pub neighbors: usize,
    /// The part of the labeled rows that the probes are tested on.
    pub holdout: f64,
    /// The seed of what is drawn.
    pub seed: u64,
    /// Whether what pictures are drawn from is computed, too: [`Inspection::plots`].
    pub plots: bool,
}

impl Default for InspectConfig {
    /// 40 draws a interval, 4,000 rows for what compares pairs, 10 neighbors, 0.3 held out, no plots.
    fn default() -> Self {
        let resampling = Resampling { draws: 40, max_rows: 1_000, ..Resampling::default() };
        Self { resampling, max_rows: 4_000, neighbors: 10, holdout: 0.3, seed: 0, plots: false }
    }
}

/// The report.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The rows that were given.
    pub n: usize,
    /// The columns.
    pub d: usize,
    /// The rows without a value that is not finite: all but the first section look at these.
    pub finite_rows: usize,
    /// One section a question.
    pub sections: Vec<Section>,
    /// Rows to look at, the most urgent first of each kind.
    pub rows: Vec<RowNote>,
    /// What is known of each row, for a table: a name and a value for each row, where there is one.
    #[serde(skip)]
    pub columns: Vec<(String, Vec<Option<f64>>)>,
    /// What pictures are drawn from, if that is asked for.
    #[serde(skip)]
    pub plots: Option<Plots>,
}

impl Inspection {
    /// The value of a figure, or of `n` or `d`.
    pub fn value(&self, key: &str) -> Option<f64> {
        match key {
            "n" => Some(self.n as f64),
            "d" => Some(self.d as f64),
            key => self.sections.iter().flat_map(|s| &s.figures).find(|f| f.key == key).map(|f| f.value),
        }
    }

    /// The rows to look at that are printed, ten of a kind at most, and how many more of each kind [`Inspection::rows`] holds.
    pub fn shown(&self) -> (Vec<&RowNote>, Vec<(&'static str, usize)>) {
        let (mut shown, mut counts) = (Vec::new(), BTreeMap::<&'static str, usize>::new());
        for note in &self.rows {
            let count = counts.entry(note.why).or_default();
            *count += 1;
            if *count <= SHOWN {
                shown.push(note);
            }
        }
        let more = counts.into_iter().filter(|(_, count)| *count > SHOWN);
        (shown, more.map(|(why, count)| (why, count - SHOWN)).collect())
    }

    /// The names that [`Inspection::value`] knows.
    pub fn names(&self) -> Vec<&str> {
        let figures = self.sections.iter().flat_map(|section| &section.figures).map(|f| f.key);
        ["n", "d"].into_iter().chain(figures).collect()
    }
}

/// A row to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RowNote {
    /// The row, from 0.
    pub row: usize,
    /// Its number in the file, if rows were drawn from a larger one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<usize>,
    /// Why: `not-finite`, `duplicate`, `across-splits`, `near-duplicate`, `outlier`, `hub`, `label`.
    pub why: &'static str,
    /// The reason with its numbers.
    pub detail: String,
}

/// Rows of a kind that are named, at most.
const LISTED: usize = 1_000;

/// Of these, so many of a kind are printed.
const SHOWN: usize = 10;

/// Inspects embeddings: their health, rank, entropy, information, normality and geometry, and with labels what probes
/// read. A section that cannot be computed says why, and the others go on.
///
/// # Errors
/// Not a matrix, or no row without values that are not finite; views or labels of another number of rows.
pub fn inspect(input: &InspectInput, cfg: &InspectConfig) -> Result<Inspection> {
    let (n, d) = input.z.dims2().map_err(|_| {
        Error::Config(format!("embeddings are a matrix (samples, features), not {:?}", input.z.dims()))
    })?;
    if n < 2 || d == 0 {
        return Err(Error::Config(format!(
            "embeddings of {n} rows and {d} columns: at least 2 rows and a column are needed"
        )));
    }
    for (what, rows) in [
        ("views", input.views.as_ref().map(|views| views.dims().first().copied().unwrap_or(0))),
        ("labels", input.labels.as_ref().map(Vec::len)),
        ("numbers of rows", input.drawn.as_ref().map(Vec::len)),
        ("values of a column", input.columns.iter().map(|(_, values)| values.len()).find(|rows| *rows != n)),
    ] {
        if let Some(rows) = rows.filter(|rows| *rows != n) {
            let text = format!("{n} embeddings and {rows} {what}: row i of both is the same sample");
            return Err(Error::Config(text));
        }
    }
    let source = |row: usize| input.drawn.as_ref().map_or(row, |drawn| drawn[row]);
    let health::Health { mut section, finite, mut rows, mut columns, equals, constant } =
        health::health(&input.z, &source)?;
    if let Some(scan) = &input.scan {
        health::whole_file(&mut section, scan, n);
    }
    let mut sections = vec![section];
    if finite.len() < 2 {
        let first = input.z.get(0)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let wrong: Vec<String> =
            (0..d).filter(|&j| !first[j].is_finite()).take(5).map(|j| j.to_string()).collect();
        let which = if wrong.is_empty() {
            String::new()
        } else {
            format!("; row 0 has not in the columns {}", wrong.join(", "))
        };
        return Err(Error::Config(format!(
            "{} of {n} rows have finite values only; at least 2 are needed{which}",
            finite.len()
        )));
    }
    let kept = |tensor: &Tensor| -> Result<Tensor> {
        Ok(if finite.len() == n { tensor.clone() } else { select(tensor, &finite)? })
    };
    let z = kept(&input.z)?;
    let some = subset(finite.len(), cfg.max_rows, cfg.seed);
    let sample = select(&z, &some)?;
    // With a constant column there is no density; the entropy and the normality of the others are worth knowing.
    let varying: Vec<usize> = (0..d).filter(|&j| !constant[j]).collect();
    let still = (varying.len() < d && !varying.is_empty()).then(|| {
        let constant = d - varying.len();
        let plural = if constant == 1 { " is" } else { "s are" };
        format!("{constant} constant column{plural} left out here: with constants there is no density")
    });
    let dense = match still {
        Some(_) => columns_of(&sample, &varying)?,
        None => sample.clone(),
    };
    let original = |row: usize| finite[some[row]];
    let note = (some.len() < finite.len())
        .then(|| format!("of {} of {} rows, drawn with the seed {}", some.len(), finite.len(), cfg.seed));

    sections.push(rank::rank(&z, cfg));
    sections.push(content::entropy(&dense, cfg).noted(still.clone()).noted(note.clone()));
    let views = match &input.views {
        Some(views) => Some(select(&kept(views)?, &some)?),
        None => None,
    };
    if let Some(views) = &views {
        // Rows that are not finite in the views are left out of what compares both.
        let whole: Vec<usize> =
            compare::finite(views)?.iter().enumerate().filter_map(|(i, whole)| whole.then_some(i)).collect();
        let left_out = some.len() - whole.len();
        let text = format!("{left_out} rows with values that are not finite in the views are left out here");
        let (ours, theirs) = (select(&sample, &whole)?, select(views, &whole)?);
        let labels: Option<Vec<Option<u32>>> =
            input.labels.as_ref().map(|all| whole.iter().map(|&i| all[original(i)]).collect());
        let section = content::views(&ours, &theirs, labels.as_deref(), cfg);
        let section = section.noted((left_out > 0).then_some(text));
        sections.push(section.noted(note.clone()));
    }
    sections.push(shape::normality(&z, &dense).noted(still).noted(note.clone()));
    let (geometry, found, about) = shape::geometry(&sample, cfg);
    sections.push(geometry.noted(note.clone()));
    rows.extend(found.into_iter().map(|note| RowNote { row: original(note.row), ..note }));
    columns.extend(about.into_iter().map(|(name, values)| {
        let mut all = vec![None; n];
        values.into_iter().enumerate().for_each(|(i, value)| all[original(i)] = value);
        (name, all)
    }));
    let mut confusion = None;
    if let Some(labels) = &input.labels {
        let labels: Vec<Option<u32>> = finite.iter().map(|&i| labels[i]).collect();
        let (section, found, confused) = labels::labels(&z, &labels, &input.class_names, cfg);
        sections.push(section);
        confusion = confused;
        rows.extend(found.into_iter().map(|note| RowNote { row: finite[note.row], ..note }));
    }
    if !input.columns.is_empty() {
        let known = |row: usize| input.labels.as_ref().and_then(|labels| labels[original(row)]);
        let value = |column: &[Option<String>], row: usize| column[original(row)].clone();
        let across = groups::across_splits(&input.columns, &equals, &source);
        let (section, found) = groups::groups(
            &sample,
            &input.columns,
            &known,
            &value,
            &groups::Places { row: &original, number: &source, across: across.as_ref() },
            cfg,
        );
        sections.push(section.noted(note.clone()));
        rows.extend(across.into_iter().flat_map(|across| across.rows));
        rows.extend(found.into_iter().map(|note| RowNote { row: original(note.row), ..note }));
    }
    if let Ok(map) = infomax_eval::geometry::principal_map(&z) {
        for (name, axis) in [("x", 0), ("y", 1)] {
            let mut all = vec![None; n];
            let value = |p: &(f64, f64)| if axis == 0 { p.0 } else { p.1 };
            finite.iter().zip(&map.points).for_each(|(&i, p)| all[i] = Some(value(p)));
            columns.push((name.to_owned(), all));
        }
    }
    if let Some(drawn) = &input.drawn {
        rows.iter_mut().for_each(|note| note.source = Some(drawn[note.row]));
        columns.insert(0, ("source_row".into(), drawn.iter().map(|row| Some(*row as f64)).collect()));
    }
    let plots = cfg.plots.then(|| {
        let labels: Option<Vec<Option<u32>>> =
            input.labels.as_ref().map(|labels| finite.iter().map(|&i| labels[i]).collect());
        Plots { confusion, ..plots::plots(&z, &finite, labels.as_deref(), cfg) }
    });
    sections.iter_mut().for_each(without_infinities);
    Ok(Inspection { n, d, finite_rows: finite.len(), sections, rows, columns, plots })
}

/// What came out as no number is no figure, but a reason.
fn without_infinities(section: &mut Section) {
    let (figures, lost): (Vec<_>, Vec<_>) = section.figures.drain(..).partition(|f| f.value.is_finite());
    section.figures = figures;
    section.skipped.extend(lost.into_iter().map(|figure| {
        format!(
            "{}: it came out as {}: the values are too large or too small for it, or all alike; scale the columns",
            figure.key, figure.value
        )
    }));
}

/// Rows of a matrix by their numbers.
fn select(tensor: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
    let index = Tensor::from_vec(index, rows.len(), &Device::Cpu)?;
    Ok(tensor.to_device(&Device::Cpu)?.contiguous()?.index_select(&index, 0)?)
}

/// Columns of a matrix by their numbers.
fn columns_of(tensor: &Tensor, columns: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = columns.iter().map(|&j| j as u32).collect();
    let index = Tensor::from_vec(index, columns.len(), &Device::Cpu)?;
    Ok(tensor.contiguous()?.index_select(&index, 1)?)
}

/// At most `most` of the numbers below `n`, ascending, drawn by the seed.
fn subset(n: usize, most: usize, seed: u64) -> Vec<usize> {
    infomax_eval::choose(Key::new(seed).fold_named("inspect"), n, n.min(most))
}
