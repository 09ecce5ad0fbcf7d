//! Whether the numbers themselves are in order.

use super::{Figure, LISTED, RowNote, Section};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

type Columns = Vec<(String, Vec<Option<f64>>)>;

/// The section, the rows without values that are not finite, rows to look at, and what is known of each row.
pub(super) fn health(z: &Tensor) -> Result<(Section, Vec<usize>, Vec<RowNote>, Columns)> {
    let rows = z.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let (n, d) = z.dims2()?;
    let mut section = Section::new("shape and health");
    let finite: Vec<usize> = (0..n).filter(|&i| rows[i].iter().all(|v| v.is_finite())).collect();
    let mut notes: Vec<RowNote> = (0..n)
        .filter(|i| finite.binary_search(i).is_err())
        .take(LISTED)
        .map(|row| RowNote { row, why: "not-finite", detail: "holds NaN or infinite values".into() })
        .collect();
    section.figures.push(
        Figure::plain(
            "not_finite_rows",
            (n - finite.len()) as f64,
            "rows with NaN or infinite values; 0 is usual",
        )
        .warn_if(finite.len() < n, "these rows are left out of all that follows"),
    );

    let constant = (0..d).filter(|&j| finite.iter().all(|&i| rows[i][j] == rows[finite[0]][j])).count();
    section.figures.push(
        Figure::plain(
            "constant_columns",
            constant as f64,
            "columns that are the same in all rows; 0 is usual",
        )
        .warn_if(constant > 0 && !finite.is_empty(), "they carry nothing: dead units, or a mask"),
    );

    // Equal bits are equal rows; of zeros both signs.
    let bits = |i: usize| -> Vec<u64> { rows[i].iter().map(|v| (v + 0.0).to_bits()).collect() };
    let mut first: HashMap<Vec<u64>, usize> = HashMap::with_capacity(finite.len());
    let mut duplicate_of = vec![None; n];
    for &i in &finite {
        match first.entry(bits(i)) {
            std::collections::hash_map::Entry::Occupied(entry) => duplicate_of[i] = Some(*entry.get() as f64),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(i);
            }
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
    notes.extend(listed.map(|(row, of)| RowNote {
        row,
        why: "duplicate",
        detail: format!("equals row {of}"),
    }));

    let column = |j: usize| finite.iter().map(|&i| (rows[i][j] + 0.0).to_bits()).collect::<Vec<_>>();
    let mut seen = std::collections::HashSet::with_capacity(d);
    let doubled =
        (0..d).filter(|&j| !seen.insert(column(j))).count().saturating_sub(constant.saturating_sub(1));
    section.figures.push(
        Figure::plain("duplicate_columns", doubled as f64, "columns that equal an earlier one; 0 is usual")
            .warn_if(doubled > 0, "they count twice in distances and add nothing"),
    );

    let norms: Vec<Option<f64>> = (0..n)
        .map(|i| finite.binary_search(&i).ok().map(|_| rows[i].iter().map(|v| v * v).sum::<f64>().sqrt()))
        .collect();
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
    let columns = vec![("norm".to_owned(), norms), ("duplicate_of".to_owned(), duplicate_of)];
    Ok((section, finite, notes, columns))
}
