//! The backward pass of Candle, without its passes over the gradients of parameters.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::cell::RefCell;

/// `loss.backward()`, without its passes over the gradients of parameters: the same gradients, some percent sooner where
/// parameters are larger than what passes through them.
///
/// Candle writes a tensor of zeros for each variable and adds the gradient to it, on one thread. Here the operations
/// of this crate (linear maps, convolutions in blocks, residual units, attention and feed-forward layers) put the
/// gradients of variables into the store themselves: the first as it is, later ones are added. All other operations
/// are Candle's business as before, and `loss.backward()` stays right.
///
/// # Numerics
/// As `loss.backward()`, but for the sign of zeros, and but for the order of the sum where a variable is used more than
/// twice. The same bits in every run.
///
/// # Errors
/// Those of `loss.backward()`.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// # fn main() -> infomax_kernels::Result<()> {
/// let weight = Var::ones((4, 3), DType::F32, &Device::Cpu)?;
/// let xs = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let loss = infomax_kernels::linear(&xs, &weight, None)?.sum_all()?;
/// let grads = infomax_kernels::backward(&loss)?;
/// assert_eq!(grads.get(&weight).map(|g| g.dims().to_vec()), Some(vec![4, 3]));
/// # Ok(())
/// # }
/// ```
pub fn backward(loss: &Tensor) -> candle_core::Result<GradStore> {
    let collecting = Collecting::start();
    let mut grads = loss.backward()?;
    for (variable, grad) in collecting.stop() {
        let sum = match grads.remove(&variable) {
            Some(before) => (before + grad)?,
            None => grad,
        };
        grads.insert(&variable, sum);
    }
    Ok(grads)
}

/// Variables and their gradients, in the order in which they came.
type Given = Vec<(Tensor, Tensor)>;

thread_local! {
    /// Where gradients are to go; nowhere outside of [`backward`]. Candle's backward pass runs on one thread.
    static GIVEN: RefCell<Option<Given>> = const { RefCell::new(None) };
}

/// The gradient for Candle to add to `arg`, or nothing if [`backward`] took it. It must not share its memory with
/// another tensor, since whoever gets the gradients may change them in place.
pub(crate) fn hand(arg: &Tensor, grad: Tensor) -> Option<Tensor> {
    if !arg.is_variable() {
        return Some(grad);
    }
    GIVEN.with_borrow_mut(|given| match given {
        Some(given) => {
            given.push((arg.clone(), grad));
            None
        }
        None => Some(grad),
    })
}

/// Lets the CUDA operations hand over gradients as those of this crate do.
#[cfg(feature = "cuda")]
pub(crate) fn collect_on_cuda() {
    infomax_cuda::collect_gradients(hand);
}

/// Puts back what was there before, also when an operation fails or panics.
struct Collecting {
    outer: Option<Given>,
}

impl Collecting {
    fn start() -> Self {
        Self { outer: GIVEN.replace(Some(Vec::new())) }
    }

    fn stop(self) -> Given {
        GIVEN.with_borrow_mut(Option::take).unwrap_or_default()
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        GIVEN.set(self.outer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Elementwise, FeedForward, Result, feed_forward, linear};
    use candle_core::{DType, Device, Var};

    fn var(shape: &[usize]) -> Result<Var> {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|i| ((i * 37 + 11) % 101) as f64 / 101.0 - 0.4).collect();
        Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
    }

    fn values(grads: &GradStore, var: &Var) -> Vec<f64> {
        grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A weight that is used by two operations of this crate and by one of Candle, a feed-forward layer, and a
    /// variable that only Candle sees.
    #[test]
    fn the_gradients_of_candle() {
        let (d, h) = (6, 8);
        let (weight, other) = (var(&[d, d]).unwrap(), var(&[5, d]).unwrap());
        let small = [&[d][..], &[d], &[h, d], &[h], &[d, h], &[d]].map(|shape| var(shape).unwrap());
        let loss = || -> Result<Tensor> {
            let [norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias] =
                small.each_ref().map(|v| v.as_tensor());
            let act = Elementwise::Gelu;
            let p = FeedForward {
                norm_weight,
                norm_bias,
                eps: 1e-5,
                in_weight,
                in_bias,
                act,
                out_weight,
                out_bias,
                scale: None,
            };
            let ys = linear(&linear(&other, &weight, None)?, &weight, None)?;
            let ys = feed_forward(&ys, &p, None)?;
            Ok((ys.sqr()?.sum_all()? + weight.sqr()?.sum_all()?)?)
        };
        let (ours, theirs) = (backward(&loss().unwrap()).unwrap(), loss().unwrap().backward().unwrap());
        assert!(GIVEN.with_borrow(Option::is_none));
        for var in small.iter().chain([&weight, &other]) {
            let pairs = values(&ours, var).into_iter().zip(values(&theirs, var));
            for (a, b) in pairs {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} is not {b}");
            }
        }
        assert_eq!(ours.get_ids().count(), theirs.get_ids().count());
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let weight = var(&[3, 3]).unwrap();
        let xs = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
        // An operation of Candle without a backward form, above one of ours.
        let loss = linear(&xs, &weight, None).unwrap().apply_op1(NoBackward).unwrap().sum_all().unwrap();
        assert!(backward(&loss).is_err());
        assert!(GIVEN.with_borrow(Option::is_none));
    }

    struct NoBackward;

    impl candle_core::CustomOp1 for NoBackward {
        fn name(&self) -> &'static str {
            "no-backward"
        }

        fn cpu_fwd(
            &self,
            storage: &candle_core::CpuStorage,
            layout: &candle_core::Layout,
        ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
            Ok((storage.clone(), layout.shape().clone()))
        }
    }
}
