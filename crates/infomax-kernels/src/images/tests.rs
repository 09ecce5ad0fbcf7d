//! Against the composed form in value and gradient, over drawn shapes and every instruction set.

mod bf16;
mod tiles;

use super::{Blocked, ConvNorm, ResidualUnit, Shortcut};
use crate::{Activation, Conv2dConfig, Error, Pool2dConfig, reference};
use candle_core::{DType, Device, Tensor, Var};
use infomax_simd::Isa;
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};
use proptest::prelude::*;

/// Value and gradients of a function of two tensors, contracted with fixed weights.
fn both(f: impl Fn(&Tensor, &Tensor) -> Tensor, xs: &Tensor, w: &Tensor) -> Vec<Tensor> {
    let (x, w) = (Var::from_tensor(xs).unwrap(), Var::from_tensor(w).unwrap());
    let ys = f(&x, &w);
    let readout = spread(ys.dims(), 9, 1.0).to_dtype(ys.dtype()).unwrap();
    let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
    vec![ys, grads.get(&x).unwrap().clone(), grads.get(&w).unwrap().clone()]
}

fn check(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig, dtype: DType) {
    let inputs = [spread(&x, 1, 1.0), spread(&w, 2, 1.0)].map(|t| t.to_dtype(dtype).unwrap());
    let expected = both(|x, w| reference::conv2d(x, w, None, cfg).unwrap(), &inputs[0], &inputs[1]);
    for isa in Isa::available() {
        for fast in [false, true] {
            let got = both(
                |x, w| {
                    let xs = Blocked::from_images(x).unwrap();
                    xs.conv2d_with(w, cfg, *isa, fast).unwrap().to_images().unwrap()
                },
                &inputs[0],
                &inputs[1],
            );
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let name = format!("{isa:?} {dtype:?} x{x:?} w{w:?} {cfg:?} winograd {fast} result {i}");
                let rel = if fast && dtype == DType::F32 { 1e-4 } else { Tolerance::of(dtype).rel };
                assert_close(&name, got, expected, Tolerance { rel, ..Tolerance::of(dtype) });
            }
        }
    }
}

