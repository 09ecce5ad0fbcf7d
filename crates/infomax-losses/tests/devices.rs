//! What a device would run: every named objective with the forms for tensors that the kernels of the CPU do not take has
//! the values and gradients of the CPU, in f64 and f32.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, LocalMap, Views};
use infomax_kernels::{has_cpu_kernels, without_cpu_kernels};
use infomax_losses::{ObjectiveConfig, names};
use infomax_testing::spread;

/// The value and the gradients of the views.
fn evaluate(config: &ObjectiveConfig, views: &[Tensor], dtype: DType) -> infomax_core::Result<Vec<Tensor>> {
    let objective = config.build().unwrap();
    let vars: Vec<Var> =
        views.iter().map(|v| Var::from_tensor(&v.to_dtype(dtype).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let targets = tensors.iter().map(|v| v.detach().copy().unwrap()).collect();
    let map = |z: &Tensor| {
        let parts = [1.0, 0.7, 0.4].map(|share| (z * share).unwrap());
        LocalMap::new(Tensor::stack(&parts, 1).unwrap(), None).unwrap()
    };
    let projections = Views::new(tensors.clone())?;
    let z = Embeddings {
        predictions: Some(projections.clone()),
        targets: Some(Views::new(targets)?),
        labels: Some((0..views[0].dim(0)? as u32).map(|i| i % 3).collect()),
        ..Embeddings::new(projections.with_local(tensors.iter().map(map).collect())?)
    };
    let total = objective.evaluate(&z, &Context::standalone())?.total;
    let grads = infomax_kernels::backward(&total)?;
    let grad = |t: &Tensor| grads.get(t).cloned().map_or_else(|| t.zeros_like(), Ok).unwrap();
    Ok([total.detach()].into_iter().chain(tensors.iter().map(grad)).collect())
}

fn norm(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

fn difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    let pairs = a.iter().zip(b).map(|(a, b)| {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        let far = norm(&(a - &b).unwrap()) / norm(&b).max(1e-12);
        if far.is_nan() { f64::INFINITY } else { far }
    });
    pairs.fold(0.0, f64::max)
}

#[test]
fn every_objective_has_the_forms_of_a_device() {
    assert!(has_cpu_kernels(&Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap()));
    let mut seen = 0;
    let mut wrong = Vec::new();
    // Fewer rows than dimensions, and more: some terms work on the smaller Gram matrix.
    for (n, d) in [(12, 20), (30, 8)] {
        let first = spread(&[n, d], 200, 1.3);
        let second = ((&first * 0.8).unwrap() + spread(&[n, d], 201, 0.6)).unwrap();
        let views = [first, second].map(|v| v.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap());
        for named in names() {
            // Whitening needs more rows than dimensions, and refuses others everywhere.
            if named.name == "w-mse" && n <= d {
                continue;
            }
            for convention in named.conventions {
                let config = ObjectiveConfig::with_convention(named.name, convention).unwrap();
                let name = format!("{} ({convention}) {n}x{d}", named.name);
                let exact = evaluate(&config, &views, DType::F64).unwrap();
                let host = evaluate(&config, &views, DType::F32).unwrap();
                for (dtype, tolerance) in
                    [(DType::F64, 1e-7), (DType::F32, (8.0 * difference(&host, &exact)).max(2e-4))]
                {
                    match without_cpu_kernels(|| evaluate(&config, &views, dtype)) {
                        Ok(there) => {
                            let far = difference(&there, &exact);
                            if far > tolerance {
                                wrong.push(format!("{name} {dtype:?}: {far:.1e} of {tolerance:.1e}"));
                            }
                        }
                        Err(error) => wrong.push(format!("{name} {dtype:?}: {error}")),
                    }
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 2 * names().len() - 2 && wrong.is_empty(), "{seen}\n{}", wrong.join("\n"));
}
