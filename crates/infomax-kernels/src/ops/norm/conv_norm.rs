//! A convolution and its batch norm.

use crate::tensor::check;
use crate::tensor::half::half;
use crate::tensor::path::Path;
use crate::{Activation, BatchNormOutput, Conv2dConfig, Error, Result, batch_norm_train, conv2d, device};
use candle_core::Tensor;

/// [`conv2d`] without a bias, then [`batch_norm_train`] with `scale`, `shift` and `residual`: the form that trains
/// fastest where images are not in blocks ([`Blocked`](crate::Blocked)). On CUDA with cuDNN it is one operation.
///
/// `weight` `(K, C / groups, R, S)`, `scale` and `shift` `(K)` are of the type of `xs`. For bf16 images on a device they
/// are f32: the weight is rounded where it is multiplied, products are added in f32, statistics and the normalization
/// are f32, and maps, with their gradients, are rounded to bf16; gradients of parameters are f32. The returned
/// statistics are f32 then.
///
/// # Gradient
/// As the two operations; the rounding of the weight has the derivative 1.
///
/// # Errors
/// As the two operations; 16-bit images on the CPU: there use `Blocked::from_images_bf16`.
pub fn conv_norm_train(
    xs: &Tensor,
    [weight, scale, shift]: [&Tensor; 3],
    residual: Option<&Tensor>,
    cfg: Conv2dConfig,
    eps: f64,
    act: Activation,
) -> Result<BatchNormOutput> {
    const OP: &str = "conv_norm_train";
    if !half(xs) {
        let Path::Cpu(_) = Path::of(xs) else {
            check::conv(xs, weight, None, cfg)?;
            return device::conv_norm_train(xs, [weight, scale, shift], residual, cfg, eps, act);
        };
        let ys = conv2d(xs, weight, None, cfg)?;
        return batch_norm_train(&ys, Some(scale), Some(shift), residual, eps, act);
    }
    check::same_dtype(OP, weight, "scale", Some(scale))?;
    check::same_dtype(OP, weight, "shift", Some(shift))?;
    let (k, outputs) = (weight.dims().first().copied().unwrap_or(0), shift.elem_count());
    if scale.dims() != [k] || outputs != k {
        let expected = format!("({k}), one for each output channel");
        return Err(Error::Shape { op: OP, name: "scale", expected, got: scale.dims().to_vec() });
    }
    check::conv_sizes(OP, sizes("xs", xs)?, sizes("weight", weight)?, cfg)?;
    device::conv_norm_train(xs, [weight, scale, shift], residual, cfg, eps, act)
}

fn sizes(name: &'static str, t: &Tensor) -> Result<[usize; 4]> {
    let (a, b, c, d) = check::dims4("conv_norm_train", name, t)?;
    Ok([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::without_cpu_kernels;
    use candle_core::{DType, Var};
    use infomax_testing::{Tolerance, assert_close, spread};

    /// The value and all gradients: of images, weight, scale, shift and residual.
    fn run(dtype: DType) -> Vec<Tensor> {
        let make = |dims: &[usize], seed, dtype| {
            Var::from_tensor(&spread(dims, seed, 1.0).to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap())
                .unwrap()
        };
        let wide = if dtype == DType::BF16 { DType::F32 } else { dtype };
        let (xs, residual) = (make(&[4, 3, 7, 7], 1, dtype), make(&[4, 5, 4, 4], 2, dtype));
        let params = [make(&[5, 3, 3, 3], 3, wide), make(&[5], 4, wide), make(&[5], 5, wide)];
        let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
        let out = conv_norm_train(
            &xs,
            [&params[0], &params[1], &params[2]],
            Some(&residual),
            cfg,
            1e-5,
            Activation::Relu,
        )
        .unwrap();
        let cot = spread(out.ys.dims(), 6, 1.0).to_dtype(wide).unwrap();
        let loss = (out.ys.to_dtype(wide).unwrap() * cot).unwrap().sum_all().unwrap();
        let grads = crate::backward(&loss).unwrap();
        let mut all = vec![out.ys.detach(), out.mean, out.var];
        all.extend(
            [&xs, &params[0], &params[1], &params[2], &residual].map(|v| grads.get(v).unwrap().clone()),
        );
        all.into_iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect()
    }

    #[test]
    fn the_form_of_devices_has_the_values_and_gradients_of_the_cpu() {
        let exact = run(DType::F64);
        for (i, (a, b)) in without_cpu_kernels(|| run(DType::F64)).iter().zip(&exact).enumerate() {
            assert_close(&format!("{i}"), a, b, Tolerance { rel: 1e-9, abs: 1e-9 });
        }
    }

    #[test]
    fn half_types_are_near_and_their_parameters_stay_wide() {
        let exact = run(DType::F64);
        for (i, (a, b)) in without_cpu_kernels(|| run(DType::BF16)).iter().zip(&exact).enumerate() {
            let size = |t: &Tensor| t.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
            let error = size(&(a - b).unwrap()) / size(b);
            // Eight bits of mantissa, several times.
            assert!(error < 0.03 && (i == 1 || error > 0.0), "{i}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let t = |dims: &[usize], dtype| spread(dims, 1, 1.0).to_dtype(dtype).unwrap();
        let (w, one) = (t(&[5, 3, 3, 3], DType::F32), t(&[5], DType::F32));
        let call = |xs: &Tensor, scale: &Tensor| {
            conv_norm_train(xs, [&w, scale, &one], None, Conv2dConfig::default(), 1e-5, Activation::None)
        };
        assert!(call(&t(&[2, 3, 4, 4], DType::BF16), &one).is_ok());
        assert!(call(&t(&[2, 4, 4, 4], DType::BF16), &one).is_err());
        assert!(call(&t(&[2, 3, 4, 4], DType::BF16), &t(&[4], DType::F32)).is_err());
        assert!(call(&t(&[2, 3, 4, 4], DType::F64), &one).is_err());
    }
}
