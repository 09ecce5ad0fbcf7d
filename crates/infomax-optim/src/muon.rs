//! Orthogonalized momentum.

use crate::adamw::check_moments;
use crate::config::check_lr;
use crate::error::check;
use crate::groups::{Groups, Setting, matches, pattern};
use crate::moments::Moments;
use crate::slots::{Slots, split};
use crate::{Error, Gradients, Optimizer, ParamGroup, Result};
use candle_core::Tensor;
use glob::Pattern;
use infomax_core::{Param, ParamKind, Params};
use infomax_kernels::update::{self, Slot};
use std::collections::BTreeMap;

/// How the step of [`Muon`] depends on the shape of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MuonScale {
    /// Keller Jordan's code: `sqrt(max(1, rows / columns))` of the last two dimensions of the parameter, so 1 for a
    /// square convolution kernel.
    #[default]
    Original,
    /// `0.2 sqrt(max(rows, columns))` of the flattened matrix (arXiv 2502.16982): the size of AdamW's steps, so that
    /// its learning rates and weight decays can be kept.
    MatchRms,
}

/// The settings of [`Muon`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// The factor `mu` of the momentum, in `[0, 1)`.
    pub momentum: f64,
    /// Whether the direction looks ahead (Nesterov).
    pub nesterov: bool,
    /// The number of Newton-Schulz iterations.
    pub ns_steps: usize,
    /// How a step depends on the shape of a matrix.
    pub scale: MuonScale,
    /// The decoupled weight decay of all parameters: each step multiplies one by `1 - lr weight_decay`.
    pub weight_decay: f64,
    /// Patterns of the names of matrices that AdamW changes nevertheless: embeddings, stems of patches, classifiers.
    pub adamw_match: Vec<String>,
    /// The learning rate of AdamW as a part of `lr`.
    pub adamw_lr_factor: f64,
    /// AdamW's factor of the running mean of the gradient, in `[0, 1)`.
    pub adamw_beta1: f64,
    /// AdamW's factor of the running mean of the squared gradient, in `[0, 1)`.
    pub adamw_beta2: f64,
    /// Added to the root of AdamW's second moment.
    pub adamw_eps: f64,
    /// Whether biases and normalization parameters are exempt from the decay.
    pub exclude_bias_and_norm: bool,
    /// Settings of their own for parameters by a pattern of their names: `match`, `lr_factor`, `weight_decay`.
    pub groups: Vec<ParamGroup>,
}

/// What AdamW changes though it is a matrix, unless configured otherwise.
const ADAMW_MATCH: [&str; 5] = ["*embed*", "head.*", "*_head.*", "fc.*", "classifier.*"];

impl Default for MuonConfig {
    /// Those of Keller Jordan's code: momentum 0.95 with Nesterov's direction, 5 iterations; for the rest AdamW
    /// with betas 0.9 and 0.95, eps 1e-10 and 3e-4 where Muon has its 0.02.
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            scale: MuonScale::Original,
            weight_decay: 0.0,
            adamw_match: ADAMW_MATCH.map(str::to_owned).to_vec(),
            adamw_lr_factor: 0.015,
            adamw_beta1: 0.9,
            adamw_beta2: 0.95,
            adamw_eps: 1e-10,
            exclude_bias_and_norm: true,
            groups: Vec::new(),
        }
    }
}

/// Orthogonalized momentum for the matrices of a network, AdamW for the rest, as Keller Jordan's
/// `MuonWithAuxAdam` (<https://github.com/KellerJordan/Muon>, commit 00ba60d):
///
/// `m <- m + (1 - mu)(g - m)`, `u = g + mu (m - g)` (Nesterov; else `m`), `p <- (1 - lr wd) p - lr s O(u)`,
///
/// with [`orthogonalize`] for `O` and [`MuonScale`] for `s`. A learning rate of 0.02 is usual.
///
/// **Which parameter goes where.** Orthogonalized is every parameter of kind `Weight` with at least two dimensions
/// that none of the patterns `adamw_match` matches, flattened to `(first dimension, rest)`: linear maps and
/// convolution kernels. AdamW, with the rate `lr adamw_lr_factor`, takes the rest: biases, scales and shifts of
/// normalizations, class tokens and positions; depthwise kernels `(C, 1, R, S)`, which are `C` filters and not a
/// map between channels; matrices of one row or column; and what the patterns match. [`Muon::is_orthogonalized`]
/// answers for one parameter. Patterns other than the default ones must match something.
///
/// **Numerics.** Parameters of f32 and below are orthogonalized in f32 (the reference: bf16), of f64 in f64.
#[derive(Debug)]
pub struct Muon {
    config: MuonConfig,
    groups: Groups,
    patterns: Vec<Pattern>,
    momentum: Slots,
    moments: Moments,
}

