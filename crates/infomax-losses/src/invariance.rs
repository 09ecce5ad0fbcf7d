//! The invariance terms: what pulls the views of one sample together.

mod classes;

pub use classes::ClassCosine;

use crate::settings::{count, finite, none_negative, positive, share};
use crate::{Error, Result, op};
use candle_core::Tensor;
use infomax_core::{Context, Embeddings, Part, Role, Term, Views};

/// How more than two views are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// The mean over all pairs of views.
    #[default]
    Pairs,
    /// The mean over all pairs with one of the global views (the first two, where they are not told apart).
    GlobalPairs,
    /// Every view with the mean of all views.
    Mean,
    /// Every view with the mean of the global ones (the first two, where they are not told apart).
    Globals,
}

/// What a view is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Teacher {
    /// The other views' projections; gradients flow through both.
    #[default]
    None,
    /// The predictions with the other views' projections, which get no gradient (SimSiam).
    StopGradient,
    /// The predictions with the other views' targets of a momentum teacher (BYOL).
    Momentum,
    /// The projections themselves with the other views' targets of a momentum teacher: no predictor (SimDINO).
    MomentumDirect,
}

/// `1/(n d) ||z - z'||_F^2`, averaged as [`Pairing`] says: `-E log q(z | z')` of a Gaussian, up to constants.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Whether negative values count as 0 first, with gradient 0 (Rectified LpJEPA).
    pub rectify: bool,
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
            rectify: false,
            sum_dims: false,
        }
    }
}

/// `offset - scale mean_i cos(z_i, z'_i)`: `-E log q` of a von Mises-Fisher distribution, up to constants.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// `-mean_i w_i cos(z_i, z'_i)` with `w_i = 2 - n softmax_i(cos(z_i, z'_i) / sigma)`, over all pairs of views: the
/// weighting of DCLW (Yeh et al., arXiv 2110.06848), which asks more of the pairs that are far apart. The weights
/// have mean 1 and no gradient.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WeightedCosine {
    /// The factor in the total.
    pub weight: f64,
    /// The temperature of the weights (0.5).
    pub sigma: f64,
}

impl Default for WeightedCosine {
    fn default() -> Self {
        Self { weight: 1.0, sigma: 0.5 }
    }
}

/// `2 - 2 mean_i cos(w_i, w'_i)` of whitened views (W-MSE, Ermolov et al., arXiv 2007.06346), see
/// [`crate::whiten`]; over all pairs of views.
///
/// Whitening fixes mean and covariance, and with them the Gaussian bound on the entropy: the constraint stands in
/// the place of an entropy term. A collapsed batch has no whitening and is an error, unless `eps` is above 0.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Whitened {
    /// The factor in the total.
    pub weight: f64,
    /// The share of the identity in the covariance (0).
    pub eps: f64,
    /// The number of rows that are whitened together, drawn anew at each step; 0 for the whole batch. At
    /// least twice the dimension is advised. A rest of the batch joins the last group.
    pub sub_batch: usize,
    /// How many times the batch is divided at random (1).
    pub iterations: usize,
}

impl Default for Whitened {
    fn default() -> Self {
        Self { weight: 1.0, eps: 0.0, sub_batch: 0, iterations: 1 }
    }
}

/// The [`Term`] of a type with `weight` and `value(&Embeddings, &Context)`: one part named `invariance`.
macro_rules! invariance {
    ($type:ty, $name:literal) => {
        impl Term for $type {
            fn name(&self) -> &str {
                $name
            }

            fn role(&self) -> Role {
                Role::Invariance
            }

            fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
                let (name, role, weight) = ("invariance".to_owned(), Role::Invariance, self.weight);
                Ok(vec![Part { name, role, weight, value: self.value(z, ctx)? }])
            }
        }
    };
}

invariance!(Mse, "mse");
invariance!(Cosine, "cosine");
invariance!(SmoothL1, "smooth-l1");
invariance!(WeightedCosine, "weighted-cosine");
invariance!(Whitened, "whitened");

impl Mse {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative("mse", [("weight", self.weight)])
    }

    fn value(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
        let rectified;
        let z = if self.rectify {
            rectified = of_views(z, |view| Ok(op::hinge(&op::widen(view)?)?))?;
            &rectified
        } else {
            z
        };
        let z = if self.normalize { normalized(z)? } else { near(z, self.pairing)? };
        let factor = if self.sum_dims { z.projections.dim() as f64 } else { 1.0 };
        Ok((over_ranks(z.projections.batch(), ctx, paired("mse", &z, self.pairing, self.teacher, mse)?)?
            * factor)?)
    }
}

