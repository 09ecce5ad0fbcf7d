//! Heads: multi-layer perceptrons after the encoder.

use crate::{BatchNorm, Error, Linear, Result, Scope};
use candle_core::Tensor;
use infomax_core::Pass;
use infomax_kernels::{Activation, relu};

/// The shape of a [`Projector`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectorConfig {
    /// The output width of each linear layer; the last one is the dimension of the embeddings.
    pub dims: Vec<usize>,
    /// Whether the last linear layer has a bias.
    pub last_bias: bool,
    /// Whether hidden layers are batch-normalized. Without it they have a bias.
    pub norm: bool,
}

impl ProjectorConfig {
    /// The official VICReg head: `(Linear without bias, BN, ReLU)` for all but the last width, then a linear
    /// layer without bias. The paper (arXiv:2105.04906) uses 8192-8192-8192 after a ResNet-50.
    pub fn vicreg(dims: Vec<usize>) -> Self {
        Self { dims, last_bias: false, norm: true }
    }
}

/// A multi-layer perceptron `(B, D_in)` to `(B, D_out)`.
///
/// Parameters are numbered as in the `nn.Sequential` of the official VICReg code: `0.weight`, `1.weight`
/// (norm), `3.weight`, ..., the ReLU taking a number too.
#[derive(Clone, Debug)]
pub struct Projector {
    hidden: Vec<(Linear, Option<BatchNorm>)>,
    last: Linear,
    name: String,
    dim: usize,
}

impl Projector {
    /// Builds a projector on features of `inputs` dimensions.
    ///
    /// # Errors
    /// No widths, a width of 0, or names that are taken.
    pub fn new(inputs: usize, cfg: &ProjectorConfig, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        // The setting has the name of the head: `projector`, `predictor`, `local_projector`.
        let name = scope.name();
        let key = name.rsplit('.').next().filter(|key| *key != "model").unwrap_or("projector").to_owned();
        let refuse = |reason: &str| {
            Err(Error::Config { key: key.clone(), value: format!("{:?}", cfg.dims), reason: reason.into() })
        };
        let Some((&dim, widths)) = cfg.dims.split_last() else {
            return refuse("a head needs at least one width, for example [512, 512, 512]");
        };
        if inputs == 0 || cfg.dims.contains(&0) {
            return refuse("every width must be at least 1");
        }
        let per_layer = if cfg.norm { 3 } else { 2 };
        let mut hidden = Vec::with_capacity(widths.len());
        let mut current = inputs;
        for (i, &width) in widths.iter().enumerate() {
            let linear = Linear::new(current, width, !cfg.norm, scope.pp(per_layer * i))?;
            let norm =
                if cfg.norm { Some(BatchNorm::new(width, scope.pp(per_layer * i + 1))?) } else { None };
            hidden.push((linear, norm));
            current = width;
        }
        let last = Linear::new(current, dim, cfg.last_bias, scope.pp(per_layer * widths.len()))?;
        Ok(Self { hidden, last, name: scope.name(), dim })
    }

    /// Maps features `(B, D_in)` to embeddings `(B, D_out)`.
    ///
    /// # Errors
    /// Features of another width, or a training batch of one sample where there is a normalization.
    pub fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let mut ys = xs.clone();
        for (linear, norm) in &self.hidden {
            ys = linear.forward(&ys)?;
            ys = match norm {
                Some(norm) => norm.forward(&ys, None, Activation::Relu, pass)?,
                None => {
                    let ys = relu(&ys).map_err(Error::kernel(&self.name))?;
                    pass.saw(|| self.name.clone(), &ys);
                    ys
                }
            };
        }
        self.last.forward(&ys)
    }

    /// The dimension of the embeddings.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// The predictor of BYOL (arXiv:2006.07733) and SimSiam (arXiv:2011.10566): from embeddings to embeddings of
/// the same dimension, `Linear, BN, ReLU` for each hidden width, then a linear layer with bias.
#[derive(Clone, Debug)]
pub struct Predictor(Projector);

impl Predictor {
    /// A predictor of `dim` dimensions with these hidden widths.
    ///
    /// # Errors
    /// A width of 0, or names that are taken.
    pub fn new(dim: usize, hidden: &[usize], scope: impl Into<Scope>) -> Result<Self> {
        let dims = hidden.iter().copied().chain([dim]).collect();
        let head = Projector::new(dim, &ProjectorConfig { dims, last_bias: true, norm: true }, scope);
        Ok(Self(head.map_err(|error| match error {
            // What was set: without the width that follows from the projector.
            Error::Config { key, reason, .. } => Error::Config { key, value: format!("{hidden:?}"), reason },
            other => other,
        })?))
    }

    /// Maps `(B, D)` to `(B, D)`.
    ///
    /// # Errors
    /// As [`Projector::forward`].
    pub fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.0.forward(xs, pass)
    }
}