impl Muon {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: MuonConfig) -> Result<Self> {
        check("momentum", config.momentum, 0.0..1.0, "the momentum must be in [0, 1)")?;
        check("ns_steps", config.ns_steps as f64, 1.0..=100.0, "there are 1 to 100 iterations")?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        let reason = "the factor of the learning rate must be at least 0";
        check("adamw_lr_factor", config.adamw_lr_factor, 0.0.., reason)?;
        check_moments(config.adamw_beta1, config.adamw_beta2, config.adamw_eps).map_err(
            |error| match error {
                Error::Config { key, value, reason } => {
                    Error::Config { key: format!("adamw_{key}"), value, reason }
                }
                other => other,
            },
        )?;
        let patterns = config.adamw_match.iter().map(|text| pattern("adamw_match", text));
        let (patterns, groups) = (patterns.collect::<Result<_>>()?, Groups::new(&config.groups, false)?);
        Ok(Self { config, groups, patterns, momentum: Slots::new("momentum"), moments: Moments::new() })
    }

    /// Whether a parameter is orthogonalized; AdamW changes it otherwise.
    pub fn is_orthogonalized(&self, name: &str, param: &Param) -> bool {
        let dims = param.var.dims();
        let [rows, rest @ ..] = dims else { return false };
        let columns: usize = rest.iter().product();
        let depthwise = dims.len() > 2 && rest.first() == Some(&1);
        param.kind == ParamKind::Weight
            && !rest.is_empty()
            && *rows > 1
            && columns > 1
            && !depthwise
            && !self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// How far a step goes along the orthogonalized direction of a parameter of these dimensions.
    fn scale(&self, dims: &[usize]) -> f64 {
        match (self.config.scale, dims) {
            (MuonScale::Original, [.., rows, columns]) => (*rows as f64 / *columns as f64).max(1.0).sqrt(),
            (MuonScale::MatchRms, [rows, rest @ ..]) => {
                0.2 * ((*rows).max(rest.iter().product::<usize>()) as f64).sqrt()
            }
            _ => 1.0,
        }
    }

    /// Takes the gradients of all matrices into their momenta, and moves them.
    fn move_matrices(&self, matrices: &[Matrix<'_>]) -> Result<()> {
        let MuonConfig { momentum, nesterov, ns_steps, .. } = self.config;
        let direction = |u: &Tensor, like: &Tensor| -> Result<Tensor> {
            let o = orthogonalize(&u.flatten_from(1)?, ns_steps)?;
            Ok(o.reshape(u.dims())?.to_dtype(like.dtype())?)
        };
        if matrices.first().is_none_or(|matrix| infomax_kernels::has_cpu_kernels(matrix.param)) {
            for Matrix { param, grad, momentum: m, at } in matrices {
                update::lerp(m, 1.0 - momentum, grad)?;
                let u = if nesterov {
                    let u = grad.contiguous()?.copy()?;
                    update::lerp(&u, momentum, m)?;
                    u
                } else {
                    m.clone()
                };
                let scale = self.scale(param.dims());
                update::axpy(param, 1.0 - at.lr * at.decay, -at.lr * scale, &direction(&u, param)?)?;
            }
            return Ok(());
        }
        // Two steps of gradient descent, each one launch for all on a device that has it. From zeros with the rate -1,
        // m <- mu m + (1 - mu) g leaves m, or (1 - mu) g + mu m; and p - lr (scale o + decay p) has no momentum.
        let zeros =
            matrices.iter().map(|m| m.momentum.zeros_like()).collect::<candle_core::Result<Vec<_>>>()?;
        let slots: Vec<Slot<'_>> = matrices
            .iter()
            .zip(&zeros)
            .map(|(matrix, u)| Slot {
                param: u,
                grad: matrix.grad,
                first: &matrix.momentum,
                second: None,
                lr: -1.0,
                decay: 0.0,
                scale: 1.0 - momentum,
                step: 1,
            })
            .collect();
        update::sgd_step(&slots, momentum, nesterov)?;
        let directions = matrices
            .iter()
            .zip(&zeros)
            .map(|(matrix, u)| direction(u, matrix.param))
            .collect::<Result<Vec<_>>>()?;
        let slots: Vec<Slot<'_>> = matrices
            .iter()
            .zip(zeros.iter().zip(&directions))
            .map(|(matrix, (scratch, direction))| {
                let scale = self.scale(matrix.param.dims());
                Slot {
                    param: matrix.param,
                    grad: direction,
                    first: scratch,
                    second: None,
                    lr: matrix.at.lr,
                    decay: matrix.at.decay / scale,
                    scale,
                    step: 1,
                }
            })
            .collect();
        Ok(update::sgd_step(&slots, 0.0, false)?)
    }
}

/// A matrix in a step.
struct Matrix<'a> {
    param: &'a Tensor,
    grad: &'a Tensor,
    momentum: Tensor,
    at: Setting,
}

