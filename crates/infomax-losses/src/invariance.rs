//! The invariance terms: what pulls the views of one sample together.

use crate::{Error, Result, op};
use candle_core::Tensor;
use infomax_core::{Context, Embeddings, Part, Role, Views};

/// An invariance term, as data.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Invariance {
    /// Mean squared error.
    Mse(Mse),
    /// Negative cosine similarity.
    Cosine(Cosine),
    /// Huber's error of unit transition.
    SmoothL1(SmoothL1),
    /// No invariance term: regularisation alone.
    None(NoInvariance),
}

/// How more than two views are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// The mean over all pairs of views.
    #[default]
    Pairs,
    /// Every view with the mean of all views.
    Mean,
    /// Every view with the mean of the first two (the global views of a multi-crop).
    Globals,
}

/// What a view is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Teacher {
    /// The other views' projections; gradients flow through both.
    #[default]
    None,
    /// The predictions with the other views' projections, which get no gradient (SimSiam).
    StopGradient,
    /// The predictions with the other views' targets of a momentum teacher (BYOL).
    Momentum,
}

/// `1/(n d) ||z - z'||_F^2`, averaged as [`Pairing`] says: `-E log q(z | z')` of a Gaussian, up to constants.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mse {
    /// The factor in the total.
    pub weight: f64,
    /// How views are paired.
    pub pairing: Pairing,
    /// What a view is compared with.
    pub teacher: Teacher,
    /// Whether rows are scaled to unit length first.
    pub normalize: bool,
    /// Whether the squared error is summed over the dimensions (true) or averaged (false).
    pub sum_dims: bool,
}

impl Default for Mse {
    fn default() -> Self {
        Self {
            weight: 1.0,
            pairing: Pairing::Pairs,
            teacher: Teacher::None,
            normalize: false,
            sum_dims: false,
        }
    }
}

/// `offset - scale mean_i cos(z_i, z'_i)`: `-E log q` of a von Mises-Fisher distribution, up to constants.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// The factor in the total.
    pub weight: f64,
    /// How views are paired.
    pub pairing: Pairing,
    /// What a view is compared with.
    pub teacher: Teacher,
    /// The value at zero similarity (0; BYOL: 2).
    pub offset: f64,
    /// The slope (1; BYOL: 2).
    pub scale: f64,
    /// Norms are not taken below it.
    pub eps: f64,
}

impl Default for Cosine {
    fn default() -> Self {
        Self {
            weight: 1.0,
            pairing: Pairing::Pairs,
            teacher: Teacher::None,
            offset: 0.0,
            scale: 1.0,
            eps: 1e-12,
        }
    }
}

/// Mean of `e^2 / (2 beta)` for `|e| < beta`, else `|e| - beta / 2`, with `e = z - z'`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothL1 {
    /// The factor in the total.
    pub weight: f64,
    /// How views are paired.
    pub pairing: Pairing,
    /// What a view is compared with.
    pub teacher: Teacher,
    /// Where the square turns into a line (1).
    pub beta: f64,
}

impl Default for SmoothL1 {
    fn default() -> Self {
        Self { weight: 1.0, pairing: Pairing::Pairs, teacher: Teacher::None, beta: 1.0 }
    }
}

/// The absent invariance term.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoInvariance {}

impl Invariance {
    /// The parts of the loss: one part `invariance`, or none.
    ///
    /// # Errors
    /// One view only, or predictions and targets that the term needs and the embeddings lack.
    pub fn evaluate(&self, z: &Embeddings, _ctx: &Context<'_>) -> Result<Vec<Part>> {
        let (weight, value) = match self {
            Self::Mse(c) => {
                let z = if c.normalize { normalized(z)? } else { z.clone() };
                let factor = if c.sum_dims { z.projections.dim() as f64 } else { 1.0 };
                let value = paired("mse", &z, c.pairing, c.teacher, mse)?;
                (c.weight, (value * factor)?)
            }
            Self::Cosine(c) => {
                let value = paired("cosine", z, c.pairing, c.teacher, |a, b| cosine(a, b, c.eps))?;
                (c.weight, value.affine(-c.scale, c.offset)?)
            }
            Self::SmoothL1(c) => {
                if c.beta <= 0.0 {
                    return Err(Error::Config {
                        term: "smooth-l1",
                        key: "beta",
                        value: c.beta.to_string(),
                        reason: "must be above 0",
                    });
                }
                let value = paired("smooth-l1", z, c.pairing, c.teacher, |a, b| smooth_l1(a, b, c.beta))?;
                (c.weight, value)
            }
            Self::None(_) => return Ok(Vec::new()),
        };
        Ok(vec![Part { name: "invariance".into(), role: Role::Invariance, weight, value }])
    }

