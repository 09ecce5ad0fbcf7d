//! Results as nodes of Candle's graph: a value that is already computed, and a function for its gradients.

use crate::launch::{empty, tensor};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor, bail,
};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// The gradients of `N` arguments.
pub(crate) type Grads<const N: usize> = candle_core::Result<[Option<Tensor>; N]>;

/// Takes the gradient of a variable, or gives it back.
type Take = fn(&Tensor, Tensor) -> Option<Tensor>;

static TAKE: OnceLock<Take> = OnceLock::new();

/// Lets `take` have the gradients of variables in the place of Candle, which adds each to fresh zeros. What it gives back
/// goes to Candle. No gradient that it gets shares its memory with another tensor. The first call holds for the process.
pub fn collect_gradients(take: Take) {
    TAKE.get_or_init(|| take);
}

fn hand(arg: &Tensor, grad: Option<Tensor>) -> Option<Tensor> {
    match (TAKE.get(), grad) {
        (Some(take), Some(grad)) if arg.is_variable() => take(arg, grad),
        (_, grad) => grad,
    }
}

/// A value with its backward function, which gets the arguments, the result, and its contiguous gradient.
struct Node<B> {
    name: &'static str,
    value: Mutex<Option<(CudaStorage, Shape)>>,
    back: B,
}

impl<B> Node<B> {
    fn new(name: &'static str, value: CudaStorage, shape: Shape, back: B) -> Self {
        Self { name, value: Mutex::new(Some((value, shape))), back }
    }

    fn take(&self) -> candle_core::Result<(CudaStorage, Shape)> {
        match self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("{}: the value was taken before", self.name),
        }
    }

    fn no_cpu(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        bail!("{}: this operation is for CUDA devices", self.name)
    }
}

/// `value` as a function of `a`.
pub(crate) fn node1<B>(
    name: &'static str,
    a: &Tensor,
    value: CudaStorage,
    shape: impl Into<Shape>,
    back: B,
) -> candle_core::Result<Tensor>
where
    B: Fn([&Tensor; 1], &Tensor, &Tensor) -> Grads<1> + Send + Sync + 'static,
{
    if !a.track_op() {
        return Ok(tensor(value, shape));
    }
    a.apply_op1(Node::new(name, value, shape.into(), back))
}

/// `value` as a function of `a` and `b`.
pub(crate) fn node2<B>(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    value: CudaStorage,
    shape: impl Into<Shape>,
    back: B,
) -> candle_core::Result<Tensor>
where
    B: Fn([&Tensor; 2], &Tensor, &Tensor) -> Grads<2> + Send + Sync + 'static,
{
    if !a.track_op() && !b.track_op() {
        return Ok(tensor(value, shape));
    }
    a.apply_op2(b, Node::new(name, value, shape.into(), back))
}

/// `value` as a function of `a`, `b` and `c`.
pub(crate) fn node3<B>(
    name: &'static str,
    [a, b, c]: [&Tensor; 3],
    value: CudaStorage,
    shape: impl Into<Shape>,
    back: B,
) -> candle_core::Result<Tensor>
where
    B: Fn([&Tensor; 3], &Tensor, &Tensor) -> Grads<3> + Send + Sync + 'static,
{
    if !a.track_op() && !b.track_op() && !c.track_op() {
        return Ok(tensor(value, shape));
    }
    a.apply_op3(b, c, Node::new(name, value, shape.into(), back))
}

impl<B> CustomOp1 for Node<B>
where
    B: Fn([&Tensor; 1], &Tensor, &Tensor) -> Grads<1>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.no_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, a: &Tensor, res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [da] = (self.back)([a], res, &grad.contiguous()?)?;
        Ok(hand(a, da))
    }
}

impl<B> CustomOp2 for Node<B>
where
    B: Fn([&Tensor; 2], &Tensor, &Tensor) -> Grads<2>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.no_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [da, db] = (self.back)([a, b], res, &grad.contiguous()?)?;
        Ok((hand(a, da), hand(b, db)))
    }
}

impl<B> CustomOp3 for Node<B>
where
    B: Fn([&Tensor; 3], &Tensor, &Tensor) -> Grads<3>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.no_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [da, db, dc] = (self.back)([a, b, c], res, &grad.contiguous()?)?;
        Ok((hand(a, da), hand(b, db), hand(c, dc)))
    }
}

/// Parameters that hang on an operation of their own, whose result is one element: the token. A custom operation takes
/// three arguments at most; one with more takes the token in the place of its parameters, leaves their gradients here,
/// and Candle, which visits the token afterwards, adds them to the parameters.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// The token; a constant if nothing here needs a gradient.
    pub(crate) token: Tensor,
    mail: Mail,
}

/// Gradients between the two operations; a backward pass runs on one thread.
type Mail = Arc<Mutex<Vec<(ThreadId, Vec<Tensor>)>>>;

impl Parameters {
    /// Hangs up to three tensors, f32, on a token on the device.
    pub(crate) fn new(tensors: &[&Tensor], device: &CudaDevice) -> candle_core::Result<Self> {
        let mail = Mail::default();
        let value = empty(device, DType::F32, 1)?;
        let taken = Arc::clone(&mail);
        let take = move || {
            let mut all = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let own = thread::current().id();
            match all.iter().position(|(thread, _)| *thread == own) {
                Some(at) => Ok(all.swap_remove(at).1),
                None => bail!("parameters: no operation left gradients for them"),
            }
        };
        const NAME: &str = "parameters";
        let token = match *tensors {
            [] => tensor(value, 1),
            [a] => node1(NAME, a, value, 1, move |_, _, _| take()?.some())?,
            [a, b] => node2(NAME, [a, b], value, 1, move |_, _, _| take()?.some())?,
            [a, b, c] => node3(NAME, [a, b, c], value, 1, move |_, _, _| take()?.some())?,
            _ => bail!("parameters: three tensors at most, got {}", tensors.len()),
        };
        Ok(Self { token, mail })
    }

    /// Leaves the gradients, in the order of the tensors, and returns that of the token.
    pub(crate) fn give(&self, grads: Vec<Tensor>) -> candle_core::Result<Option<Tensor>> {
        if !self.token.track_op() {
            return Ok(None);
        }
        let mut all = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        all.retain(|(thread, _)| *thread != own);
        all.push((own, grads));
        Ok(Some(Tensor::zeros(1, DType::F32, self.token.device())?))
    }
}

/// As many gradients as there are arguments.
trait AsMany<const N: usize> {
    fn some(self) -> Grads<N>;
}

impl<const N: usize> AsMany<N> for Vec<Tensor> {
    fn some(self) -> Grads<N> {
        let count = self.len();
        match <[Tensor; N]>::try_from(self) {
            Ok(grads) => Ok(grads.map(Some)),
            Err(_) => bail!("parameters: {count} gradients for {N} tensors"),
        }
    }
}