impl Optimizer for Muon {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        self.check(params)?;
        let MuonConfig { weight_decay, exclude_bias_and_norm, .. } = self.config;
        let MuonConfig { adamw_lr_factor, adamw_beta1, adamw_beta2, adamw_eps, .. } = self.config;
        let trained = params.trainable();
        let (mut matrices, mut rest) = (Vec::new(), Vec::new());
        for (name, param) in &trained {
            let Some(grad) = grads.get(name) else { continue };
            let at = self.groups.of((name, param), lr, weight_decay, exclude_bias_and_norm);
            let p = param.var.as_tensor();
            if self.is_orthogonalized(name, param) {
                matrices.push(Matrix { param: p, grad, momentum: self.momentum.get(name, &param.var)?, at });
            } else {
                rest.push((p, grad, self.moments.next(name, &param.var)?, at));
            }
        }
        self.move_matrices(&matrices)?;
        let slots: Vec<Slot<'_>> = rest
            .iter()
            .map(|(param, grad, next, at)| next.slot(param, grad, at.lr * adamw_lr_factor, at.decay))
            .collect();
        Ok(update::adamw_step(&slots, (adamw_beta1, adamw_beta2), adamw_eps)?)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.momentum.save(&mut state)?;
        self.moments.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let (momentum, moments): (BTreeMap<_, _>, BTreeMap<_, _>) =
            state.iter().map(|(k, v)| (k.clone(), v.clone())).partition(|(k, _)| k.starts_with("momentum."));
        // AdamW's part is read first: what is none of its keys is an error that leaves everything as it was.
        let moments = Moments::load("muon", &moments)?;
        if let Some(momentum) = split("muon", &["momentum"], &momentum)?.pop() {
            (self.momentum, self.moments) = (momentum, moments);
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "muon"
    }

    fn check(&self, params: &Params) -> Result<()> {
        self.groups.check(params)?;
        for pattern in self.patterns.iter().filter(|p| !ADAMW_MATCH.contains(&p.as_str())) {
            matches("adamw_match", pattern, params)?;
        }
        for (name, param) in params.trainable() {
            // The other state would begin anew without a word.
            let problem = match self.is_orthogonalized(&name, &param) {
                true if self.moments.has(&name) => "AdamW's moments, but is orthogonalized now",
                false if self.momentum.has(&name) => "a momentum to orthogonalize, but goes to AdamW now",
                _ => continue,
            };
            let problem = format!("`{name}` has {problem} (adamw_match differs)");
            return Err(Error::State { optimizer: "muon", problem });
        }
        Ok(())
    }

