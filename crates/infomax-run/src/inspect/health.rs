//! Whether the numbers themselves are in order.

use super::{Figure, LISTED, RowNote, Section};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use infomax_core::ValueHash;
use infomax_data::Scan;
use std::collections::HashMap;

type Columns = Vec<(String, Vec<Option<f64>>)>;

/// Rows that are looked at together, so that no copy of all is made.
const CHUNK: usize = 4_096;

/// What one pass over the rows tells.
struct Pass {
    finite: Vec<usize>,
    hashes: Vec<ValueHash>,
    norms: Vec<Option<f64>>,
    low: Vec<f64>,
    high: Vec<f64>,
    columns: Vec<ValueHash>,
}

/// What [`health`] finds.
pub(super) struct Health {
    pub(super) section: Section,
    /// The rows without values that are not finite.
    pub(super) finite: Vec<usize>,
    /// Rows to look at.
    pub(super) rows: Vec<RowNote>,
    /// What is known of each row.
    pub(super) columns: Columns,
    /// The first row that equals each row, if that is another one.
    pub(super) equals: Vec<Option<usize>>,
    /// Whether each column is the same in all finite rows.
    pub(super) constant: Vec<bool>,
}

/// Looks at all rows. `number` is what a row is called.
pub(super) fn health(z: &Tensor, number: &dyn Fn(usize) -> usize) -> Result<Health> {
    let z = z.to_device(&Device::Cpu)?;
    let (n, d) = z.dims2()?;
    let Pass { finite, hashes, norms, low, high, columns } = pass(&z)?;
    let mut section = Section::new("shape and health");
    let mut notes: Vec<RowNote> = (0..n)
        .filter(|i| norms[*i].is_none())
        .take(LISTED)
        .map(|row| note(row, "not-finite", "holds NaN or infinite values".into()))
        .collect();
    section.figures.push(
        Figure::plain(
            "not_finite_rows",
            (n - finite.len()) as f64,
            "rows with NaN or infinite values; 0 is usual",
        )
        .warn_if(finite.len() < n, "these rows are left out of all that follows"),
    );

    let constant: Vec<bool> = low.iter().zip(&high).map(|(a, b)| a == b).collect();
    let constants = if finite.is_empty() { 0 } else { constant.iter().filter(|c| **c).count() };
    section.figures.push(
        Figure::plain(
            "constant_columns",
            constants as f64,
            format!(
                "columns that are the same in all rows{}; 0 is usual",
                listed(&(0..d).filter(|&j| constants > 0 && constant[j]).collect::<Vec<_>>())
            ),
        )
        .warn_if(constants > 0, "they carry nothing: dead units, or a mask"),
    );

    // Rows of one hash are compared by their values.
    let row = |i: usize| -> Result<Vec<f64>> { Ok(z.get(i)?.to_dtype(DType::F64)?.to_vec1::<f64>()?) };
    let mut first: HashMap<ValueHash, Vec<usize>> = HashMap::with_capacity(finite.len());
    let mut duplicate_of = vec![None; n];
    for (&i, hash) in finite.iter().zip(&hashes) {
        let seen = first.entry(*hash).or_default();
        for &other in seen.iter() {
            if row(i)? == row(other)? {
                duplicate_of[i] = Some(other);
                break;
            }
        }
        if duplicate_of[i].is_none() {
            seen.push(i);
        }
    }
    let duplicates = duplicate_of.iter().flatten().count();
    section.figures.push(
        Figure::plain("duplicate_rows", duplicates as f64, "rows that equal an earlier one; 0 is usual").warn_if(
            duplicates > 0,
            "the same sample twice, or a collapse; probes that hold one and train on the other are too good",
        ),
    );
    let listed = duplicate_of.iter().enumerate().filter_map(|(row, of)| Some((row, (*of)?))).take(LISTED);
    notes.extend(listed.map(|(row, of)| note(row, "duplicate", format!("equals row {}", number(of)))));

    let mut seen: HashMap<ValueHash, usize> = HashMap::with_capacity(d);
    let mut doubled: Vec<(usize, usize)> = Vec::new();
    for j in (0..d).filter(|_| !finite.is_empty()) {
        match seen.get(&columns[j]) {
            Some(earlier) => doubled.push((j, *earlier)),
            None => drop(seen.insert(columns[j], j)),
        }
    }
    let of_constants = doubled.iter().filter(|(j, _)| constant[*j]).count();
    let pairs: Vec<String> = doubled.iter().take(10).map(|(j, of)| format!("{j} as {of}")).collect();
    let which = match doubled.len() {
        0 => String::new(),
        count => format!(
            " ({}{}; the first column is 0{})",
            pairs.join(", "),
            if count > 10 { ", ..." } else { "" },
            if of_constants > 0 { format!("; {of_constants} of them constant") } else { String::new() }
        ),
    };
    section.figures.push(
        Figure::plain(
            "duplicate_columns",
            doubled.len() as f64,
            format!("columns that equal an earlier one{which}; 0 is usual"),
        )
        .warn_if(!doubled.is_empty(), "they count twice in distances and add nothing"),
    );

    let mut sorted: Vec<f64> = norms.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    if let (Some(least), Some(largest)) = (sorted.first(), sorted.last()) {
        let median = sorted[sorted.len() / 2];
        section.figures.push(Figure::plain(
            "median_norm",
            median,
            format!("the length of a row; from {least:.4} to {largest:.4}"),
        ));
        let zeros = sorted.iter().filter(|v| **v == 0.0).count();
        section.figures.push(
            Figure::plain("zero_rows", zeros as f64, "rows of length 0; 0 is usual")
                .warn_if(zeros > 0, "they have no direction: cosines of them mean nothing"),
        );
    }
    let numbers = duplicate_of.iter().map(|of| of.map(|of| number(of) as f64)).collect();
    let columns = vec![("norm".to_owned(), norms), ("duplicate_of".to_owned(), numbers)];
    Ok(Health { section, finite, rows: notes, columns, equals: duplicate_of, constant })
}

