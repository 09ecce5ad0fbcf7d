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
use crate::tensor::storage::{contiguous, tensor};
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

/// Gradients between the two operations; a backward pass runs on one thread.
type Grads = Arc<Mutex<Vec<(ThreadId, [Tensor; 3])>>>;

impl Parameters {
    /// The parameters, and the token that stands for them.
    pub(crate) fn new(tensors: [&Tensor; 3]) -> Result<(Self, Tensor)> {
        let [a, b, c] = tensors;
        let [a, b, c] = [contiguous(a)?, contiguous(b)?, contiguous(c)?];
        let grads = Grads::default();
        let token = a.apply_op3(&b, &c, Attach(Arc::clone(&grads)))?;
        Ok((Self { tensors: [a, b, c], grads }, token))
    }

    /// Leaves the gradients for Candle to find, and returns that of the token. They must be there if the token
    /// is part of a graph.
    pub(crate) fn give<T: Float>(
        &self,
        token: &Tensor,
        values: Option<[Vec<T>; 3]>,
    ) -> candle_core::Result<Option<Tensor>> {
        let Some(values) = values else { return Ok(None) };
        let ([a, b, c], [x, y, z]) = (&self.tensors, values);
        let grads = [tensor(x, a.shape())?, tensor(y, b.shape())?, tensor(z, c.shape())?];
        let mut all = self.grads.lock().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        all.retain(|(thread, _)| *thread != own);
        all.push((own, grads));
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
        let give = |arg: &Tensor, grad| if arg.track_op() { hand(arg, grad) } else { None };
        Ok((give(a, da), give(b, db), give(c, dc)))
    }
}
