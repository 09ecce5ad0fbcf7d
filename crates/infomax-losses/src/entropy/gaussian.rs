//! Second-moment entropies: the Gaussian bound, its diagonal, and log-determinants.

use crate::ranks::Ranks;
use crate::settings::{not_negative, positive};
use crate::{Error, MomentForm, Result, entropy::per_view, invariance::normalize_rows, moments, op, special};
use candle_core::{DType, Tensor};
use infomax_core::Bound;
use infomax_kernels::{Normalize, columns::second_moment, half_log_det_gram, linalg};
use std::f64::consts::{E, PI};

/// `H(Z) <= d/2 ln(2 pi e) + 1/2 ln det(S + eps I)` with the unbiased covariance `S`: no distribution of
/// that covariance has more entropy than the Gaussian (equality iff Gaussian, at `eps = 0`).
///
/// Gradient `1/(n-1) Zc (S + eps I)^{-1}`. Cost `n d min(n, d) + min(n, d)^3`. Without `eps` it is minus
/// infinity for `n <= d`. The plug-in value is biased downwards by sampling; `corrected` adds the exact bias
/// of Gaussian data, `-sum_j psi((n - j) / 2) - d ln(2 / (n - 1))`, and needs `n > d`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Gaussian {
    /// The factor in the total.
    pub weight: f64,
    /// Added to the diagonal (1e-4).
    pub eps: f64,
    /// Whether the Wishart bias is corrected.
    pub corrected: bool,
}

impl Default for Gaussian {
    fn default() -> Self {
        Self { weight: 1.0, eps: 1e-4, corrected: false }
    }
}

impl Gaussian {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows; `n <= d` where that has no meaning.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("gaussian", z, 2)?;
        let (n, d) = z.dims2()?;
        let (dof, dim) = ((n - 1) as f64, d as f64);
        if n <= d && (self.corrected || self.eps == 0.0) {
            return Err(Error::Shape {
                term: "gaussian",
                expected: "more samples than dimensions, or eps > 0 without the correction",
                got: z.dims().to_vec(),
            });
        }
        let constant = 0.5 * dim * (2.0 * PI * E).ln();
        let value = if self.eps > 0.0 {
            let rows = MomentForm::Auto.is_gram(n, d);
            let value = half_log_det_gram(&z, 1.0 / (dof * self.eps), Normalize::Center, rows)?;
            (value + (constant + 0.5 * dim * self.eps.ln()))?
        } else {
            let s = (second_moment(&centered(&z)?)? / dof)?;
            linalg::log_det_spd(&s)?.affine(0.5, constant)?
        };
        if !self.corrected {
            return Ok(value);
        }
        Ok((value - self.bias(n, d))?)
    }

    /// From the scatter of all ranks.
    pub(crate) fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        let (n, d) = (ranks.total, z.dim(1)?);
        if n <= d || n < 2 {
            return Ok(None);
        }
        let Some(scatter) = ranks.scatter(z)? else { return Ok(None) };
        let (dof, dim) = ((n - 1) as f64, d as f64);
        let eye = (Tensor::eye(d, scatter.dtype(), scatter.device())? * self.eps)?;
        let constant = 0.5 * dim * (2.0 * PI * E).ln();
        let value = linalg::log_det_spd(&((scatter / dof)? + eye)?)?.affine(0.5, constant)?;
        Ok(Some(if self.corrected { (value - self.bias(n, d))? } else { value }))
    }

    /// What sampling takes from `1/2 ln det S` of Gaussian data.
    fn bias(&self, n: usize, d: usize) -> f64 {
        let digammas: f64 = (1..=d).map(|j| special::digamma(0.5 * (n - j) as f64)).sum();
        0.5 * (digammas + d as f64 * (2.0 / (n - 1) as f64).ln())
    }

    fn settings(&self) -> Result<()> {
        not_negative("gaussian", "eps", self.eps)
    }

    fn kind(&self) -> Bound {
        if self.corrected { Bound::Estimate } else { Bound::Upper }
    }
}

per_view!(Gaussian, "gaussian", Gaussian::kind, Gaussian::shared);

/// `H(Z) <= d/2 ln(2 pi e) + 1/2 sum_j ln(S_jj + eps)`: the diagonal of [`Gaussian`], by Hadamard's
/// inequality. The gap between the two is the total correlation of the Gaussian. Cost `n d`; no rank problem.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Hadamard {
    /// The factor in the total.
    pub weight: f64,
    /// Added to the variances (1e-4).
    pub eps: f64,
}

