//! Rows and values that are there more than once, and what they do to estimators made for densities.

use crate::Result;
use crate::estimate::Doubt;
use crate::matrix::Rows;
use candle_core::Tensor;
use std::cmp::Ordering;

/// Below this share of the rows what is equal is not spoken of as a bias of information.
pub(super) const FEW: f64 = 0.05;

/// The rows of `z` that have at least one other row equal to them in all columns.
///
/// # Errors
/// Not a matrix, or values that are not finite.
pub fn repeated_rows(z: &Tensor) -> Result<usize> {
    Ok(Groups::new(&Rows::read("repeated_rows", "z", z)?).with_more_than(1))
}

/// Rows by their values.
pub(super) struct Groups {
    /// The number of its group for each row.
    pub(super) of: Vec<u32>,
    /// The rows in each group.
    pub(super) sizes: Vec<usize>,
}

impl Groups {
    pub(super) fn new(rows: &Rows) -> Self {
        let compare = |a: usize, b: usize| {
            // Checked to be finite; 0 and -0 are one value.
            rows.row(a)
                .iter()
                .zip(rows.row(b))
                .map(|(a, b)| a.partial_cmp(b).unwrap_or(Ordering::Equal))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        let mut order: Vec<usize> = (0..rows.n).collect();
        order.sort_by(|&a, &b| compare(a, b));
        let (mut of, mut sizes) = (vec![0; rows.n], Vec::new());
        for (at, &row) in order.iter().enumerate() {
            match sizes.last_mut() {
                Some(size) if compare(order[at - 1], row).is_eq() => *size += 1,
                _ => sizes.push(1),
            }
            of[row] = (sizes.len() - 1) as u32;
        }
        Self { of, sizes }
    }

    /// The rows in groups of more than `least`.
    pub(super) fn with_more_than(&self, least: usize) -> usize {
        self.sizes.iter().filter(|s| **s > least).sum()
    }
}

/// The share of rows that have at least `k` others equal to them: their `k` nearest are at distance 0.
pub(super) fn share(rows: &Rows, k: usize) -> f64 {
    Groups::new(rows).with_more_than(k) as f64 / rows.n as f64
}

/// The doubt of an information by neighbors or ranks where the values of a column are there more than once: in the
/// column where most are.
pub(super) fn doubt(variables: &[(&'static str, &Rows)]) -> Option<Doubt> {
    let mut worst: Option<(usize, String)> = None;
    for (name, rows) in variables {
        for j in 0..rows.d {
            let column = Rows { n: rows.n, d: 1, values: rows.column(j) };
            let tied = Groups::new(&column).with_more_than(1);
            if worst.as_ref().is_none_or(|(most, _)| tied > *most) {
                worst = Some((tied, format!("column {j} of {name}")));
            }
        }
    }
    let (tied, place) = worst?;
    let n = variables.first()?.1.n;
    (tied as f64 > FEW * n as f64).then(|| {
        let message = format!(
            "{tied} of {n} values of {place} are there more than once: the estimator is made for densities and is \
             biased by such ties, mostly to too much on a fine grid; `mixture` and `discrete` are made for them"
        );
        Doubt::new("ties", message)
    })
}

/// The doubt of an entropy by neighbors where rows are there more than once.
pub(super) fn doubt_of_entropy(rows: &Rows) -> Option<Doubt> {
    let n = rows.n;
    let equal = Groups::new(rows).with_more_than(1);
    (equal as f64 > 0.01 * n as f64).then(|| {
        let message = format!(
            "{equal} of {n} rows ({:.0} %) have an equal one: a density has none, and the estimate is biased towards \
             less; leave out what is there twice",
            100.0 * equal as f64 / n as f64
        );
        Doubt::new("ties", message)
    })
}

/// Adds the doubt of ties; a value below 0 is then said to be their bias, not chance.
pub(super) fn explain(doubts: &mut Vec<Doubt>, ties: Option<Doubt>) {
    if ties.is_some() {
        for doubt in doubts.iter_mut().filter(|d| d.code == "negative") {
            doubt.message =
                "below 0, which no information is: a bias by ties, and no sign of independence".into();
        }
    }
    doubts.extend(ties);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_all_columns() {
        let rows = Rows { n: 5, d: 2, values: vec![0.0, 1.0, 2.0, 1.0, -0.0, 1.0, 0.0, 3.0, 0.0, 1.0] };
        let groups = Groups::new(&rows);
        assert_eq!((groups.sizes, groups.of), (vec![3, 1, 1], vec![0, 2, 0, 1, 0]));
        assert_eq!((share(&rows, 2), share(&rows, 3)), (0.6, 0.0));
    }
}
