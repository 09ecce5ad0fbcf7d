//! Variational bounds on mutual information from a matrix of scores, and the account of an objective.
//!
//! `scores[i][j] = f(x_i, y_j)`, `(n, n)`: pairs on the diagonal, independent samples off it. All are scalars,
//! differentiable, in nats.

use crate::{Entropy, Error, Estimate, Result, op};
use candle_core::{D, Device, Tensor};

/// `mean_i [f_ii - ln sum_j e^{f_ij}] + ln n` (van den Oord et al., arXiv 1807.03748). A lower bound; at most
/// `ln n`.
///
/// # Errors
/// Scores that are not square.
pub fn info_nce(scores: &Tensor) -> Result<Tensor> {
    let s = Scores::new("info-nce", scores, 1)?;
    let sums = log_sum_exp_rows(&s.all)?;
    Ok(((s.diagonal()? - sums)?.mean_all()? + (s.n as f64).ln())?)
}

/// `mean f_ii - mean_{i != j} e^{f_ij - 1}` (Nguyen, Wainwright and Jordan, arXiv 0809.0853). A lower bound of
/// large variance.
///
/// # Errors
/// Scores that are not square, or of fewer than two samples.
pub fn nwj(scores: &Tensor) -> Result<Tensor> {
    let s = Scores::new("nwj", scores, 2)?;
    let marginal = (s.log_mean_off()? - 1.0)?.exp()?;
    Ok((s.diagonal()?.mean_all()? - marginal)?)
}

/// `mean f_ii - ln mean_{i != j} e^{f_ij}` (Donsker and Varadhan; MINE, arXiv 1801.04062). A lower bound in the
/// limit of many samples; on a finite batch it can exceed the truth.
///
/// # Errors
/// As [`nwj`].
pub fn donsker_varadhan(scores: &Tensor) -> Result<Tensor> {
    let s = Scores::new("donsker-varadhan", scores, 2)?;
    Ok((s.diagonal()?.mean_all()? - s.log_mean_off()?)?)
}

/// SMILE (Song and Ermon, arXiv 1910.06222): [`donsker_varadhan`] with the scores of the partition cut to
/// `[-tau, tau]`; `None` for no cut. Not a bound. This is its value; train with [`jensen_shannon`].
///
/// # Errors
/// As [`nwj`].
pub fn smile(scores: &Tensor, tau: Option<f64>) -> Result<Tensor> {
    let s = Scores::new("smile", scores, 2)?;
    let cut = match tau {
        Some(tau) => Scores { all: s.all.clamp(-tau, tau)?, n: s.n },
        None => Scores { all: s.all.clone(), n: s.n },
    };
    Ok((s.diagonal()?.mean_all()? - cut.log_mean_off()?)?)
}

/// [`smile`] in value, with the gradient of [`jensen_shannon`], as its authors train it.
///
/// # Errors
/// As [`nwj`].
pub fn smile_trained(scores: &Tensor, tau: Option<f64>) -> Result<Tensor> {
    value_with_gradient(&smile(scores, tau)?, &jensen_shannon(scores)?)
}

/// [`nwj`] in value, with the gradient of [`jensen_shannon`]: a lower bound from a critic that is trained by the
/// steadier objective. (The best critic of [`nwj`] is 1 above that of [`jensen_shannon`], so that the bound is not
/// tight; `nwj(f + 1)` is.)
///
/// # Errors
/// As [`nwj`].
pub fn jensen_shannon_nwj(scores: &Tensor) -> Result<Tensor> {
    value_with_gradient(&nwj(scores)?, &jensen_shannon(scores)?)
}

/// MINE (Belghazi et al., arXiv 1801.04062): [`donsker_varadhan`] in value; in the gradient, the partition is
/// divided by its moving average over the steps and not by that of the batch, which removes the bias of small
/// batches.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mine {
    /// The share of the present batch in the average (0.1).
    pub rate: f64,
    /// The logarithm of the average; `None` before the first step.
    pub ln_average: Option<f64>,
}