impl Cosine {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative("cosine", [("weight", self.weight), ("scale", self.scale)])?;
        finite("cosine", "offset", self.offset)?;
        positive("cosine", "eps", self.eps)
    }

    fn value(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
        let value = paired("cosine", z, self.pairing, self.teacher, |a, b| cosine(a, b, self.eps))?;
        let value = over_ranks(z.projections.batch(), ctx, value)?;
        Ok(value.affine(-self.scale, self.offset)?)
    }
}

impl SmoothL1 {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative("smooth-l1", [("weight", self.weight)])?;
        positive("smooth-l1", "beta", self.beta)
    }

    fn value(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
        self.check()?;
        let z = &near(z, self.pairing)?;
        let value = paired("smooth-l1", z, self.pairing, self.teacher, |a, b| smooth_l1(a, b, self.beta))?;
        over_ranks(z.projections.batch(), ctx, value)
    }
}

impl WeightedCosine {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative("weighted-cosine", [("weight", self.weight)])?;
        positive("weighted-cosine", "sigma", self.sigma)
    }

    fn value(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
        // The weights are shares of the whole batch: the cosines of all ranks are gathered, not the rows.
        let pairs = |a: &Tensor, b: &Tensor| {
            positive("weighted-cosine", "sigma", self.sigma)?;
            weighted(&ctx.collective.all_gather_same(&cosines(a, b)?)?, self.sigma)
        };
        Ok(paired("weighted-cosine", z, Pairing::Pairs, Teacher::None, pairs)?.neg()?)
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

/// The weighted mean cosine of [`WeightedCosine`]: a scalar.
///
/// # Errors
/// Tensors of unequal shape; a temperature that is not above 0.
pub fn weighted_cosine(a: &Tensor, b: &Tensor, sigma: f64) -> Result<Tensor> {
    positive("weighted-cosine", "sigma", sigma)?;
    weighted(&cosines(a, b)?, sigma)
}

fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((normalize_rows(a, 1e-12)? * normalize_rows(b, 1e-12)?)?.sum(1)?)
}

fn weighted(cosines: &Tensor, sigma: f64) -> Result<Tensor> {
    let values = op::host(cosines)?;
    let max = values.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let exps: Vec<f64> = values.iter().map(|v| ((v - max) / sigma).exp()).collect();
    let mean = exps.iter().sum::<f64>() / exps.len() as f64;
    let weights: Vec<f64> = exps.iter().map(|e| 2.0 - e / mean).collect();
    let weights = Tensor::from_vec(weights, values.len(), &candle_core::Device::Cpu)?
        .to_dtype(cosines.dtype())?
        .to_device(cosines.device())?;
    Ok((cosines * weights)?.mean_all()?)
}

impl Whitened {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative("whitened", [("weight", self.weight)])?;
        share("whitened", "eps", self.eps)?;
        count("whitened", "iterations", self.iterations, 1)
    }

    fn value(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
        self.check()?;
        // Covariances, and groups drawn at random, are those of the whole batch.
        let z = &Embeddings::new(z.projections.map(|view| ctx.collective.all_gather_same(view))?);
        let n = z.projections.batch();
        let key = ctx.key.fold_named("whitened");
        let mut values = Vec::new();
        for round in 0..self.iterations {
            let mut order: Vec<u32> = (0..n as u32).collect();
            let whole = self.sub_batch == 0 || self.sub_batch * 2 > n;
            if !whole {
                let draws = key.fold_in(round as u64).uniform(
                    0.0,
                    1.0,
                    n,
                    candle_core::DType::F64,
                    &candle_core::Device::Cpu,
                )?;
                let draws = op::host(&draws)?;
                order.sort_by(|i, j| draws[*i as usize].total_cmp(&draws[*j as usize]));
            }
            let groups = if whole { 1 } else { n / self.sub_batch };
            let whitened = z.projections.map(|view| {
                let rows =
                    op::widen(view)?.index_select(&Tensor::new(order.as_slice(), view.device())?, 0)?;
                let mut parts = Vec::new();
                for g in 0..groups {
                    let from = g * self.sub_batch;
                    let to = if g + 1 == groups { n } else { from + self.sub_batch };
                    parts.push(crate::whiten(&rows.narrow(0, from, to - from)?, self.eps)?);
                }
                Ok(Tensor::cat(&parts, 0)?)
            })?;
            let z = Embeddings::new(whitened);
            values.push(paired("whitened", &z, Pairing::Pairs, Teacher::None, |a, b| cosine(a, b, 1e-12))?);
        }
        Ok(Tensor::stack(&values, 0)?.mean_all()?.affine(-2.0, 2.0)?)
    }
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
    Ok(infomax_kernels::l2_normalize(&op::widen(z)?, eps)?)
}

