//! Gradients for more tensors than a custom operation of Candle takes.
//!
//! Such an operation has three arguments at most. Joining parameters into one tensor costs a copy in the
//! forward pass, and in the backward pass another ten passes over tensors as large as the weights: Candle adds
//! the gradient of every intermediate tensor to fresh zeros. Here the parameters hang on an operation of their
//! own, whose result is one element: the token. The operation that uses them takes the token as an argument,
//! leaves their gradients in a place that both know, and Candle, which visits the token afterwards, adds them
//! to the parameters directly.

use crate::Result;
use crate::tensor::backward::hand;
use crate::tensor::storage::{contiguous, from_storage, owned};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor, bail};
use infomax_simd::Float;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

/// Three parameters, contiguous.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) tensors: [Tensor; 3],
    grads: Grads,
}

/// Gradients between the two operations; a backward pass runs on one thread. An empty one is left out.
type Grads = Arc<Mutex<Vec<(ThreadId, [CpuStorage; 3])>>>;

impl Parameters {
    /// The parameters, and the token that stands for them.
    pub(crate) fn new(tensors: [&Tensor; 3]) -> Result<(Self, Tensor)> {
        let [a, b, c] = tensors;
        let [a, b, c] = [contiguous(a)?, contiguous(b)?, contiguous(c)?];
        let grads = Grads::default();
        let token = a.apply_op3(&b, &c, Attach(Arc::clone(&grads)))?;
        Ok((Self { tensors: [a, b, c], grads }, token))
    }

    /// Leaves the gradients for Candle to find; an empty one stands for none. They must be there before Candle
    /// comes to the token, if that is part of a graph.
    pub(crate) fn leave<T: Float>(&self, grads: [Vec<T>; 3]) {
        let mut all = self.grads.lock().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        all.retain(|(thread, _)| *thread != own);
        all.push((own, grads.map(owned)));
    }

    /// [`Parameters::leave`], and the gradient of the token, where there are gradients.
    pub(crate) fn give<T: Float>(
        &self,
        token: &Tensor,
        grads: Option<[Vec<T>; 3]>,
    ) -> candle_core::Result<Option<Tensor>> {
        let Some(grads) = grads else { return Ok(None) };
        self.leave(grads);
        Ok(Some(token.zeros_like()?))
    }
}

struct Attach(Grads);

impl CustomOp3 for Attach {
    fn name(&self) -> &'static str {
        "parameters"
    }

    fn cpu_fwd(
        &self,
        s: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(vec![0.0]),
            _ => CpuStorage::F32(vec![0.0]),
        };
        Ok((storage, Shape::from(1)))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        let Some(at) = all.iter().position(|(thread, _)| *thread == own) else {
            bail!("parameters: no operation left gradients for them");
        };
        let (_, [da, db, dc]) = all.swap_remove(at);
        drop(all);
        let give = |arg: &Tensor, grad: CpuStorage| -> candle_core::Result<Option<Tensor>> {
            match arg.track_op() && elements_in(&grad) > 0 {
                true => Ok(hand(arg, from_storage(grad, arg.shape())?)),
                false => Ok(None),
            }
        };
        Ok((give(a, da)?, give(b, db)?, give(c, dc)?))
    }
}

fn elements_in(storage: &CpuStorage) -> usize {
    match storage {
        CpuStorage::F32(values) => values.len(),
        CpuStorage::F64(values) => values.len(),
        _ => 0,
    }
}
