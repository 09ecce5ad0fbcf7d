//! The terms of the generalization bound that ties self-supervised training to a linear classifier.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_kernels::linalg;
use serde::Serialize;

/// The terms of [`generalization_terms`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GeneralizationTerms {
    /// `I = 1/m sum |f(x_i^+) - f(x_i^++)|` over the unlabeled pairs: the norm, not its square.
    pub invariance: Estimate,
    /// `1 / sqrt n |P_{Z_S} Y_S|_F` over the labeled rows.
    pub labeled: Residual,
    /// `2 / sqrt m |P_{Z_Sbar} Y_Sbar|_F` over the unlabeled pairs, where their labels were given: an oracle, as the
    /// bound is about labels that nobody has. `None` without them.
    pub unlabeled: Option<Residual>,
    /// The sum of the terms that are known. The bound adds a term of order
    /// `sqrt(ln(1 / delta) / m) + sqrt(ln(1 / delta) / n)` with constants that cannot be observed.
    pub known_sum: f64,
    /// What is missing from the sum, in words.
    pub doubts: Vec<Doubt>,
}

/// What least squares without an intercept leaves of the labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Residual {
    /// The term of the bound.
    pub term: f64,
    /// `|P_Z Y|_F`.
    pub norm: f64,
    /// The rank of the embeddings; the projection has the trace `rows - rank`.
    pub rank: usize,
    /// The number of rows.
    pub n: usize,
}

/// The observable terms of the bound (Shwartz-Ziv et al., arXiv:2303.00633, theorem on generalization): with
/// probability `1 - delta`, the expected loss `E |W_S f(x) - y|` of the least-squares classifier of smallest norm is
/// at most, up to constants,
/// `I_Sbar(f) + 2 / sqrt m |P_{Z_Sbar} Y_Sbar|_F + 1 / sqrt n |P_{Z_S} Y_S|_F + Q_{m,n}`, with
/// `P_Z = I - Z^T (Z Z^T)^+ Z` for columns as samples.
///
/// `labeled` `(n, d)` with its labels, `view_a` and `view_b` `(m, d)` the embeddings of positive pairs, and, where an
/// oracle knows them, the labels of the pairs; `Z_Sbar` holds `view_a`. Labels are one-hot vectors. The projection is
/// never formed: `|P_Z Y|_F` is the residual `|Y - U U^T Y|_F` with the left singular vectors `U` of the rows whose
/// singular values exceed `1e-10` of the largest.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, or a single class.
pub fn generalization_terms(
    labeled: &Tensor,
    labels: &[u32],
    view_a: &Tensor,
    view_b: &Tensor,
    pair_labels: Option<&[u32]>,
    cfg: &Resampling,
) -> Result<GeneralizationTerms> {
    const OP: &str = "generalization_terms";
    let z = matrix::labeled(OP, "labeled", labeled, labels)?;
    let (a, b) = (Rows::read(OP, "view_a", view_a)?, Rows::read(OP, "view_b", view_b)?);
    matrix::paired(OP, ["view_a", "view_b"], &a, &b)?;
    for (name, rows, x) in [("view_a", &a, view_a), ("view_b", &b, view_b)] {
        if rows.d != z.d {
            let expected = format!("(pairs, {}) like labeled", z.d);
            return Err(Error::Shape { op: OP, name, expected, got: x.dims().to_vec() });
        }
    }
    let classes = matrix::classes(OP, labels, pair_labels.unwrap_or(&[]))?;
    let norm = |(p, q): (&[f64], &[f64])| p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum::<f64>().sqrt();
    let distances: Vec<f64> = a.iter().zip(b.iter()).map(norm).collect();
    let mut invariance = cfg.mean(&distances)?;
    if invariance.value == 0.0 {
        let message = "both views have the same embeddings: collapsed, or the same view twice";
        invariance.doubts.push(Doubt::new("constant", message));
    }

    let mut doubts = Vec::new();
    let (norm, rank) = projection_residual(&z, &one_hot(labels, classes))?;
    let n = z.n as f64;
    let labeled = Residual { term: norm / n.sqrt(), norm, rank, n: z.n };
    if rank == z.n {
        let message = format!(
            "{} labeled rows of rank {rank}: any labels are fitted, and the term is 0 whatever the embeddings know",
            z.n
        );
        doubts.push(Doubt::new("saturated", message));
    }
    let unlabeled = match pair_labels {
        None => None,
        Some(given) => {
            if given.len() != a.n {
                return Err(Error::Labels { op: OP, name: "view_a", rows: a.n, labels: given.len() });
            }
            let (norm, rank) = projection_residual(&a, &one_hot(given, classes))?;
            Some(Residual { term: 2.0 * norm / (a.n as f64).sqrt(), norm, rank, n: a.n })
        }
    };
    let oracle = match &unlabeled {
        None => "the term of the unlabeled pairs is missing: their labels are unknown".to_owned(),
        Some(_) => "the labels of the unlabeled pairs are an oracle's".to_owned(),
    };
    doubts.push(Doubt::new("unobservable", oracle));
    doubts.push(Doubt::new("unobservable", "the constants and the complexity term Q are unknown"));
    Ok(GeneralizationTerms {
        known_sum: invariance.value + labeled.term + unlabeled.as_ref().map_or(0.0, |r| r.term),
        invariance,
        labeled,
        unlabeled,
        doubts,
    })
}

fn one_hot(labels: &[u32], classes: usize) -> Rows {
    let mut values = vec![0.0; labels.len() * classes];
    labels.iter().enumerate().for_each(|(i, l)| values[i * classes + *l as usize] = 1.0);
    Rows { n: labels.len(), d: classes, values }
}

/// `|P_Z Y|_F` and the rank of `Z`; rows are samples in both.
fn projection_residual(z: &Rows, y: &Rows) -> Result<(f64, usize)> {
    let scale = z.largest().max(f64::MIN_POSITIVE);
    let values: Vec<f64> = z.values.iter().map(|v| v / scale).collect();
    let z = Tensor::from_vec(values, (z.n, z.d), &Device::Cpu)?;
    let y = y.tensor()?;
    let (u, s, _) = linalg::svd(&z)?;
    let s = s.to_vec1::<f64>()?;
    let limit = 1e-10 * s.first().copied().unwrap_or(0.0);
    let rank = s.iter().filter(|s| **s > limit).count();
    if rank == 0 {
        return Ok((y.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt(), 0));
    }
    let u = u.narrow(1, 0, rank)?.contiguous()?;
    // Subtracted before it is squared: |Y|^2 - |U^T Y|^2 would cancel.
    let rest = (&y - u.matmul(&u.t()?.contiguous()?.matmul(&y)?)?)?;
    Ok((rest.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt(), rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Tensor {
        let path = format!("{}/tests/golden/bound/{name}.npy", env!("CARGO_MANIFEST_DIR"));
        infomax_testing::read_npy(path).unwrap()
    }

    #[test]
    fn residuals_equal_numpy() {
        let text = include_str!("../../tests/golden/bound/bound.json");
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let expected = &all["d6_n40_r3"];
        let z = Rows::read("t", "z", &golden("d6_n40_r3.Z").t().unwrap()).unwrap();
        let y = Rows::read("t", "y", &golden("d6_n40_r3.Y")).unwrap();
        let (norm, rank) = projection_residual(&z, &y).unwrap();
        let want = expected["||P_Z Y||_F via SVD of Z"].as_f64().unwrap();
        assert!((norm - want).abs() < 1e-9 * want);
        assert_eq!((40 - rank) as f64, expected["trace(P)=n-rank"].as_f64().unwrap());
    }
}
