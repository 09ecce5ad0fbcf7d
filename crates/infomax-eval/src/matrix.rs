//! Checked access to the matrices that evaluations take.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// A matrix on the host in f64, row by row, checked to be finite and not empty.
///
/// Features of any scale fit: squares of f32 values neither overflow nor vanish in f64.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) n: usize,
    pub(crate) d: usize,
    pub(crate) values: Vec<f64>,
}

impl Rows {
    /// Reads a tensor of shape `(N, D)` of any floating type and device.
    pub(crate) fn read(op: &'static str, name: &'static str, x: &Tensor) -> Result<Self> {
        if x.rank() != 2 || x.elem_count() == 0 {
            let expected = "a matrix (samples, dimensions) with at least one of each".to_owned();
            return Err(Error::Shape { op, name, expected, got: x.dims().to_vec() });
        }
        let (n, d) = x.dims2()?;
        let values =
            x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let damaged = |row: &[f64]| row.iter().any(|v| !v.is_finite());
        let rows: Vec<usize> =
            values.chunks_exact(d).enumerate().filter(|(_, r)| damaged(r)).map(|(i, _)| i).collect();
        if !rows.is_empty() {
            return Err(Error::NonFinite { op, name, rows });
        }
        Ok(Self { n, d, values })
    }

    /// [`Rows::read`], with at least so many rows.
    pub(crate) fn read_at_least(
        op: &'static str,
        name: &'static str,
        x: &Tensor,
        needed: usize,
    ) -> Result<Self> {
        let rows = Self::read(op, name, x)?;
        match rows.n >= needed {
            true => Ok(rows),
            false => Err(Error::TooFew { op, name, rows: rows.n, needed }),
        }
    }

    pub(crate) fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.d..(i + 1) * self.d]
    }

    pub(crate) fn iter(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.d)
    }

    pub(crate) fn column(&self, j: usize) -> Vec<f64> {
        self.iter().map(|row| row[j]).collect()
    }

    /// The rows of these numbers, in their order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|&i| self.row(i)).copied().collect();
        Self { n: rows.len(), d: self.d, values }
    }

    /// The mean of each column, in two passes.
    pub(crate) fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.d];
        for pass in 0..2 {
            let mut sum = vec![0.0; self.d];
            for row in self.iter() {
                for ((s, v), m) in sum.iter_mut().zip(row).zip(&mean) {
                    *s += v - if pass == 0 { 0.0 } else { *m };
                }
            }
            mean.iter_mut().zip(&sum).for_each(|(m, s)| *m += s / self.n as f64);
        }
        mean
    }

    /// The rows minus their mean.
    pub(crate) fn centered(&self) -> Self {
        let mean = self.mean();
        let values = self.iter().flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect();
        Self { n: self.n, d: self.d, values }
    }

    /// The rows at length 1; a row of zeros stays. The scale of the features does not matter: each row is
    /// divided by its largest element first.
    pub(crate) fn unit(&self) -> Self {
        let mut values = self.values.clone();
        for row in values.chunks_exact_mut(self.d) {
            let largest = row.iter().fold(0f64, |m, v| m.max(v.abs()));
            if largest > 0.0 {
                row.iter_mut().for_each(|v| *v /= largest);
                let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                row.iter_mut().for_each(|v| *v /= norm);
            }
        }
        Self { n: self.n, d: self.d, values }
    }

    pub(crate) fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |m, v| m.max(v.abs()))
    }

    /// The columns whose values are all equal.
    pub(crate) fn constant_columns(&self) -> Vec<usize> {
        let mut constant = vec![true; self.d];
        for row in self.iter().skip(1) {
            for ((c, v), first) in constant.iter_mut().zip(row).zip(self.row(0)) {
                *c &= v == first;
            }
        }
        (0..self.d).filter(|&j| constant[j]).collect()
    }

    /// The columns one after the other: `(D, N)`.
    pub(crate) fn transposed(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.values.len()];
        for (i, row) in self.iter().enumerate() {
            for (j, v) in row.iter().enumerate() {
                values[j * self.n + i] = *v;
            }
        }
        values
    }

    pub(crate) fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, (self.n, self.d), &Device::Cpu)?)
    }

    /// The tensor in f32. Values beyond its range become the largest of it.
    pub(crate) fn tensor_f32(&self) -> Result<Tensor> {
        let limit = f64::from(f32::MAX);
        let values: Vec<f32> = self.values.iter().map(|v| v.clamp(-limit, limit) as f32).collect();
        Ok(Tensor::from_vec(values, (self.n, self.d), &Device::Cpu)?)
    }

    /// The squared lengths of the rows.
    pub(crate) fn squares(&self) -> Vec<f64> {
        self.iter().map(|row| row.iter().map(|v| v * v).sum()).collect()
    }
}

