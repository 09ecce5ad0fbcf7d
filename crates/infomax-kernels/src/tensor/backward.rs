//! The backward pass of Candle, without its passes over the gradients of parameters.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::cell::RefCell;
use std::collections::HashSet;

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
    walk(loss, None)
}

/// What [`backward_telling`] tells.
#[derive(Debug)]
pub enum Told<'a> {
    /// An operation of this crate has the gradient of a variable; where the variable is used more often there are more parts,
    /// and the gradient is their sum in the order in which they are told.
    Part {
        /// The variable.
        variable: &'a Tensor,
        /// What is added to its gradient.
        grad: &'a Tensor,
    },
    /// An operation of Candle's own gave a part of this variable's gradient, too; it is told at the end, when that is seen.
    Mixed {
        /// The variable.
        variable: &'a Tensor,
    },
}

/// [`backward`] that tells of the gradients of variables while it runs, so that something can be done with them before it
/// ends: sums over the ranks of a data-parallel run. The result is that of [`backward`], which holds all gradients, also those of
/// variables that only operations of Candle's own use and that are told of by nobody.
///
/// # Errors
/// Those of [`backward`].
pub fn backward_telling(
    loss: &Tensor,
    tell: impl FnMut(Told<'_>) + 'static,
) -> candle_core::Result<GradStore> {
    walk(loss, Some(Box::new(tell)))
}

fn walk(loss: &Tensor, tell: Option<Teller>) -> candle_core::Result<GradStore> {
    let collecting = Collecting::start(tell);
    let mut grads = loss.backward()?;
    let (given, tell) = collecting.stop();
    if let Some(mut tell) = tell {
        // Before the parts are put in, what the store holds is Candle's.
        let mut seen = HashSet::new();
        for (variable, _) in &given {
            if seen.insert(variable.id()) && grads.get(variable).is_some() {
                tell(Told::Mixed { variable });
            }
        }
    }
    for (variable, grad) in given {
        let sum = match grads.remove(&variable) {
            Some(before) => (before + grad)?,
            None => grad,
        };
        grads.insert(&variable, sum);
    }
    Ok(grads)
}

type Teller = Box<dyn FnMut(Told<'_>)>;

/// Variables and their gradients, in the order in which they came.
type Given = Vec<(Tensor, Tensor)>;

thread_local! {
    /// Where gradients are to go; nowhere outside of [`backward`]. Candle's backward pass runs on one thread.
    static GIVEN: RefCell<Option<Given>> = const { RefCell::new(None) };
    /// Who is told.
    static TELLER: RefCell<Option<Teller>> = const { RefCell::new(None) };
}

/// The gradient for Candle to add to `arg`, or nothing if [`backward`] took it. It must not share its memory with
/// another tensor, since whoever gets the gradients may change them in place.
pub(crate) fn hand(arg: &Tensor, grad: Tensor) -> Option<Tensor> {
    if !arg.is_variable() {
        return Some(grad);
    }
    if GIVEN.with_borrow(Option::is_none) {
        return Some(grad);
    }
    TELLER.with_borrow_mut(|teller| {
        if let Some(tell) = teller {
            tell(Told::Part { variable: arg, grad: &grad });
        }
    });
    GIVEN.with_borrow_mut(|given| given.get_or_insert_default().push((arg.clone(), grad)));
    None
}

/// Lets the CUDA operations hand over gradients as those of this crate do.
#[cfg(feature = "cuda")]
pub(crate) fn collect_on_cuda() {
    infomax_cuda::collect_gradients(hand);
}

/// Puts back what was there before, also when an operation fails or panics.
struct Collecting {
    outer: Option<Given>,
    teller: Option<Teller>,
}

impl Collecting {
    fn start(tell: Option<Teller>) -> Self {
        Self { outer: GIVEN.replace(Some(Vec::new())), teller: TELLER.replace(tell) }
    }

    fn stop(self) -> (Given, Option<Teller>) {
        (GIVEN.with_borrow_mut(Option::take).unwrap_or_default(), TELLER.take())
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        GIVEN.set(self.outer.take());
        TELLER.set(self.teller.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Elementwise, FeedForward, Result, feed_forward, linear};
    use candle_core::{DType, Device, TensorId, Var};
    use std::rc::Rc;

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

    /// The parts make the whole, in their order; what Candle has a part in is named; what it has alone is not told.
    #[test]
    fn what_is_told_is_the_gradient() {
        let (once, twice, mixed, alone) =
            (var(&[4, 4]).unwrap(), var(&[4, 4]).unwrap(), var(&[4, 4]).unwrap(), var(&[4, 4]).unwrap());
        let xs = var(&[3, 4]).unwrap().detach();
        let ys = [&once, &twice, &twice, &mixed]
            .iter()
            .fold(xs, |xs, weight| linear(&xs, weight, None).unwrap().tanh().unwrap());
        let squares = |v: &Var| v.sqr().unwrap().sum_all().unwrap();
        let loss =
            ((ys.sqr().unwrap().sum_all().unwrap() + squares(&mixed)).unwrap() + squares(&alone)).unwrap();
        let parts: Rc<RefCell<Vec<(TensorId, Tensor)>>> = Rc::default();
        let late: Rc<RefCell<Vec<TensorId>>> = Rc::default();
        let (told, mixes) = (parts.clone(), late.clone());
        let grads = backward_telling(&loss, move |what| match what {
            Told::Part { variable, grad } => told.borrow_mut().push((variable.id(), grad.clone())),
            Told::Mixed { variable } => mixes.borrow_mut().push(variable.id()),
        })
        .unwrap();
        assert_eq!(*late.borrow(), [mixed.id()]);
        let of = |v: &Var| -> Vec<Tensor> {
            parts.borrow().iter().filter(|(id, _)| *id == v.id()).map(|(_, g)| g.clone()).collect()
        };
        assert_eq!([&once, &twice, &mixed, &alone].map(|v| of(v).len()), [1, 2, 1, 0]);
        for v in [&once, &twice] {
            let sum = of(v).into_iter().reduce(|a, b| (a + b).unwrap()).unwrap();
            assert_eq!(
                sum.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                values(&grads, v),
                "the same bits"
            );
        }
        assert!(grads.get(&alone).is_some() && grads.get(&mixed).is_some());
        assert!(TELLER.with_borrow(Option::is_none) && GIVEN.with_borrow(Option::is_none));
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let weight = var(&[3, 3]).unwrap();
        let xs = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
        // An operation of Candle without a backward form, above one of ours.
        let loss = linear(&xs, &weight, None).unwrap().apply_op1(NoBackward).unwrap().sum_all().unwrap();
        assert!(backward(&loss).is_err());
        assert!(GIVEN.with_borrow(Option::is_none));
        assert!(backward_telling(&loss, |_| {}).is_err());
        assert!(TELLER.with_borrow(Option::is_none));
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
