//! The processes that share the batch of a pass, as normalizations know them.

use crate::Result;
use candle_core::{Device, Tensor};
use infomax_core::{Collective, Pass};
use infomax_kernels::{Activation, BatchNormOutput, Peers, relu};
use std::sync::Arc;

/// The other processes of a training pass; `None` where there are none.
pub(crate) fn of(pass: &Pass<'_>) -> Option<Arc<dyn Peers>> {
    (pass.is_train() && pass.collective.size() > 1)
        .then(|| Arc::new(Ranks(pass.collective.handle())) as Arc<dyn Peers>)
}

#[derive(Debug)]
struct Ranks(Arc<dyn Collective>);

impl Peers for Ranks {
    fn gather(&self, own: &[f64]) -> candle_core::Result<Vec<Vec<f64>>> {
        let own = Tensor::from_slice(own, own.len(), &Device::Cpu)?;
        let all = self.0.gather(&own).map_err(candle_core::Error::wrap)?;
        all.iter().map(Tensor::to_vec1::<f64>).collect()
    }
}

/// Batch norm over all ranks out of plain operations, on any device: two exchanges in each direction, where the fused
/// form has one. Every rank gets the gradient of the sum over ranks.
pub(crate) fn composed(
    xs: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
    ranks: &dyn Collective,
) -> Result<BatchNormOutput> {
    let (n, c) = (xs.dim(0)?, xs.dim(1)?);
    let flat = xs.reshape((n, c, ()))?;
    let own = Tensor::new((n * flat.dim(2)?) as f64, &Device::Cpu)?;
    let count = ranks.sum(&own)?.to_scalar::<f64>()?;
    let mean = (ranks.all_reduce_sum(&flat.sum_keepdim((0, 2))?)? / count)?;
    let centered = flat.broadcast_sub(&mean)?;
    let var = (ranks.all_reduce_sum(&centered.sqr()?.sum_keepdim((0, 2))?)? / count)?;
    let column = |v: &Tensor| v.reshape((1, c, 1));
    let ys = centered.broadcast_div(&(&var + eps)?.sqrt()?)?;
    let ys = ys.broadcast_mul(&column(weight)?)?.broadcast_add(&column(bias)?)?;
    let mut ys = ys.reshape(xs.shape())?;
    if let Some(residual) = residual {
        ys = (ys + residual)?;
    }
    if act == Activation::Relu {
        ys = relu(&ys).map_err(crate::Error::kernel("batch norm"))?;
    }
    let (mean, var) = (mean.reshape(c)?.detach(), var.reshape(c)?.detach());
    Ok(BatchNormOutput { ys, mean, var, count: count as usize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm, ResNet, ResNet9, ResNet9Config, ResNetConfig};
    use candle_core::{DType, Var};
    use infomax_core::{Encoder, Key, Local, Params, replicas};
    use std::collections::BTreeMap;

    /// Parameters and buffers after a pass, and the gradients, by name.
    type State = BTreeMap<String, Vec<f64>>;

    fn images(n: usize, shape: (usize, usize, usize), dtype: DType) -> Tensor {
        let (c, h, w) = shape;
        Key::new(5).normal(0.3, 1.5, (n, c, h, w), dtype, &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What a rank has after a forward and a backward pass over its rows: `sum(y^2 r)` summed over ranks.
    fn pass(
        build: &(dyn Fn(&Params) -> Box<dyn Encoder> + Sync),
        xs: &Tensor,
        dtype: DType,
        ranks: &dyn Collective,
        (start, rows): (usize, usize),
    ) -> State {
        let params = Params::new(dtype, &Device::Cpu, Key::new(1));
        let encoder = build(&params);
        let own = Var::from_tensor(&xs.narrow(0, start, rows).unwrap()).unwrap();
        let pass = Pass { collective: ranks, ..Pass::train(Key::new(2)) };
        let ys = encoder.forward(&own, &pass).unwrap();
        let readout =
            Key::new(9).normal(0.0, 1.0, (xs.dims()[0], ys.dims()[1]), dtype, &Device::Cpu).unwrap();
        let readout = readout.narrow(0, start, rows).unwrap();
        let loss = (ys.sqr().unwrap() * readout).unwrap().sum_all().unwrap();
        let grads = infomax_kernels::backward(&loss).unwrap();
        let mut state = State::new();
        for (name, param) in params.all() {
            if let Some(grad) = grads.get(&param.var) {
                state.insert(format!("gradient of {name}"), values(&ranks.sum(grad).unwrap()));
            }
            state.insert(name, values(param.var.as_tensor()));
        }
        let all = |x: &Tensor| values(&Tensor::cat(&ranks.gather(x).unwrap(), 0).unwrap());
        state.insert("output".into(), all(&ys.detach()));
        state.insert("gradient of the input".into(), all(grads.get(&own).unwrap()));
        state
    }

    fn check(
        build: &(dyn Fn(&Params) -> Box<dyn Encoder> + Sync),
        xs: &Tensor,
        dtype: DType,
        shares: &[usize],
        tolerance: f64,
    ) {
        let expected = pass(build, xs, dtype, &Local, (0, xs.dims()[0]));
        let found: Vec<State> = std::thread::scope(|scope| {
            let ranks = replicas(shares.len()).into_iter().map(|rank| {
                let start = shares[..rank.rank()].iter().sum();
                let rows = shares[rank.rank()];
                scope.spawn(move || pass(build, xs, dtype, &rank, (start, rows)))
            });
            ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(found.iter().all(|one| *one == found[0]), "all ranks have the same bits");
        assert_eq!(found[0].keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, values) in &expected {
            let scale = values.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
            let off = values.iter().zip(&found[0][name]).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(off <= tolerance * scale, "{name}: {off:e} of {scale:e}, shares {shares:?}");
        }
    }

    fn resnet(params: &Params) -> Box<dyn Encoder> {
        let cfg = ResNetConfig { width: 4, ..ResNetConfig::default() };
        Box::new(ResNet::new(&cfg, params.root()).unwrap())
    }

    #[test]
    fn residual_networks_of_several_ranks_are_those_of_one_process() {
        let xs = images(8, (3, 16, 16), DType::F64);
        for shares in [&[4, 4][..], &[3, 5], &[1, 7], &[2, 2, 4]] {
            check(&resnet, &xs, DType::F64, shares, 1e-9);
        }
        let nine = |params: &Params| -> Box<dyn Encoder> {
            let cfg = ResNet9Config { width: 2, ..ResNet9Config::default() };
            Box::new(ResNet9::new(&cfg, params.root()).unwrap())
        };
        check(&nine, &xs, DType::F64, &[4, 4], 1e-9);
        check(&resnet, &images(8, (3, 16, 16), DType::F32), DType::F32, &[4, 4], 1e-3);
    }

    /// The composed form is what other devices run.
    #[test]
    fn the_composed_form_is_the_fused_one_in_value_and_gradient() {
        #[derive(Debug)]
        struct Norm(BatchNorm, bool);
        impl Encoder for Norm {
            fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
                let ranks = pass.collective;
                let ys = if self.1 && ranks.size() > 1 {
                    let (weight, bias) = self.0.affine();
                    let out =
                        composed(xs, (weight, bias), Some(xs), BatchNorm::EPS, Activation::Relu, ranks)?;
                    self.0.follow(&out.mean, &out.var, out.count)?;
                    out.ys
                } else {
                    self.0.forward(xs, Some(xs), Activation::Relu, pass)?
                };
                Ok(ys.flatten_from(1)?)
            }
            fn feature_dim(&self) -> usize {
                0
            }
        }
        for shape in [(5, 1, 1), (3, 9, 9)] {
            let xs = images(7, shape, DType::F64);
            for other in [false, true] {
                let build = |params: &Params| -> Box<dyn Encoder> {
                    Box::new(Norm(BatchNorm::new(shape.0, params.root()).unwrap(), other))
                };
                for shares in [&[4, 3][..], &[1, 6], &[2, 1, 4]] {
                    check(&build, &xs, DType::F64, shares, 1e-11);
                }
            }
        }
    }
}
