//! Operations of two tensors and a third one that may be missing: a bias, a residual.
//!
//! To Candle these are two kinds of custom operation; here each is written once.

use crate::Result;
use crate::tensor::backward::hand;
use crate::tensor::storage::contiguous;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};

/// A tensor as a custom operation gets it.
pub(crate) type Argument<'a> = (&'a CpuStorage, &'a Layout);

/// Forward and backward of such an operation.
pub(crate) trait Optional: Send + Sync + 'static {
    const NAME: &'static str;

    fn run(
        &self,
        a: Argument<'_>,
        b: Argument<'_>,
        c: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)>;

    /// The gradients of the arguments from `grad`, the contiguous one of the result `ys`; that of a missing
    /// argument is not looked at.
    fn grads(
        &self,
        args: (&Tensor, &Tensor, Option<&Tensor>),
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]>;
}

/// Applies the operation; `a` and `b` as they are, `c` contiguous.
pub(crate) fn apply<F: Optional>(a: &Tensor, b: &Tensor, c: Option<&Tensor>, op: F) -> Result<Tensor> {
    Ok(match c {
        Some(c) => a.apply_op3(b, &contiguous(c)?, Op(op))?,
        None => a.apply_op2(b, Op(op))?,
    })
}

struct Op<F>(F);

impl<F: Optional> CustomOp2 for Op<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.run((s1, l1), (s2, l2), None)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [da, db, _] = self.0.grads((a, b, None), ys, &grad.contiguous()?)?;
        Ok((da, db.and_then(|grad| hand(b, grad))))
    }
}

impl<F: Optional> CustomOp3 for Op<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.run((s1, l1), (s2, l2), Some((s3, l3)))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [da, db, dc] = self.0.grads((a, b, Some(c)), ys, &grad.contiguous()?)?;
        Ok((da, db.and_then(|grad| hand(b, grad)), dc))
    }
}