fn cfg(stride: usize, padding: usize, dilation: usize) -> Conv2dConfig {
    Conv2dConfig { stride, padding, dilation, groups: 1 }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn the_shapes_of_the_networks() {
    for dtype in [DType::F32, DType::F64] {
        check([16, 3, 16, 16], [16, 3, 3, 3], cfg(1, 1, 1), dtype);
        check([16, 16, 16, 16], [16, 16, 3, 3], cfg(1, 1, 1), dtype);
        check([19, 16, 8, 8], [32, 16, 3, 3], cfg(2, 1, 1), dtype);
        check([8, 16, 16, 16], [32, 16, 1, 1], cfg(2, 0, 1), dtype);
        check([24, 24, 8, 8], [40, 24, 3, 3], cfg(1, 1, 1), dtype);
        check([7, 33, 4, 4], [9, 33, 3, 3], cfg(1, 1, 1), dtype);
        check([2, 3, 28, 28], [12, 3, 7, 7], cfg(2, 3, 1), dtype);
        check([5, 20, 7, 7], [24, 20, 1, 1], cfg(1, 0, 1), dtype);
        check([3, 9, 7, 9], [14, 9, 3, 3], cfg(1, 0, 1), dtype);
        check([3, 9, 3, 5], [14, 9, 3, 3], cfg(1, 2, 1), dtype);
    }
}

#[test]
fn the_corners() {
    // 1x1 images, a kernel larger than the image, stride beyond the kernel, dilation, one channel.
    check([3, 9, 1, 1], [10, 9, 3, 3], cfg(1, 1, 1), DType::F64);
    check([2, 3, 2, 3], [4, 3, 5, 4], cfg(1, 2, 1), DType::F64);
    check([2, 3, 11, 9], [4, 3, 2, 2], cfg(3, 0, 1), DType::F64);
    check([2, 3, 13, 17], [4, 3, 3, 2], cfg(2, 2, 3), DType::F64);
    check([1, 1, 1, 1], [1, 1, 1, 1], cfg(1, 0, 1), DType::F64);
    check([1, 2, 5, 20], [2, 2, 1, 3], cfg(4, 3, 2), DType::F64);
    check([1, 8, 2, 2], [8, 8, 3, 3], cfg(1, 2, 1), DType::F64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    #[cfg_attr(miri, ignore = "too slow there")]
    fn drawn_shapes(
        (n, c, k) in (1usize..20, 1usize..20, 1usize..20),
        (h, w) in (1usize..12, 1usize..12),
        (r, s, stride, padding, dilation) in (1usize..5, 1usize..5, 1usize..4, 0usize..4, 1usize..3),
        winograd in any::<bool>(),
        f64_type in any::<bool>(),
    ) {
        let (r, s, stride, padding, dilation) =
            if winograd { (3, 3, 1, padding.min(2), 1) } else { (r, s, stride, padding, dilation) };
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        prop_assume!(fits(h, r) && fits(w, s));
        let dtype = if f64_type { DType::F64 } else { DType::F32 };
        check([n, c, h, w], [k, c, r, s], cfg(stride, padding, dilation), dtype);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn the_error_of_winograd_is_small_for_many_channels() {
    let inputs = [spread(&[8, 256, 8, 8], 1, 1.0), spread(&[32, 256, 3, 3], 2, 1.0)];
    let exact = both(|x, w| reference::conv2d(x, w, None, cfg(1, 1, 1)).unwrap(), &inputs[0], &inputs[1]);
    let single = inputs.map(|t| t.to_dtype(DType::F32).unwrap());
    let got = both(
        |x, w| Blocked::from_images(x).unwrap().conv2d(w, cfg(1, 1, 1)).unwrap().to_images().unwrap(),
        &single[0],
        &single[1],
    );
    for (got, exact) in got.iter().zip(&exact) {
        let difference = (got.to_dtype(DType::F64).unwrap() - exact).unwrap();
        let norm = |t: &Tensor| t.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let largest =
            |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
        let (rms, worst) = (norm(&difference) / norm(exact), largest(&difference) / largest(exact));
        assert!(rms < 1e-5 && worst < 1e-4, "root mean square {rms:e}, largest {worst:e}");
    }
}

/// The parameters of a unit: weight, scale, shift of each convolution.
fn params(layers: &[[usize; 4]], dtype: DType) -> Vec<Tensor> {
    let mut all = Vec::new();
    for (i, w) in layers.iter().enumerate() {
        all.push(spread(w, 2 + i as u64, 1.0));
        all.push((spread(&[w[0]], 12 + i as u64, 0.5) + 1.0).unwrap());
        all.push(spread(&[w[0]], 22 + i as u64, 0.5));
    }
    all.iter().map(|t| t.to_dtype(dtype).unwrap()).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Short {
    None,
    Identity,
    Projection,
}

/// A unit: the input, its branch as (weight, stride, padding), and its shortcut, a projection being last.
struct Case {
    x: [usize; 4],
    layers: Vec<([usize; 4], usize, usize)>,
    short: Short,
    train: bool,
}

const EPS: f64 = 1e-2;

/// The output, and mean and variance of each norm.
type Values = (Tensor, Vec<(Tensor, Tensor)>);

impl Case {
    fn tensors(&self, dtype: DType) -> Vec<Tensor> {
        let mut all = vec![spread(&self.x, 1, 1.0).to_dtype(dtype).unwrap()];
        all.extend(params(&self.layers.iter().map(|l| l.0).collect::<Vec<_>>(), dtype));
        all
    }

    fn running(&self, i: usize, dtype: DType) -> (Tensor, Tensor) {
        let k = self.layers[i].0[0];
        let mean = spread(&[k], 31 + i as u64, 0.5).to_dtype(dtype).unwrap();
        let var = (spread(&[k], 41 + i as u64, 0.5) + 1.5).unwrap().to_dtype(dtype).unwrap();
        (mean, var)
    }

    /// From the composed forms; `round` is applied to the outputs of convolutions and to activations.
    fn composed(&self, v: &[Tensor], round: fn(&Tensor) -> Tensor) -> Values {
        let mut stats = Vec::new();
        let mut norm = |i: usize, xs: &Tensor, residual: Option<&Tensor>, act| {
            let (_, stride, padding) = self.layers[i];
            let (weight, scale, shift) = (&v[1 + 3 * i], &v[2 + 3 * i], &v[3 + 3 * i]);
            let z = round(&reference::conv2d(xs, weight, None, cfg(stride, padding, 1)).unwrap());
            if self.train {
                let out =
                    reference::batch_norm_train(&z, Some(scale), Some(shift), residual, EPS, act).unwrap();
                stats.push((out.mean, out.var));
                return out.ys;
            }
            let (m, var) = self.running(i, xs.dtype());
            reference::batch_norm_eval(&z, &m, &var, Some(scale), Some(shift), residual, EPS, act).unwrap()
        };
        let count = self.layers.len() - usize::from(self.short == Short::Projection);
        let mut ys = v[0].clone();
        for i in 0..count - 1 {
            ys = round(&norm(i, &ys, None, Activation::Relu));
        }
        let residual = match self.short {
            Short::None => None,
            Short::Identity => Some(v[0].clone()),
            Short::Projection => Some(norm(count, &v[0], None, Activation::None)),
        };
        let ys = round(&norm(count - 1, &ys, residual.as_ref(), Activation::Relu));
        if self.short == Short::Projection && self.train {
            // The projection is listed last.
            stats.swap(count - 1, count);
        }
        (ys, stats)
    }

    fn fused(&self, v: &[Tensor], isa: Isa, fast: bool) -> crate::Result<Values> {
        self.fused_from(Blocked::from_images(&v[0])?, v, isa, fast)
    }

    fn fused_from(&self, xs: Blocked, v: &[Tensor], isa: Isa, fast: bool) -> crate::Result<Values> {
        let running: Vec<_> = (0..self.layers.len()).map(|i| self.running(i, v[0].dtype())).collect();
        let parts: Vec<ConvNorm<'_>> = self
            .layers
            .iter()
            .enumerate()
            .map(|(i, (_, stride, padding))| ConvNorm {
                weight: &v[1 + 3 * i],
                scale: &v[2 + 3 * i],
                shift: &v[3 + 3 * i],
                cfg: cfg(*stride, *padding, 1),
                stats: (!self.train).then_some((&running[i].0, &running[i].1)),
            })
            .collect();
        let (branch, shortcut) = match self.short {
            Short::None => (&parts[..], Shortcut::None),
            Short::Identity => (&parts[..], Shortcut::Identity),
            Short::Projection => (&parts[..parts.len() - 1], Shortcut::Projection(parts[parts.len() - 1])),
        };
        let units = [ResidualUnit { branch: branch.to_vec(), shortcut }];
        let out = xs.residual_of(&units, EPS, isa, fast, None)?;
        let stats = out.stats.into_iter().map(|s| (s.mean, s.var)).collect();
        Ok((out.ys.to_images()?, stats))
    }

    /// The output, the statistics, and the gradients of everything for an output contracted with `readout`.
    fn results(
        &self,
        inputs: &[Tensor],
        readout: &dyn Fn(&[usize]) -> Tensor,
        f: &dyn Fn(&[Tensor]) -> Values,
    ) -> Vec<Tensor> {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let v: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let (ys, stats) = f(&v);
        let readout = readout(ys.dims()).to_dtype(ys.dtype()).unwrap();
        let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = vec![ys];
        if self.train {
            all.extend(stats.into_iter().flat_map(|s| [s.0, s.1]));
        }
        all.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
        all
    }

    fn check(&self, dtype: DType) {
        let run = |f: &dyn Fn(&[Tensor]) -> Values| {
            self.results(&self.tensors(dtype), &|shape| spread(shape, 9, 1.0), f)
        };
        let expected = run(&|v| self.composed(v, Tensor::clone));
        for isa in Isa::available() {
            for fast in [false, true] {
                let got = run(&|v| self.fused(v, *isa, fast).unwrap());
                assert_eq!(got.len(), expected.len());
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let name = format!("{isa:?} {dtype:?} {:?} winograd {fast} result {i}", self.layers);
                    assert_close(&name, got, expected, Tolerance { abs: 1e-9, ..Tolerance::of(dtype) });
                }
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let case = |x, layers: &[([usize; 4], usize, usize)], short, train| Case {
        x,
        layers: layers.to_vec(),
        short,
        train,
    };
    vec![
        case([5, 3, 6, 5], &[([9, 3, 3, 3], 1, 1)], Short::None, true),
        case([9, 8, 6, 6], &[([8, 8, 3, 3], 1, 1), ([8, 8, 3, 3], 1, 1)], Short::Identity, true),
        case(
            [4, 8, 7, 6],
            &[([10, 8, 3, 3], 2, 1), ([10, 10, 3, 3], 1, 1), ([10, 8, 1, 1], 2, 0)],
            Short::Projection,
            true,
        ),
        case(
            [3, 12, 4, 4],
            &[([8, 12, 1, 1], 1, 0), ([8, 8, 3, 3], 1, 1), ([12, 8, 1, 1], 1, 0)],
            Short::Identity,
            true,
        ),
        case(
            [2, 8, 3, 3],
            &[([10, 8, 3, 3], 1, 1), ([10, 10, 3, 3], 1, 1), ([10, 8, 1, 1], 1, 0)],
            Short::Projection,
            false,
        ),
    ]
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn units_are_the_composed_form() {
    cases().iter().for_each(|case| case.check(DType::F64));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn central_differences() {
    let isa = Isa::detect();
    for case in cases() {
        gradcheck(&case.tensors(DType::F64), GradCheck { max_elements: 24, ..Default::default() }, |v| {
            Ok(case.fused(v, isa, true)?.0)
        })
        .unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn a_chain_is_its_units_one_by_one() {
    let [first, second] = [&cases()[1], &cases()[2]];
    let inputs: Vec<Tensor> =
        first.tensors(DType::F64).into_iter().chain(second.tensors(DType::F64).into_iter().skip(1)).collect();
    let run = |together: bool| {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let part = |i: usize, stride| ConvNorm {
            weight: &vars[i],
            scale: &vars[i + 1],
            shift: &vars[i + 2],
            cfg: cfg(stride, vars[i].dims()[2] / 2, 1),
            stats: None,
        };
        let units = [
            ResidualUnit { branch: vec![part(1, 1), part(4, 1)], shortcut: Shortcut::Identity },
            ResidualUnit {
                branch: vec![part(7, 2), part(10, 1)],
                shortcut: Shortcut::Projection(part(13, 2)),
            },
        ];
        let xs = Blocked::from_images(&vars[0]).unwrap();
        let ys = match together {
            true => xs.residual(&units, EPS).unwrap().ys,
            false => xs.residual(&units[..1], EPS).unwrap().ys.residual(&units[1..], EPS).unwrap().ys,
        };
        let ys = ys.to_images().unwrap();
        let readout = spread(ys.dims(), 9, 1.0);
        let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = vec![ys];
        all.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
        all
    };
    for (together, apart) in run(true).iter().zip(&run(false)) {
        assert_close("chain", together, apart, Tolerance::of(DType::F64));
    }
}

/// For valgrind: blocks of 8 and 16 images through both forms, units and pools, the instruction sets
/// beside each other; without the products of the composed form.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_maps() {
    let beside = |name: &str, run: &dyn Fn(Isa) -> Vec<Tensor>| {
        let expected = run(Isa::Portable);
        for isa in Isa::available() {
            for (got, expected) in run(*isa).iter().zip(&expected) {
                let (got, expected) =
                    (got.to_dtype(DType::F64).unwrap(), expected.to_dtype(DType::F64).unwrap());
                assert_close(&format!("{name} {isa:?}"), &got, &expected, Tolerance { rel: 1e-4, abs: 1e-5 });
            }
        }
    };
    for (x, w, c) in [
        ([9, 3, 2, 3], [5, 3, 2, 2], cfg(2, 1, 1)),
        ([2, 1, 2, 2], [3, 1, 1, 1], cfg(1, 0, 1)),
        ([9, 8, 1, 2], [9, 8, 3, 3], cfg(1, 1, 1)),
    ] {
        let single = [spread(&x, 1, 1.0), spread(&w, 2, 1.0)].map(|t| t.to_dtype(DType::F32).unwrap());
        beside("conv", &|isa| {
            let run = |x: &Tensor, w: &Tensor| {
                Blocked::from_images(x).unwrap().conv2d_with(w, c, isa, true).unwrap().to_images().unwrap()
            };
            both(run, &single[0], &single[1])
        });
    }
    for n in [2, 9] {
        let layers = vec![([4, 3, 3, 3], 2, 1), ([4, 4, 1, 1], 1, 0), ([4, 3, 1, 1], 2, 0)];
        let case = Case { x: [n, 3, 2, 3], layers, short: Short::Projection, train: true };
        for dtype in [DType::F32, DType::F64] {
            beside("unit", &|isa| {
                case.results(&case.tensors(dtype), &|dims| spread(dims, 9, 1.0), &|v| {
                    case.fused(v, isa, true).unwrap()
                })
            });
        }
        let pool = Pool2dConfig { kernel: 2, stride: 1, padding: 1 };
        let xs = Var::from_tensor(&spread(&[n, 3, 2, 2], 1, 1.0)).unwrap();
        let ys = Blocked::from_images(&xs).unwrap().max_pool2d(pool).unwrap().global_avg_pool().unwrap();
        let grads = ys.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&xs).unwrap().dims(), [n, 3, 2, 2]);
    }
}

#[test]
fn a_second_backward_gives_the_same_and_frozen_parameters_get_nothing() {
    let case = &cases()[1];
    let inputs = case.tensors(DType::F32);
    let mut v: Vec<Tensor> = inputs.clone();
    let scale = Var::from_tensor(&inputs[2]).unwrap();
    v[2] = scale.as_tensor().clone();
    let loss = case.fused(&v, Isa::detect(), true).unwrap().0.sqr().unwrap().sum_all().unwrap();
    let values =
        |grads: &candle_core::backprop::GradStore| grads.get(&scale).unwrap().to_vec1::<f32>().unwrap();
    let (first, second) = (loss.backward().unwrap(), loss.backward().unwrap());
    assert_eq!(values(&first), values(&second));
    assert!(first.get(&v[1]).is_none() && first.get(&v[0]).is_none());
}

#[test]
fn pooling_is_the_composed_form() {
    for (shape, kernel, stride, padding) in
        [([5, 3, 7, 6], 3, 2, 1), ([17, 2, 5, 5], 2, 1, 0), ([1, 4, 4, 4], 3, 3, 0)]
    {
        let pool = Pool2dConfig { kernel, stride, padding };
        let w = Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap();
        let keep = |ys: Tensor, w: &Tensor| ys.broadcast_add(w).unwrap();
        let x = spread(&shape, 1, 1.0);
        let expected = both(|x, w| keep(reference::max_pool2d(x, pool).unwrap(), w), &x, &w);
        let got = both(
            |x, w| {
                let ys = Blocked::from_images(x).unwrap().max_pool2d(pool).unwrap();
                keep(ys.to_images().unwrap(), w)
            },
            &x,
            &w,
        );
        let expected_mean = both(|x, w| keep(reference::global_avg_pool(x).unwrap(), w), &x, &w);
        let got_mean =
            both(|x, w| keep(Blocked::from_images(x).unwrap().global_avg_pool().unwrap(), w), &x, &w);
        for (got, expected) in got.iter().chain(&got_mean).zip(expected.iter().chain(&expected_mean)) {
            assert_close("pool", got, expected, Tolerance::of(DType::F64));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut bits = Vec::new();
            for case in cases() {
                let case = Case { x: [33, case.x[1], 12, 12], ..case };
                let tensors = case.tensors(DType::F32);
                let vars: Vec<Var> = tensors.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
                let v: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                let ys = case.fused(&v, Isa::detect(), true).unwrap().0;
                let grads = ys.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                bits.push(ys.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                for v in &vars {
                    bits.push(grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
                }
            }
            bits
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let blocked = |dims: &[usize]| Blocked::from_images(&zeros(dims));
    assert!(matches!(blocked(&[0, 3, 4, 4]).unwrap_err(), Error::Empty { .. }));
    assert!(matches!(blocked(&[3, 4]).unwrap_err(), Error::Shape { .. }));
    let xs = blocked(&[2, 3, 2, 2]).unwrap();
    let run = |w: &[usize], c| xs.conv2d(&zeros(w), c).unwrap_err();
    assert!(matches!(run(&[4, 3, 3, 3], cfg(1, 0, 1)), Error::Shape { name: "xs", .. }));
    assert!(matches!(run(&[4, 2, 3, 3], cfg(1, 1, 1)), Error::Shape { name: "weight", .. }));
    let groups = Conv2dConfig { groups: 3, ..cfg(1, 1, 1) };
    assert!(matches!(run(&[3, 1, 3, 3], groups), Error::Config { name: "groups", .. }));
    let (w, one) = (zeros(&[4, 3, 1, 1]), zeros(&[4]));
    let part = ConvNorm { weight: &w, scale: &one, shift: &one, cfg: cfg(1, 0, 1), stats: None };
    let run = |branch: &[ConvNorm<'_>], shortcut, eps| {
        xs.residual(&[ResidualUnit { branch: branch.to_vec(), shortcut }], eps).unwrap_err()
    };
    let e = run(&[part], Shortcut::Identity, 1e-5);
    assert!(matches!(e, Error::Shape { name: "shortcut", .. }));
    assert!(matches!(run(&[], Shortcut::None, 1e-5), Error::Config { .. }));
    assert!(matches!(xs.residual(&[], 1e-5).unwrap_err(), Error::Config { .. }));
    assert!(matches!(run(&[part], Shortcut::None, 0.0), Error::Config { .. }));
    let narrow = zeros(&[3]);
    let part = ConvNorm { scale: &narrow, ..part };
    let e = run(&[part], Shortcut::None, 1e-5);
    assert!(matches!(e, Error::Shape { name: "scale", .. }));
}