/// Columns by their numbers, cut after ten; nothing of none.
fn listed(columns: &[usize]) -> String {
    let shown: Vec<String> = columns.iter().take(10).map(ToString::to_string).collect();
    match columns.len() {
        0 => String::new(),
        1..=10 => format!(" ({}; the first is 0)", shown.join(", ")),
        _ => format!(" ({}, ...; the first is 0)", shown.join(", ")),
    }
}

/// Adds what is known of all rows of a file of which `n` were drawn.
pub(super) fn whole_file(section: &mut Section, scan: &Scan, n: usize) {
    section.notes.push(format!(
        "{n} rows were drawn of {} in the file; the figures `file_...` are of all of them",
        scan.rows
    ));
    let count = |key: &'static str, value: usize, meaning: String, warning: &str| {
        Figure::plain(key, value as f64, meaning).warn_if(value > 0, warning)
    };
    let first: Vec<String> = scan.first_not_finite.iter().map(ToString::to_string).collect();
    let which = if first.is_empty() { String::new() } else { format!(", the first: {}", first.join(", ")) };
    section.figures.push(Figure::plain("file_rows", scan.rows as f64, "rows of the file"));
    section.figures.push(count(
        "file_not_finite_rows",
        scan.not_finite,
        format!("rows of the file with NaN or infinite values{which}; 0 is usual"),
        "look at what wrote them",
    ));
    section.figures.push(count(
        "file_constant_columns",
        scan.constant_columns,
        "columns that are the same in all finite rows of the file; 0 is usual".into(),
        "they carry nothing: dead units, or a mask",
    ));
    section.figures.push(count(
        "file_duplicate_rows",
        scan.duplicates,
        "rows of the file that equal an earlier one (by a hash of 64 bits); 0 is usual".into(),
        "the same sample twice, or a collapse",
    ));
    section.figures.push(count(
        "file_zero_rows",
        scan.zero,
        "rows of the file of length 0; 0 is usual".into(),
        "they have no direction",
    ));
    let variance: f64 = scan.variances.iter().sum();
    section.figures.push(Figure::plain(
        "file_variance",
        variance,
        "the sum of the variances of the columns, over all finite rows of the file",
    ));
}

fn note(row: usize, why: &'static str, detail: String) -> RowNote {
    RowNote { row, source: None, why, detail }
}

fn pass(z: &Tensor) -> Result<Pass> {
    let (n, d) = z.dims2()?;
    let mut pass = Pass {
        finite: Vec::with_capacity(n),
        hashes: Vec::with_capacity(n),
        norms: Vec::with_capacity(n),
        low: vec![f64::INFINITY; d],
        high: vec![f64::NEG_INFINITY; d],
        columns: vec![ValueHash::default(); d],
    };
    for start in (0..n).step_by(CHUNK) {
        let part = z.narrow(0, start, CHUNK.min(n - start))?;
        let values = part.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        for (k, row) in values.chunks_exact(d).enumerate() {
            if !row.iter().all(|v| v.is_finite()) {
                pass.norms.push(None);
                continue;
            }
            pass.finite.push(start + k);
            pass.hashes.push(ValueHash::of(row));
            pass.norms.push(Some(row.iter().map(|v| v * v).sum::<f64>().sqrt()));
            for (j, v) in row.iter().enumerate() {
                pass.low[j] = pass.low[j].min(*v);
                pass.high[j] = pass.high[j].max(*v);
                pass.columns[j].push(*v);
            }
        }
    }
    Ok(pass)
}