    /// The factor in the total.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Mse(c) => c.weight,
            Self::Cosine(c) => c.weight,
            Self::SmoothL1(c) => c.weight,
            Self::None(_) => 0.0,
        }
    }
}

/// `mean((a - b)^2)` over all elements: a scalar.
///
/// # Errors
/// Tensors of unequal shape.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (op::widen(a)?, op::widen(b)?);
    let error = infomax_kernels::squared_error(&a, &b)?;
    Ok((error / a.elem_count() as f64)?)
}

/// The mean over the rows of `cos(a_i, b_i)`, norms not below `eps`: a scalar.
///
/// # Errors
/// Tensors of unequal shape.
pub fn cosine(a: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    Ok((normalize_rows(a, eps)? * normalize_rows(b, eps)?)?.sum(1)?.mean_all()?)
}

/// Huber's error of transition `beta`, averaged over all elements: a scalar. The gradient at 0 is 0.
///
/// # Errors
/// Tensors of unequal shape.
pub fn smooth_l1(a: &Tensor, b: &Tensor, beta: f64) -> Result<Tensor> {
    let e = (op::widen(a)? - op::widen(b)?)?;
    let values = op::host(&e)?;
    // With the sign and the region as constants, both branches are polynomials in e.
    let like = |f: &dyn Fn(f64) -> f64| -> candle_core::Result<Tensor> {
        Tensor::from_vec(values.iter().map(|v| f(*v)).collect(), e.dims(), &candle_core::Device::Cpu)?
            .to_dtype(e.dtype())?
            .to_device(e.device())
    };
    let square = like(&|v| if v.abs() < beta { 0.5 / beta } else { 0.0 })?;
    let line = like(&|v| if v.abs() < beta { 0.0 } else { v.signum() })?;
    let constant = like(&|v| if v.abs() < beta { 0.0 } else { -0.5 * beta })?;
    Ok((((e.sqr()? * square)? + (e * line)?)? + constant)?.mean_all()?)
}

/// Rows scaled to unit length; a row shorter than `eps` is divided by `eps`.
///
/// # Errors
/// Anything but a matrix.
pub fn normalize_rows(z: &Tensor, eps: f64) -> Result<Tensor> {
    Ok(infomax_kernels::unit_rows(&op::widen(z)?, eps)?)
}

fn normalized(z: &Embeddings) -> Result<Embeddings> {
    let rows = |views: &Views| views.map(|v| Ok(normalize_rows(v, 1e-12)?));
    Ok(Embeddings {
        projections: rows(&z.projections)?,
        predictions: z.predictions.as_ref().map(rows).transpose()?,
        targets: z.targets.as_ref().map(rows).transpose()?,
        features: None,
    })
}

fn paired(
    term: &'static str,
    z: &Embeddings,
    pairing: Pairing,
    teacher: Teacher,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let views = &z.projections;
    let predictions = || {
        z.predictions.as_ref().ok_or(Error::Missing {
            term,
            field: "predictions",
            hint: "give the model a predictor, or set teacher = \"none\"",
        })
    };
    let (students, others) = match teacher {
        Teacher::None => (views, views.clone()),
        Teacher::StopGradient => (predictions()?, views.detach()),
        Teacher::Momentum => {
            let targets = z.targets.as_ref().ok_or(Error::Missing {
                term,
                field: "targets",
                hint: "give the model a momentum teacher, or set teacher = \"none\"",
            })?;
            (predictions()?, targets.detach())
        }
    };
    if students.len() != others.len() {
        return Err(Error::Shape {
            term,
            expected: "as many predictions as targets",
            got: vec![students.len(), others.len()],
        });
    }
    if others.len() < 2 {
        return Err(Error::Shape { term, expected: "at least two views", got: vec![others.len()] });
    }
    let mut values = Vec::new();
    match pairing {
        Pairing::Pairs => {
            for i in 0..students.len() {
                for j in 0..others.len() {
                    // Without a teacher the pair (j, i) has the value of (i, j).
                    if i < j || (i != j && teacher != Teacher::None) {
                        values.push(f(&students[i], &others[j])?);
                    }
                }
            }
        }
        Pairing::Mean | Pairing::Globals => {
            let count = if pairing == Pairing::Mean { others.len() } else { 2 };
            let centre = Tensor::stack(&others.as_slice()[..count], 0)?.mean(0)?;
            for student in students.iter() {
                values.push(f(student, &centre)?);
            }
        }
    }
    Ok(Tensor::stack(&values, 0)?.mean_all()?)
}
