//! Rows as they pass: some are kept, all are counted.

use super::Table;
use super::{VectorOptions, Vectors, draw};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_core::ValueHash;
use std::collections::HashSet;
use std::path::Path;

/// What one pass over all rows of a file tells.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scan {
    /// All rows.
    pub rows: usize,
    /// Rows with values that are not finite.
    pub not_finite: usize,
    /// The first ten of them.
    pub first_not_finite: Vec<usize>,
    /// Rows of length 0.
    pub zero: usize,
    /// Rows that equal an earlier one, by 64 bits of a hash of their values.
    pub duplicates: usize,
    /// Columns with one value in all finite rows.
    pub constant_columns: usize,
    /// The mean of each column over the finite rows.
    pub means: Vec<f64>,
    /// The variance of each column over the finite rows.
    pub variances: Vec<f64>,
}

impl Scan {
    /// Adds the rows of another part, which start at a row of the whole. Rows of one part that equal rows of another
    /// are not known.
    pub fn join(&mut self, other: &Self, start: usize) {
        let finite = |scan: &Self| (scan.rows - scan.not_finite) as f64;
        let (a, b) = (finite(self), finite(other));
        if self.means.is_empty() {
            (self.means, self.variances) = (other.means.clone(), other.variances.clone());
            self.constant_columns = other.constant_columns;
        } else {
            let (weight, total) = (b / (a + b).max(1.0), (a + b - 1.0).max(1.0));
            for j in 0..self.means.len().min(other.means.len()) {
                let apart = other.means[j] - self.means[j];
                let squares =
                    self.variances[j] * (a - 1.0).max(0.0) + other.variances[j] * (b - 1.0).max(0.0);
                self.variances[j] = (squares + apart * apart * a * weight) / total;
                self.means[j] += apart * weight;
            }
            self.constant_columns = self.variances.iter().filter(|v| **v == 0.0).count();
        }
        self.first_not_finite.extend(other.first_not_finite.iter().map(|row| row + start));
        self.first_not_finite.truncate(10);
        self.rows += other.rows;
        self.not_finite += other.not_finite;
        self.zero += other.zero;
        self.duplicates += other.duplicates;
    }
}

/// Takes rows in order.
pub(super) struct Sink {
    drawn: Option<Vec<usize>>,
    next: usize,
    at: usize,
    d: usize,
    kept: Vec<f32>,
    wide: Option<Vec<f64>>,
    scan: Scan,
    low: Vec<f64>,
    high: Vec<f64>,
    seen: HashSet<ValueHash>,
}

impl Sink {
    pub(super) fn new(n: usize, d: usize, wide: bool, options: &VectorOptions) -> Self {
        let drawn = draw(n, d, options);
        Self {
            drawn,
            next: 0,
            at: 0,
            d,
            kept: Vec::new(),
            wide: wide.then(Vec::new),
            scan: Scan { means: vec![0.0; d], variances: vec![0.0; d], ..Scan::default() },
            low: vec![f64::INFINITY; d],
            high: vec![f64::NEG_INFINITY; d],
            seen: HashSet::new(),
        }
    }

    /// Whether the next row will be kept.
    pub(super) fn wants(&self) -> bool {
        self.drawn.as_ref().is_none_or(|rows| rows.get(self.next) == Some(&self.at))
    }

    /// The next row.
    pub(super) fn push(&mut self, row: &[f64]) {
        if self.wants() {
            self.next += 1;
            match &mut self.wide {
                Some(wide) => wide.extend_from_slice(row),
                None => self.kept.extend(row.iter().map(|v| *v as f32)),
            }
        }
        if self.drawn.is_some() {
            self.count(row);
        }
        self.at += 1;
    }

    fn count(&mut self, row: &[f64]) {
        let scan = &mut self.scan;
        scan.rows += 1;
        if !row.iter().all(|v| v.is_finite()) {
            scan.not_finite += 1;
            if scan.first_not_finite.len() < 10 {
                scan.first_not_finite.push(self.at);
            }
            return;
        }
        let mut hash = ValueHash::default();
        let mut zero = true;
        let finite = (scan.rows - scan.not_finite) as f64;
        for (j, v) in row.iter().enumerate() {
            zero &= *v == 0.0;
            hash.push(*v);
            self.low[j] = self.low[j].min(*v);
            self.high[j] = self.high[j].max(*v);
            // Welford: no sum of squares that cancels.
            let before = v - scan.means[j];
            scan.means[j] += before / finite;
            scan.variances[j] += before * (v - scan.means[j]);
        }
        scan.zero += usize::from(zero);
        scan.duplicates += usize::from(!self.seen.insert(hash));
    }

    pub(super) fn finish(mut self, path: &Path, table: Table, notes: Vec<String>) -> Result<Vectors> {
        let rows = self.drawn.as_ref().map_or(self.at, Vec::len);
        if rows == 0 || self.d == 0 {
            let reason = format!("{} rows of {} columns: there are no embeddings in it", self.at, self.d);
            return Err(Error::Decode { path: path.to_path_buf(), reason });
        }
        let values = match self.wide {
            Some(wide) => Tensor::from_vec(wide, (rows, self.d), &Device::Cpu)?,
            None => Tensor::from_vec(self.kept, (rows, self.d), &Device::Cpu)?,
        };
        let finite = self.scan.rows - self.scan.not_finite;
        self.scan.variances.iter_mut().for_each(|v| *v /= (finite as f64 - 1.0).max(1.0));
        self.scan.constant_columns =
            if finite == 0 { 0 } else { self.low.iter().zip(&self.high).filter(|(a, b)| a == b).count() };
        let scan = self.drawn.is_some().then_some(self.scan);
        Ok(Vectors { values, drawn: self.drawn, scan, table, notes })
    }
}