impl Default for Mine {
    fn default() -> Self {
        Self { rate: 0.1, ln_average: None }
    }
}

impl Mine {
    /// The bound on a batch of scores, which enters the average.
    ///
    /// # Errors
    /// As [`nwj`].
    pub fn step(&mut self, scores: &Tensor) -> Result<Tensor> {
        let s = Scores::new("mine", scores, 2)?;
        let (joint, partition) = (s.diagonal()?.mean_all()?, s.log_mean_off()?);
        let fresh = op::number(&partition)?;
        let average = match self.ln_average {
            None => fresh,
            Some(old) => {
                let max = old.max(fresh);
                max + ((1.0 - self.rate) * (old - max).exp() + self.rate * (fresh - max).exp()).ln()
            }
        };
        self.ln_average = Some(average);
        let trained = (&joint - (&partition - average)?.exp()?)?;
        value_with_gradient(&(joint - partition)?, &trained)
    }
}

/// `-mean softplus(-f_ii) - mean_{i != j} softplus(f_ij)`: the f-GAN bound on the Jensen-Shannon divergence, an
/// objective for the critic of [`nwj`] and [`smile`].
///
/// # Errors
/// As [`nwj`].
pub fn jensen_shannon(scores: &Tensor) -> Result<Tensor> {
    let s = Scores::new("jensen-shannon", scores, 2)?;
    let positive = softplus(&s.diagonal()?.neg()?)?.mean_all()?;
    let off = (softplus(&s.all)? * s.off_mask()?)?.sum_all()?;
    let pairs = (s.n * (s.n - 1)) as f64;
    Ok((positive.neg()? - (off / pairs)?)?)
}

/// `1 + mean(f_ii - ln a) - mean_{i != j} e^{f_ij - ln a}` (Barber and Agakov; Poole et al., arXiv 1905.06922) for
/// a baseline `ln a`; `ln a = 1` is [`nwj`]. A lower bound.
///
/// # Errors
/// As [`nwj`].
pub fn tuba(scores: &Tensor, log_baseline: f64) -> Result<Tensor> {
    let s = Scores::new("tuba", scores, 2)?;
    let marginal = (s.log_mean_off()? - log_baseline)?.exp()?;
    Ok(((s.diagonal()?.mean_all()? + (1.0 - log_baseline))? - marginal)?)
}

/// `mean_i ln q(y_i | x_i) - mean_ij ln q(y_j | x_i)` from the matrix `ln q(y_j | x_i)` (CLUB, arXiv 2006.12013).
/// An upper bound only for a good `q`.
///
/// # Errors
/// Scores that are not square.
pub fn club(log_q: &Tensor) -> Result<Tensor> {
    let s = Scores::new("club", log_q, 1)?;
    Ok((s.diagonal()?.mean_all()? - s.all.mean_all()?)?)
}

/// `mean_i [ln q(y_i | x_i) - ln mean_{j != i} q(y_i | x_j)]` from the matrix `ln q(y_j | x_i)` (Poole et al.,
/// arXiv 1905.06922). An upper bound in expectation.
///
/// # Errors
/// As [`nwj`].
pub fn leave_one_out(log_q: &Tensor) -> Result<Tensor> {
    let s = Scores::new("leave-one-out", log_q, 2)?;
    let columns = (s.all.t()? + s.minus_infinity_on_diagonal()?)?;
    let means = (log_sum_exp_rows(&columns)? - ((s.n - 1) as f64).ln())?;
    Ok((s.diagonal()? - means)?.mean_all()?)
}

/// `mean ln q(y_i | x_i) + H(Y)` (Barber and Agakov 2003). A lower bound.
///
/// # Errors
/// Scores that are not square.
pub fn barber_agakov(log_q: &Tensor, entropy: f64) -> Result<Tensor> {
    let s = Scores::new("barber-agakov", log_q, 1)?;
    Ok((s.diagonal()?.mean_all()? + entropy)?)
}

