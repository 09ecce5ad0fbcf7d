//! Layers: operations of `infomax_kernels` together with their parameters.

use crate::{Error, Result, Scope};
use candle_core::{Tensor, Var};
use infomax_core::{Init, ParamKind, Pass};
use infomax_kernels::{
    Activation, Conv2dConfig, ConvNorm, batch_norm_eval, batch_norm_train, batch_norm_train_with,
};

/// A 2-D convolution without bias: `(N, C, H, W)` to `(N, K, P, Q)`.
///
/// Parameter: `weight` `(K, C / groups, R, R)`, from `N(0, 2 / (K R^2 / groups))`: Kaiming-normal by fan-out,
/// as torchvision's ResNets (He et al., arXiv:1502.01852).
#[derive(Clone, Debug)]
pub struct Conv2d {
    name: String,
    weight: Var,
    cfg: Conv2dConfig,
}

impl Conv2d {
    /// A convolution from `inputs` to `outputs` channels with a kernel of `side` by `side`.
    ///
    /// # Errors
    /// Channels that do not divide by the groups, or a name that is taken.
    pub fn new(
        inputs: usize,
        outputs: usize,
        side: usize,
        cfg: Conv2dConfig,
        scope: impl Into<Scope>,
    ) -> Result<Self> {
        let scope = scope.into();
        if cfg.groups == 0 || !inputs.is_multiple_of(cfg.groups) || !outputs.is_multiple_of(cfg.groups) {
            return Err(Error::config(
                "groups",
                cfg.groups,
                format!("must divide both the {inputs} input and the {outputs} output channels"),
            ));
        }
        let fan_out = (outputs * side * side / cfg.groups) as f64;
        let init = Init::Normal { mean: 0.0, std: (2.0 / fan_out).sqrt() };
        let shape = (outputs, inputs / cfg.groups, side, side);
        let weight = scope.get("weight", shape, ParamKind::Weight, init)?;
        Ok(Self { name: scope.name(), weight, cfg })
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Convolves `(N, C, H, W)`.
    ///
    /// # Errors
    /// An input of another number of channels, or smaller than the kernel.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        infomax_kernels::conv2d(xs, &self.weight, None, self.cfg).map_err(Error::kernel(&self.name))
    }
}

/// An affine map of the last dimension, `y = x W^T + b`: `(.., I)` to `(.., O)`.
///
/// Parameters: `weight` `(O, I)` and, where wanted, `bias` `(O)`, both from the uniform distribution on
/// `[-1/sqrt(I), 1/sqrt(I))`, the default of PyTorch.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: Var,
    bias: Option<Var>,
}

impl Linear {
    /// A map from `inputs` to `outputs` dimensions.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(inputs: usize, outputs: usize, bias: bool, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        let init = Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
        let weight = scope.get("weight", (outputs, inputs), ParamKind::Weight, init)?;
        let bias = if bias { Some(scope.get("bias", outputs, ParamKind::Bias, init)?) } else { None };
        Ok(Self { name: scope.name(), weight, bias })
    }

    /// Maps `(.., I)` to `(.., O)`.
    ///
    /// # Errors
    /// An input of another last dimension.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Var::as_tensor);
        infomax_kernels::linear(xs, &self.weight, bias).map_err(Error::kernel(&self.name))
    }
}