impl Default for Hadamard {
    fn default() -> Self {
        Self { weight: 1.0, eps: 1e-4 }
    }
}

impl Hadamard {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("hadamard", z, 2)?;
        let (n, d) = z.dims2()?;
        let variances = (centered(&z)?.sqr()?.sum(0)? / (n - 1) as f64)?;
        let logs = (variances + self.eps)?.log()?.sum_all()?;
        Ok(logs.affine(0.5, 0.5 * d as f64 * (2.0 * PI * E).ln())?)
    }

    /// From the variances of all ranks.
    pub(crate) fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        let d = z.dim(1)?;
        if ranks.total < 2 || !ranks.sums_pay(d, z) {
            return Ok(None);
        }
        let squares = ranks.sum(&ranks.centered(z)?.sqr()?.sum(0)?)?;
        let logs = ((squares / (ranks.total - 1) as f64)? + self.eps)?.log()?.sum_all()?;
        Ok(Some(logs.affine(0.5, 0.5 * d as f64 * (2.0 * PI * E).ln())?))
    }

    fn settings(&self) -> Result<()> {
        not_negative("hadamard", "eps", self.eps)
    }
}

per_view!(Hadamard, "hadamard", |_: &Hadamard| Bound::Upper, Hadamard::shared);

/// Which second-moment matrix [`LogDet`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The biased covariance.
    #[default]
    Covariance,
    /// The correlation matrix.
    Pearson,
}

/// `H = 1/2 ln det(I + beta C)` (Zhouyin and Liu, arXiv 2105.03705), `C` the biased covariance or correlation.
///
/// For Gaussian `Z` it is the information of a Gaussian channel with noise `I / beta`; it lies above the
/// Gaussian entropy up to constants. Smooth everywhere; always on the smaller of the two sides, and in f64 inside
/// whatever the type of the embeddings, so that a large `beta` keeps its digits.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LogDet {
    /// The factor in the total.
    pub weight: f64,
    /// The inverse noise variance (1).
    pub beta: f64,
    /// Whether `beta` is multiplied by the dimension.
    pub beta_per_dim: bool,
    /// Covariance or correlation.
    pub moment: Moment,
    /// The form of the determinant.
    pub path: MomentForm,
}

impl Default for LogDet {
    fn default() -> Self {
        Self {
            weight: 1.0,
            beta: 1.0,
            beta_per_dim: false,
            moment: Moment::Covariance,
            path: MomentForm::Auto,
        }
    }
}

impl LogDet {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows; a `beta` that is not above 0.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let d = moments::matrix("logdet", z, 2)?.dim(1)?;
        self.with_beta(z, if self.beta_per_dim { self.beta * d as f64 } else { self.beta })
    }

    /// `I(X; Y) = H(X) + H(Y) - H(X, Y)` of paired rows, with one `beta` for all three.
    ///
    /// # Errors
    /// As [`LogDet::entropy`], and numbers of rows that differ.
    pub fn mutual_information(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let dtype = op::widen(x)?.dtype();
        // The difference of three large numbers, and of their gradients: in f64.
        let (x, y) = (&x.to_dtype(DType::F64)?, &y.to_dtype(DType::F64)?);
        let joint = Tensor::cat(&[x, y], 1)?;
        let dims = if self.beta_per_dim { joint.dim(1)? as f64 } else { 1.0 };
        let beta = self.beta * dims;
        let sum = (self.with_beta(x, beta)? + self.with_beta(y, beta)?)?;
        Ok((sum - self.with_beta(&joint, beta)?)?.to_dtype(dtype)?)
    }

    fn settings(&self) -> Result<()> {
        positive("logdet", "beta", self.beta)
    }

    /// From the scatter of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        if self.moment != Moment::Covariance || ranks.total < 2 {
            return Ok(None);
        }
        let beta = if self.beta_per_dim { self.beta * z.dim(1)? as f64 } else { self.beta };
        let scatter = ranks.scatter(z)?;
        scatter.map(|scatter| half_log_det_of(&scatter, beta / ranks.total as f64)).transpose()
    }

    fn with_beta(&self, z: &Tensor, beta: f64) -> Result<Tensor> {
        let z = moments::matrix("logdet", z, 2)?;
        let (n, d) = z.dims2()?;
        let normalize = match self.moment {
            Moment::Covariance => Normalize::Center,
            Moment::Pearson => Normalize::Standardize(1e-8),
        };
        Ok(half_log_det_gram(&z, beta / n as f64, normalize, self.path.is_gram(n, d))?)
    }
}

