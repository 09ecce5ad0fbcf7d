//! How far a predicted covariance is from a sampled one, and why.

use super::noise::{MonteCarloConfig, Noise};
use crate::{Error, Result};
use candle_core::{D, DType, Device, Tensor};
use infomax_kernels::linalg;
use serde::Serialize;

/// The result of [`agreement`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Agreement {
    /// `|C - P|_F / |P|_F` of the sampled covariance `C` and the predicted one `P`.
    pub relative_frobenius: f64,
    /// What that would be in the root mean square by chance alone, if the output were normal with the covariance `P`:
    /// `sqrt((tr(P)^2 + |P|_F^2) / (draws - 1)) / |P|_F`.
    pub by_chance: f64,
    /// The columns of the leading subspaces that were compared.
    pub leading: usize,
    /// The largest principal angle between them, in radians: 0 if they are one, `pi / 2` if a direction of one is
    /// orthogonal to all of the other.
    pub largest_angle: f64,
    /// The root mean square of the sines of the principal angles.
    pub mean_sine: f64,
    /// `tr(C) / tr(P)`: 1 where the theorem holds.
    pub trace_ratio: f64,
}

/// Compares the covariance that the theorem predicts with that of `draws` samples, both `(D, D)`, in the Frobenius
/// norm and by the angle between the subspaces of their `leading` largest eigenvalues.
///
/// The subspace is well defined only where there is a gap behind its last eigenvalue.
///
/// # Errors
/// Matrices that are not square or not of one shape, values that are not finite, `leading` of 0 or above `D`, fewer
/// than two draws, or a prediction of zeros.
pub fn agreement(predicted: &Tensor, sampled: &Tensor, draws: usize, leading: usize) -> Result<Agreement> {
    const OP: &str = "agreement";
    let read =
        |t: &Tensor| -> Result<Tensor> { Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?) };
    let (p, c) = (read(predicted)?, read(sampled)?);
    let (d, _) = p.dims2()?;
    if c.dims() != p.dims() {
        let expected = format!("{:?} like the prediction", p.dims());
        return Err(Error::Shape { op: OP, name: "sampled", expected, got: c.dims().to_vec() });
    }
    if leading == 0 || leading > d || draws < 2 {
        let value = format!("leading {leading}, draws {draws}");
        let reason = "needs at least two draws, and 1 to D leading directions";
        return Err(Error::Config { key: "agreement", value, reason });
    }
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    let size = norm(&p)?;
    if size <= 0.0 {
        return Err(Error::Singular { op: OP, name: "the prediction", rows: d, columns: d });
    }
    let trace = |t: &Tensor| -> Result<f64> {
        Ok((0..d).map(|i| t.get(i)?.get(i)?.to_scalar::<f64>()).sum::<candle_core::Result<f64>>()?)
    };
    let (trace_p, trace_c) = (trace(&p)?, trace(&c)?);
    let top = |t: &Tensor| -> Result<Tensor> {
        Ok(linalg::eigh(t)?.1.narrow(1, d - leading, leading)?.contiguous()?)
    };
    let (u, v) = (top(&p)?, top(&c)?);
    // Sines by the part of one basis outside of the other: small angles keep their digits, as cosines do not.
    let outside = (&v - u.matmul(&u.t()?.contiguous()?.matmul(&v)?)?)?;
    let sines = linalg::singular_values(&outside)?;
    let largest = sines.first().copied().unwrap_or(0.0).min(1.0);
    let mean_sine = (sines.iter().map(|s| s * s).sum::<f64>() / leading as f64).sqrt();
    Ok(Agreement {
        relative_frobenius: norm(&(&c - &p)?)? / size,
        by_chance: ((trace_p * trace_p + size * size) / (draws as f64 - 1.0)).sqrt() / size,
        leading,
        largest_angle: largest.asin(),
        mean_sine,
        trace_ratio: trace_c / trace_p,
    })
}

/// The result of [`region_shares`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RegionShares {
    /// The share of draws whose activation pattern differs from that of the point in at least one unit: they have left
    /// its linear region.
    pub left: f64,
    /// The mean share of units that switched.
    pub switched: f64,
    /// The units of the pattern.
    pub units: usize,
    /// The draws.
    pub draws: usize,
}

/// How often noise leaves the linear region of a point. `pattern` gives for inputs `(B, ...)` the state `(B, P)` of
/// every unit: whether its pre-activation is positive, or which element a pooling took, as any numbers that are equal
/// within a region and differ beyond it.
///
/// In a wide network nearly every draw switches some unit; `switched` says how many.
///
/// # Errors
/// Settings out of range or a pattern that is not `(B, P)`.
pub fn region_shares(
    pattern: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    noise: &Noise,
    cfg: &MonteCarloConfig,
) -> Result<RegionShares> {
    const OP: &str = "region_shares";
    let read = |inputs: &Tensor| -> Result<Tensor> {
        let states = pattern(inputs)?;
        super::jacobian::width(OP, &states, inputs.dim(0)?)?;
        Ok(states.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
    };
    let own = read(&x.detach().unsqueeze(0)?)?;
    let (mut left, mut switched) = (0.0, 0.0);
    cfg.batches(x, noise, |noisy, _| {
        let others = read(noisy)?.broadcast_ne(&own)?.to_dtype(DType::F64)?;
        for units in others.sum(D::Minus1)?.to_vec1::<f64>()? {
            left += f64::from(u8::from(units > 0.0));
            switched += units;
        }
        Ok(())
    })?;
    let (draws, units) = (cfg.draws, own.dim(1)?);
    let n = draws as f64;
    Ok(RegionShares { left: left / n, switched: switched / (n * units as f64), units, draws })
}