/// A function of the squared distances of each row to all rows, itself among them at 0.
///
/// By differences below eight columns; else by f64 products of the centered rows, in blocks, where distances are
/// precise to about `D 1e-16 (|x|^2 + |y|^2)`.
pub(crate) fn square_distances<T: Send>(
    queries: &Rows,
    rows: &Rows,
    f: impl Fn(usize, &mut [f64]) -> T + Sync,
) -> Result<Vec<T>> {
    let n = rows.n;
    if rows.d < 8 {
        let columns = rows.transposed();
        let one = |i: usize| {
            let mut squares = vec![0.0; n];
            for (column, x) in columns.chunks_exact(n).zip(queries.row(i)) {
                squares.iter_mut().zip(column).for_each(|(s, y)| *s += (x - y) * (x - y));
            }
            f(i, &mut squares)
        };
        return Ok((0..queries.n).into_par_iter().map(one).collect());
    }
    let mean = rows.mean();
    let shifted = |x: &Rows| {
        let values = x.iter().flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect();
        Rows { n: x.n, d: x.d, values }
    };
    let (queries, rows) = (shifted(queries), shifted(rows));
    let (own, lengths) = (queries.squares(), rows.squares());
    let transposed = rows.tensor()?.t()?.contiguous()?;
    let x = queries.tensor()?;
    let mut results = Vec::with_capacity(queries.n);
    for start in (0..queries.n).step_by(512) {
        let count = 512.min(queries.n - start);
        let mut products = x.narrow(0, start, count)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f64>()?;
        let block: Vec<T> = products
            .par_chunks_mut(n)
            .enumerate()
            .map(|(i, row)| {
                for (p, length) in row.iter_mut().zip(&lengths) {
                    *p = (own[start + i] + length - 2.0 * *p).max(0.0);
                }
                f(start + i, row)
            })
            .collect();
        results.extend(block);
    }
    Ok(results)
}

/// [`Rows::read`] with as many labels as rows.
pub(crate) fn labeled(op: &'static str, name: &'static str, x: &Tensor, labels: &[u32]) -> Result<Rows> {
    let x = Rows::read(op, name, x)?;
    if x.n != labels.len() {
        return Err(Error::Labels { op, name, rows: x.n, labels: labels.len() });
    }
    Ok(x)
}

/// Two matrices of the same samples.
pub(crate) fn paired(op: &'static str, names: [&'static str; 2], x: &Rows, y: &Rows) -> Result<()> {
    if x.n != y.n {
        return Err(Error::Paired { op, first: names[0], second: names[1], rows: [x.n, y.n] });
    }
    Ok(())
}

/// A train and a test set of one width.
pub(crate) fn same_width(op: &'static str, train: &Rows, test: &Rows) -> Result<()> {
    if train.d != test.d {
        return Err(Error::Shape {
            op,
            name: "test",
            expected: format!("(samples, {}) like train", train.d),
            got: vec![test.n, test.d],
        });
    }
    Ok(())
}

/// The number of classes: one more than the largest label.
pub(crate) fn classes(op: &'static str, train: &[u32], test: &[u32]) -> Result<usize> {
    let first = train.first().copied().unwrap_or(0);
    if train.iter().all(|&label| label == first) {
        return Err(Error::OneClass { op, class: first });
    }
    let largest = train.iter().chain(test).copied().max().unwrap_or(0);
    if largest >= 1_000_000 {
        return Err(Error::Config {
            key: "labels",
            value: largest.to_string(),
            reason: "classes are numbered from 0 without gaps",
        });
    }
    Ok(largest as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_are_not_finite_are_named() {
        let mut values = vec![1f32; 60];
        (values[7], values[21], values[59]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        let x = Tensor::from_vec(values, (20, 3), &Device::Cpu).unwrap();
        let message = Rows::read("op", "z", &x).unwrap_err().to_string();
        assert!(message.contains("3 rows: 2, 7, 19"), "{message}");
    }

    #[test]
    fn units_do_not_depend_on_the_scale() {
        for scale in [1e-150, 1e-13, 1.0, 1e20, 1e150] {
            let rows = Rows { n: 2, d: 2, values: vec![3.0 * scale, -4.0 * scale, 0.0, 0.0] };
            let unit = rows.unit();
            assert!((unit.values[0] - 0.6).abs() < 1e-15 && (unit.values[1] + 0.8).abs() < 1e-15);
            assert_eq!(unit.row(1), [0.0, 0.0]);
        }
    }
}