/// The bound of arXiv 2303.00633 on one batch: `I(Z; X') >= H(Z) + E ln q(z | z')`, in nats.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Account {
    /// The entropy part, with how it relates to the truth.
    pub entropy: Estimate,
    /// The conditional part, `E ln q(z | z')` with `q = N(z', s2 I)`.
    pub conditional: f64,
    /// Their sum. It inherits the kind of the entropy part: a lower bound for a lower bound.
    pub information: f64,
}

/// The account of two views `(n, d)`, with the conditional variance `s2`, or with its best value,
/// `E |z - z'|^2 / d` (not below 1e-12 of the variance of the rows), for `None`. The estimator's own width is not
/// known here: see [`crate::ObjectiveConfig::account`] for an account that shares it between both parts.
///
/// # Errors
/// Views of unequal shape; a view without spread, which holds no information; an `s2` that is not above 0; what the
/// estimator refuses.
pub fn account(z1: &Tensor, z2: &Tensor, entropy: &dyn Entropy, s2: Option<f64>) -> Result<Account> {
    let d = crate::moments::matrix("account", z1, 1)?.dims2()?.1 as f64;
    let error = op::number(&crate::invariance::mse(z1, z2)?)?; // E |z - z'|^2 / d
    let rounding = crate::account::rounding(z1.dtype());
    let spread = crate::account::has_spread(1, &op::widen(z1)?, rounding, None)?;
    crate::account::has_spread(2, &op::widen(z2)?, rounding, None)?;
    let s2 = match s2 {
        Some(s2) => s2,
        // Equal views have no best variance: the floor keeps the account finite.
        None => error.max(1e-12 * spread / d),
    };
    crate::settings::positive("account", "s2", s2)?;
    let conditional = -0.5 * d * (error / s2 + (2.0 * std::f64::consts::PI * s2).ln());
    let entropy = entropy.estimate(z1)?;
    Ok(Account { entropy, conditional, information: entropy.nats + conditional })
}

/// The value of one scalar with the gradient of another.
fn value_with_gradient(value: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok((value.detach() + (gradient - gradient.detach())?)?)
}

struct Scores {
    all: Tensor,
    n: usize,
}

impl Scores {
    fn new(term: &'static str, scores: &Tensor, least: usize) -> Result<Self> {
        let square = scores.rank() == 2 && scores.dims()[0] == scores.dims()[1];
        if !square || scores.dims()[0] < least {
            let expected =
                if least > 1 { "square scores (n, n) with n >= 2" } else { "square scores (n, n)" };
            return Err(Error::Shape { term, expected, got: scores.dims().to_vec() });
        }
        Ok(Self { all: op::widen(scores)?, n: scores.dims()[0] })
    }

    fn mask(&self, on: f64, off: f64) -> Result<Tensor> {
        let n = self.n;
        let values: Vec<f64> = (0..n * n).map(|ij| if ij / n == ij % n { on } else { off }).collect();
        Ok(Tensor::from_vec(values, (n, n), &Device::Cpu)?
            .to_dtype(self.all.dtype())?
            .to_device(self.all.device())?)
    }

    fn off_mask(&self) -> Result<Tensor> {
        self.mask(0.0, 1.0)
    }

    fn minus_infinity_on_diagonal(&self) -> Result<Tensor> {
        self.mask(f64::NEG_INFINITY, 0.0)
    }

    fn diagonal(&self) -> Result<Tensor> {
        Ok((&self.all * self.mask(1.0, 0.0)?)?.sum(1)?)
    }

    fn log_mean_off(&self) -> Result<Tensor> {
        let off = (&self.all + self.minus_infinity_on_diagonal()?)?.flatten_all()?.unsqueeze(0)?;
        Ok((log_sum_exp_rows(&off)?.squeeze(0)? - ((self.n * (self.n - 1)) as f64).ln())?)
    }
}

fn log_sum_exp_rows(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(D::Minus1)?.detach();
    let sums = x.broadcast_sub(&max)?.exp()?.sum(D::Minus1)?;
    Ok((sums.log()? + max.squeeze(D::Minus1)?)?)
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^{-|x|})`.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let small = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((x.relu()? + small)?)
}