fn normalized(z: &Embeddings) -> Result<Embeddings> {
    of_views(z, |view| normalize_rows(view, 1e-12))
}

/// A function of every projection, prediction and target.
fn of_views(z: &Embeddings, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Embeddings> {
    let rows = |views: &Views| views.map(|v| Ok(f(v)?));
    Ok(Embeddings {
        projections: rows(&z.projections)?,
        predictions: z.predictions.as_ref().map(rows).transpose()?,
        targets: z.targets.as_ref().map(rows).transpose()?,
        features: None,
        globals: z.globals,
        labels: None,
    })
}

/// The views beside the first one, where centers of views are taken. Errors do not change with a shift that all
/// share, and the center of near vectors has the digits that it would lose far from the origin.
fn near(z: &Embeddings, pairing: Pairing) -> Result<Embeddings> {
    let same = |views: &Option<Views>| views.as_ref().is_none_or(|v| v[0].dims() == z.projections[0].dims());
    if matches!(pairing, Pairing::Pairs | Pairing::GlobalPairs) || !same(&z.predictions) || !same(&z.targets)
    {
        return Ok(z.clone());
    }
    let origin = op::widen(&z.projections[0])?.detach();
    let shifted = |views: &Views| views.map(|v| Ok((op::widen(v)?.to_dtype(origin.dtype())? - &origin)?));
    Ok(Embeddings {
        projections: shifted(&z.projections)?,
        predictions: z.predictions.as_ref().map(shifted).transpose()?,
        targets: z.targets.as_ref().map(shifted).transpose()?,
        ..z.clone()
    })
}

/// The mean over the samples of all ranks of a mean over `rows` of this one.
fn over_ranks(rows: usize, ctx: &Context<'_>, own: Tensor) -> Result<Tensor> {
    crate::ranks::mean(&own, rows, ctx)
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
        let hint = match teacher {
            Teacher::Momentum => {
                "a predictor is needed after the projector (model.predictor = [256] in a run), or set \
                 objective.invariance.teacher = \"momentum-direct\", which compares the projections themselves with the \
                 teacher's"
            }
            _ => {
                "a predictor is needed after the projector (model.predictor = [256] in a run), or set \
                 objective.invariance.teacher = \"none\" beside an entropy term"
            }
        };
        z.predictions.as_ref().ok_or(Error::Missing { term, field: "predictions", hint })
    };
    let (students, others) = match teacher {
        Teacher::None => (views, views.clone()),
        Teacher::StopGradient => (predictions()?, views.detach()),
        Teacher::Momentum | Teacher::MomentumDirect => {
            let targets = z.targets.as_ref().ok_or(Error::Missing {
                term,
                field: "targets",
                hint: "a momentum teacher is needed (model.teacher_momentum = 0.99 in a run), or set \
                       objective.invariance.teacher = \"stop-gradient\" with a predictor, or \"none\" beside an \
                       entropy term",
            })?;
            let students = if teacher == Teacher::Momentum { predictions()? } else { views };
            (students, targets.detach())
        }
    };
    // A momentum teacher embeds the global views only, which come first.
    let fits = match teacher {
        Teacher::Momentum | Teacher::MomentumDirect => (1..=students.len()).contains(&others.len()),
        _ => students.len() == others.len(),
    };
    if !fits {
        return Err(Error::Shape {
            term,
            expected: "as many predictions as views, and a target for each global view",
            got: vec![students.len(), others.len()],
        });
    }
    crate::error::views(term, 2, students.len())?;
    let globals = z.globals().min(others.len());
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
        Pairing::GlobalPairs => {
            for i in 0..students.len() {
                for j in 0..globals {
                    if i != j {
                        values.push(f(&students[i], &others[j])?);
                    }
                }
            }
        }
        Pairing::Mean | Pairing::Globals => {
            let count = if pairing == Pairing::Mean { others.len() } else { globals };
            let wide = others.iter().take(count).map(op::widen).collect::<candle_core::Result<Vec<_>>>()?;
            let center = Tensor::stack(&wide, 0)?.mean(0)?;
            for student in students.iter() {
                values.push(f(student, &center)?);
            }
        }
    }
    Ok(Tensor::stack(&values, 0)?.mean_all()?)
}