per_view!(LogDet, "logdet", |_: &LogDet| Bound::Surrogate, LogDet::shared);

/// The coding rate `R = 1/2 ln det(I + d / (n eps) Z^T Z)` (Yu et al., arXiv 2006.08558; EMP-SSL,
/// arXiv 2304.03977). Not centered. A collapsed batch has a smaller rate, and so a larger loss.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CodingRate {
    /// The factor in the total.
    pub weight: f64,
    /// The squared distortion (0.2).
    pub eps: f64,
    /// Whether rows are scaled to unit length first.
    pub normalize: bool,
    /// The form of the determinant.
    pub path: MomentForm,
}

impl Default for CodingRate {
    fn default() -> Self {
        Self { weight: 1.0, eps: 0.2, normalize: true, path: MomentForm::Auto }
    }
}

impl CodingRate {
    /// The rate of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = self.rows(z)?;
        let (n, d) = z.dims2()?;
        half_log_det(&z, d as f64 / (n as f64 * self.eps), self.path)
    }

    /// The rate within classes, `sum_k n_k / n R(Z_k)`; MCR2 maximizes [`CodingRate::entropy`] minus it.
    ///
    /// # Errors
    /// As [`CodingRate::entropy`], and a number of labels other than `n`.
    pub fn conditional(&self, z: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let z = self.rows(z)?;
        let (n, d) = z.dims2()?;
        if labels.len() != n {
            return Err(Error::Shape {
                term: "coding-rate",
                expected: "one label a row",
                got: vec![labels.len()],
            });
        }
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let mut rates = Vec::new();
        for class in classes {
            let rows: Vec<u32> = (0..n as u32).filter(|i| labels[*i as usize] == class).collect();
            let count = rows.len() as f64;
            let members = z.index_select(&Tensor::new(rows, z.device())?, 0)?;
            let rate = half_log_det(&members, d as f64 / (count * self.eps), self.path)?;
            rates.push((rate * (count / n as f64))?);
        }
        Ok(Tensor::stack(&rates, 0)?.sum_all()?)
    }

    fn settings(&self) -> Result<()> {
        positive("coding-rate", "eps", self.eps)
    }

    /// [`CodingRate::entropy`] of the rows of all ranks, in f64, from a sum of products where that is less traffic
    /// than the rows. `copies` of each sample are among the rows.
    pub(crate) fn shared_of(&self, ranks: &Ranks<'_>, z: &Tensor, copies: usize) -> Result<Option<Tensor>> {
        let z = self.rows(z)?;
        let scale = z.dim(1)? as f64 / ((ranks.total * copies) as f64 * self.eps);
        ranks.product(&z, &z)?.map(|product| half_log_det_of(&product, scale)).transpose()
    }

    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        self.shared_of(ranks, z, 1)
    }

    pub(crate) fn rows(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("coding-rate", z, 1)?;
        if self.normalize { normalize_rows(&z, 1e-12) } else { Ok(z) }
    }
}

per_view!(CodingRate, "coding-rate", |_: &CodingRate| Bound::Surrogate, CodingRate::shared);

/// `1/2 ln det(I + s P)` of a product `P = Z^T Z` `(d, d)`.
pub(crate) fn half_log_det_of(product: &Tensor, s: f64) -> Result<Tensor> {
    let eye = Tensor::eye(product.dim(0)?, product.dtype(), product.device())?;
    Ok((linalg::log_det_spd(&((product * s)? + eye)?)? * 0.5)?)
}

/// `Z - mean`, differentiable; the mean is taken in f64.
pub(crate) fn centered(z: &Tensor) -> Result<Tensor> {
    Ok(infomax_kernels::columns::center(z)?)
}

/// `1/2 ln det(I + s Z^T Z) = 1/2 ln det(I + s Z Z^T)`, by the smaller of the two, in f64 inside.
///
/// Gradient `s Z (I + s Z^T Z)^{-1} = s (I + s Z Z^T)^{-1} Z`.
///
/// # Errors
/// A matrix that is not finite; an `s` that is not above 0.
pub fn half_log_det(z: &Tensor, s: f64, path: MomentForm) -> Result<Tensor> {
    let z = moments::matrix("half-log-det", z, 1)?;
    let (n, d) = z.dims2()?;
    Ok(half_log_det_gram(&z, s, Normalize::Not, path.is_gram(n, d))?)
}