    fn set_weight_decay(&mut self, weight_decay: f64) -> Result<()> {
        check("weight_decay", weight_decay, 0.0.., "the weight decay must be at least 0")?;
        self.config.weight_decay = weight_decay;
        Ok(())
    }

    fn set_momentum(&mut self, momentum: f64) -> Result<()> {
        check("momentum", momentum, 0.0..1.0, "the momentum must be in [0, 1)")?;
        self.config.momentum = momentum;
        Ok(())
    }
}

/// Approximately `U V^T` of a matrix `G = U S V^T`, by Newton-Schulz iterations of the fifth order
/// (Jordan et al., 2024, <https://kellerjordan.github.io/posts/muon/>):
///
/// `X = G / (||G|| + 1e-7)`, then `X <- a X + (b A + c A^2) X` with `A = X X^T` and
/// `(a, b, c) = (3.4445, -4.7750, 2.0315)`.
///
/// These coefficients lift small singular values fast instead of converging: after 5 iterations the singular values
/// lie in about 0.7 to 1.2, those below 1e-3 of the norm lower. `G` of shape `(rows, columns)` is f64, or is computed in f32,
/// and the result has the type of the computation; a matrix of zeros stays one.
///
/// # Errors
/// A tensor that is no matrix, or has no elements.
pub fn orthogonalize(g: &Tensor, steps: usize) -> Result<Tensor> {
    Ok(update::newton_schulz(g, steps, [3.4445, -4.7750, 2.0315])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use infomax_testing::spread;

    #[test]
    fn singular_values_come_near_to_one_on_every_shape() {
        for dims in [[4, 9], [9, 4], [6, 6]] {
            let o = orthogonalize(&spread(&dims, 3, 2.0), 5).unwrap();
            let o = if dims[0] > dims[1] { o.t().unwrap().contiguous().unwrap() } else { o };
            let gram = o.matmul(&o.t().unwrap()).unwrap();
            let n = gram.dims()[0];
            // The trace is the sum of the squared singular values, and the square's that of their fourth powers.
            let trace = |t: &Tensor| -> f64 {
                (0..n).map(|i| t.get(i).unwrap().get(i).unwrap().to_scalar::<f64>().unwrap()).sum::<f64>()
                    / n as f64
            };
            let (second, fourth) = (trace(&gram), trace(&gram.matmul(&gram).unwrap()));
            assert!((0.5..1.5).contains(&second), "{dims:?}: {second}");
            assert!(
                fourth - second * second < 0.2,
                "{dims:?}: spread of squares {}",
                fourth - second * second
            );
        }
        let zeros = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(orthogonalize(&zeros, 5).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 4]; 3]);
    }

    #[test]
    fn parameters_go_where_the_documentation_says() {
        let muon = Muon::new(MuonConfig::default()).unwrap();
        let goes = |name: &str, dims: &[usize], kind| {
            let var = Var::zeros(dims, DType::F32, &Device::Cpu).unwrap();
            muon.is_orthogonalized(name, &Param { var, kind })
        };
        use ParamKind::{Bias, Norm, Weight};
        for (name, dims, kind, expected) in [
            ("encoder.conv1.weight", &[8, 3, 3, 3][..], Weight, true),
            ("encoder.blocks.0.mlp.fc1.weight", &[32, 8], Weight, true),
            ("projector.0.weight", &[16, 8], Weight, true),
            ("encoder.features.1.0.block.0.weight", &[8, 1, 7, 7], Weight, false),
            ("encoder.patch_embed.proj.weight", &[8, 3, 4, 4], Weight, false),
            ("fc.weight", &[10, 8], Weight, false),
            ("lm_head.weight", &[10, 8], Weight, false),
            ("row.weight", &[1, 8], Weight, false),
            ("conv1.bias", &[8], Bias, false),
            ("encoder.cls_token", &[1, 4, 8], Norm, false),
        ] {
            assert_eq!(goes(name, dims, kind), expected, "{name}");
        }
    }
}