/// Batch normalization over `(N, C)` or `(N, C, H, W)` (Ioffe and Szegedy, arXiv:1502.03167).
///
/// `y = (x - m) / sqrt(v + 1e-5) * weight + bias`. In training `m` and `v` are the mean and the biased
/// variance of each channel in this batch, which several processes may share (`Pass::collective`: synchronized batch
/// norm), and the running statistics follow as in PyTorch: `running = 0.9 running + 0.1 batch`, with the *unbiased*
/// variance. In evaluation `m` and `v` are the
/// running statistics, which are constants.
///
/// Parameters: `weight`, `bias` `(C)`; buffers: `running_mean`, `running_var` `(C)`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    channels: usize,
    weight: Var,
    bias: Var,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    /// Added to the variance: the default of PyTorch.
    pub const EPS: f64 = 1e-5;
    /// The share of the new batch in the running statistics: the default of PyTorch.
    pub const MOMENTUM: f64 = 0.1;

    /// A normalization of `channels` channels with scale 1.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(channels: usize, scope: impl Into<Scope>) -> Result<Self> {
        Self::with_scale(channels, 1.0, scope)
    }

    /// A normalization that starts with another scale, for example 0 at the end of a residual branch.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn with_scale(channels: usize, scale: f64, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        let get = |name: &str, kind, value| scope.get(name, channels, kind, Init::Const(value));
        Ok(Self {
            name: scope.name(),
            channels,
            weight: get("weight", ParamKind::Norm, scale)?,
            bias: get("bias", ParamKind::Norm, 0.0)?,
            running_mean: get("running_mean", ParamKind::Buffer, 0.0)?,
            running_var: get("running_var", ParamKind::Buffer, 1.0)?,
        })
    }

    /// `act(bn(xs) + residual)`.
    ///
    /// # Errors
    /// An input of other channels, or in training one with a single value for each channel.
    pub fn forward(
        &self,
        xs: &Tensor,
        residual: Option<&Tensor>,
        act: Activation,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let (weight, bias) = (Some(self.weight.as_tensor()), Some(self.bias.as_tensor()));
        if !pass.is_train() {
            let (mean, var) = (self.running_mean.as_detached_tensor(), self.running_var.as_detached_tensor());
            let ys = batch_norm_eval(xs, &mean, &var, weight, bias, residual, Self::EPS, act)
                .map_err(Error::kernel(&self.name))?;
            pass.saw(|| self.name.clone(), &ys);
            return Ok(ys);
        }
        let out = match crate::peers::of(pass) {
            Some(peers) if infomax_kernels::has_cpu_kernels(xs) => {
                batch_norm_train_with(xs, weight, bias, residual, Self::EPS, act, peers)
                    .map_err(Error::kernel(&self.name))?
            }
            Some(_) => {
                let affine = (&*self.weight, &*self.bias);
                crate::peers::composed(xs, affine, residual, Self::EPS, act, pass.collective)?
            }
            None => {
                self.at_least_two(xs.elem_count() / self.channels, xs.dims())?;
                batch_norm_train(xs, weight, bias, residual, Self::EPS, act)
                    .map_err(Error::kernel(&self.name))?
            }
        };
        self.at_least_two(out.count, xs.dims())?;
        self.follow(&out.mean, &out.var, out.count)?;
        pass.saw(|| self.name.clone(), &out.ys);
        Ok(out.ys)
    }

    /// `act(bn(conv(xs)) + residual)`; in training one operation, which also takes bf16 images on a device.
    ///
    /// # Errors
    /// As [`Conv2d::forward`] and [`BatchNorm::forward`].
    pub(crate) fn forward_after(
        &self,
        conv: &Conv2d,
        xs: &Tensor,
        residual: Option<&Tensor>,
        act: Activation,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        // The one operation takes the statistics of this process alone.
        if !pass.is_train() || pass.collective.size() > 1 {
            return self.forward(&conv.forward(xs)?, residual, act, pass);
        }
        let parameters = [conv.weight.as_tensor(), &self.weight, &self.bias];
        let out = infomax_kernels::conv_norm_train(xs, parameters, residual, conv.cfg, Self::EPS, act)
            .map_err(Error::kernel(&conv.name))?;
        let n = out.ys.elem_count() / self.channels;
        self.at_least_two(n, out.ys.dims())?;
        self.follow(&out.mean, &out.var, n)?;
        pass.saw(|| self.name.clone(), &out.ys);
        Ok(out.ys)
    }

    /// Shows the statistics of what comes in: of the layers of one operation nothing else is kept.
    pub(crate) fn saw(&self, mean: &Tensor, var: &Tensor, pass: &Pass<'_>) {
        pass.saw(|| format!("{} (means of its input)", self.name), mean);
        pass.saw(|| format!("{} (variances of its input)", self.name), var);
    }

    /// Refuses a training batch of one value for each channel.
    pub(crate) fn at_least_two(&self, n: usize, dims: &[usize]) -> Result<()> {
        if n == 1 {
            return Err(Error::OneValue { layer: self.name.clone(), got: dims.to_vec() });
        }
        Ok(())
    }

    /// Mixes the statistics of a batch of `n` values for each channel into the running ones.
    pub(crate) fn follow(&self, mean: &Tensor, var: &Tensor, n: usize) -> Result<()> {
        let mix = |running: &Var, batch: &Tensor, scale: f64| -> Result<()> {
            let kept = (running.as_detached_tensor() * (1.0 - Self::MOMENTUM))?;
            let batch = (batch.detach() * (Self::MOMENTUM * scale))?;
            Ok(running.set(&(kept + batch)?)?)
        };
        mix(&self.running_mean, mean, 1.0)?;
        mix(&self.running_var, var, n as f64 / (n as f64 - 1.0))
    }

    /// Weight and bias.
    #[cfg(test)]
    pub(crate) fn affine(&self) -> (&Tensor, &Tensor) {
        (&self.weight, &self.bias)
    }

    /// The running mean and variance, as constants.
    pub(crate) fn running(&self) -> (Tensor, Tensor) {
        (self.running_mean.as_detached_tensor(), self.running_var.as_detached_tensor())
    }

    /// This normalization after a convolution, as a part of one fused operation; `running` for evaluation.
    pub(crate) fn after<'a>(
        &'a self,
        conv: &'a Conv2d,
        running: Option<&'a (Tensor, Tensor)>,
    ) -> ConvNorm<'a> {
        ConvNorm {
            weight: &conv.weight,
            scale: &self.weight,
            shift: &self.bias,
            cfg: conv.cfg,
            stats: running.map(|(mean, var)| (mean, var)),
        }
    }
}
