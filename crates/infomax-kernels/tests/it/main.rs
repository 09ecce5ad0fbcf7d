//! Gradients by central differences, values by hand, and values of PyTorch, through the public functions.

mod drawn;
mod golden;

use candle_core::{DType, Device, Result, Tensor, Var};
use infomax_kernels::{Error, Pool2dConfig, linalg};
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};

#[allow(clippy::panic)]
fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> infomax_kernels::Result<Tensor>) {
    let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| spread(s, i as u64, 1.5)).collect();
    gradcheck(&inputs, GradCheck::default(), |v| Ok(f(v)?)).unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// `X X^T / m + I / 2`, positive definite.
fn spd(x: &Tensor) -> Result<Tensor> {
    let (d, m) = x.dims2()?;
    (x.matmul(&x.t()?)? / m as f64)? + (Tensor::eye(d, DType::F64, &Device::Cpu)? * 0.5)?
}

#[test]
fn gradients_of_rows() {
    let (x, v): (&[usize], &[usize]) = (&[3, 5], &[5]);
    check("layer_norm", &[x, v, v], |t| infomax_kernels::layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-3));
    check("rms_norm", &[x, v], |t| infomax_kernels::rms_norm(&t[0], Some(&t[1]), 1e-3));
    check("group_norm", &[&[2, 6, 3, 2], &[6], &[6]], |t| {
        infomax_kernels::group_norm(&t[0], 3, Some(&t[1]), Some(&t[2]), 1e-3)
    });
    check("softmax", &[x], |t| infomax_kernels::softmax(&t[0]));
    check("log_softmax", &[x], |t| infomax_kernels::log_softmax(&t[0]));
    check("l2_normalize", &[x], |t| infomax_kernels::l2_normalize(&t[0], 1e-6));
    check("cross_entropy", &[x], |t| infomax_kernels::cross_entropy(&t[0], &[4, 0, 2], 0.1));
    check("linear", &[&[2, 3, 5], &[4, 5], &[4]], |t| infomax_kernels::linear(&t[0], &t[1], Some(&t[2])));
    check("gelu", &[x], |t| infomax_kernels::gelu(&t[0]));
    check("silu", &[x], |t| infomax_kernels::silu(&t[0]));
    check("relu", &[x], |t| infomax_kernels::relu(&t[0]));
}

#[test]
fn gradients_of_pooling() {
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (2, 1, 0), (2, 3, 1)] {
        let cfg = Pool2dConfig { kernel, stride, padding };
        check("max_pool2d", &[&[2, 2, 5, 6]], |t| infomax_kernels::max_pool2d(&t[0], cfg));
        check("avg_pool2d", &[&[2, 2, 5, 6]], |t| infomax_kernels::avg_pool2d(&t[0], cfg));
    }
    check("global_avg_pool", &[&[2, 3, 5, 4]], |t| infomax_kernels::global_avg_pool(&t[0]));
    check("patches", &[&[2, 3, 5, 4]], |t| infomax_kernels::patches(&t[0], 2));
    check("patches_last", &[&[2, 5, 4, 3]], |t| infomax_kernels::patches_last(&t[0], 2));
}

#[test]
fn gradients_of_linear_algebra() {
    check("log_det_spd", &[&[4, 7]], |t| linalg::log_det_spd(&spd(&t[0])?));
    check("solve_spd", &[&[4, 7], &[4, 3]], |t| linalg::solve_spd(&spd(&t[0])?, &t[1]));
    check("eigvalsh", &[&[4, 7]], |t| {
        let values = linalg::eigvalsh(&spd(&t[0])?)?;
        Ok((values.log()? * values)?.sum_all()?)
    });
}

#[test]
fn values_by_hand() -> Result<()> {
    let a = Tensor::new(&[[4f64, 2.0], [2.0, 3.0]], &Device::Cpu)?;
    let tolerance = Tolerance::of(DType::F64);
    let scalar = |x: f64| Tensor::new(x, &Device::Cpu);
    assert_close("log det", &linalg::log_det_spd(&a)?, &scalar(8f64.ln())?, tolerance);
    let (root, half) = (17f64.sqrt() / 2.0, 3.5);
    let values = Tensor::new(&[half - root, half + root], &Device::Cpu)?;
    assert_close("eigenvalues", &linalg::eigvalsh(&a)?, &values, tolerance);
    let (values, vectors) = linalg::eigh(&a)?;
    let again = vectors.broadcast_mul(&values.reshape((1, 2))?)?.matmul(&vectors.t()?)?;
    assert_close("V L V^T", &again, &a, tolerance);
    let singular = linalg::singular_values(&a)?;
    assert!((singular[0] - half - root).abs() < 1e-12 && (singular[1] - half + root).abs() < 1e-12);
    // relu'(0) = 0; the one maximum of a window gets all of its gradient.
    let zero = Var::from_tensor(&scalar(0.0)?)?;
    let grads = infomax_kernels::relu(&zero)?.backward()?;
    assert_eq!(grads.get(&zero).map(|g| g.to_scalar::<f64>()).transpose()?, Some(0.0));
    let x = Var::from_tensor(&Tensor::new(&[[[[1f64, 2.0], [4.0, 3.0]]]], &Device::Cpu)?)?;
    let grads = infomax_kernels::max_pool2d(&x, Pool2dConfig::new(2))?.sum_all()?.backward()?;
    let expected = Tensor::new(&[[[[0f64, 0.0], [1.0, 0.0]]]], &Device::Cpu)?;
    assert_close("max", grads.get(&x).unwrap(), &expected, tolerance);
    Ok(())
}

#[test]
fn refusals() -> Result<()> {
    let singular = Tensor::new(&[[1f64, 0.0], [0.0, 0.0]], &Device::Cpu)?;
    let (_, jitter) = linalg::log_det_spd_jitter(&singular)?;
    assert!(jitter > 0.0, "a singular matrix needs a jitter");
    let negative = Tensor::new(&[[-1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
    assert!(matches!(linalg::log_det_spd(&negative), Err(Error::NotPositiveDefinite { .. })));
    let nan = (singular * f64::NAN)?;
    assert!(matches!(linalg::eigvalsh(&nan), Err(Error::NoConvergence { .. })));
    let x = spread(&[2, 3], 1, 1.0);
    assert!(matches!(infomax_kernels::cross_entropy(&x, &[0, 3], 0.0), Err(Error::Config { .. })));
    let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?;
    assert!(matches!(infomax_kernels::softmax(&empty), Err(Error::Empty { .. })));
    Ok(())
}
