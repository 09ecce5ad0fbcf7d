//! Cross-entropy of rows of logits: one pass each way.

use crate::graph::{node1, node2};
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, tensor};
use crate::moments::{each, f32_only};
use crate::{Error, Result};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};

/// The mean cross-entropy of f32 `logits` `(N, K)` against `labels`, a scalar in nats, with the target `1 - e` at the label
/// plus `e / K` everywhere for a label smoothing `e`.
///
/// # Gradient
/// `g / N (softmax(x) - target)`.
///
/// # Numerics
/// f32 within a row, the maximum taken off first also in the loss, so that large logits do no harm; rows are added in f64 in a fixed order.
///
/// # Errors
/// Logits that are not an f32 matrix with elements on a CUDA device; labels of another number or beyond the classes; a
/// smoothing outside of `0..=1`.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], label_smoothing: f64) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let (rows, logits) = Rows::new(OP, logits)?;
    let refuse = |name, value, reason| Err(Error::Config { op: OP, name, value, reason });
    if labels.len() != rows.count {
        let value = format!("{} labels for {} rows", labels.len(), rows.count);
        return refuse("labels", value, "must be one for each row of the logits");
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= rows.width) {
        let value = format!("{label} of {} classes", rows.width);
        return refuse("labels", value, "must be smaller than the number of classes");
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return refuse("label_smoothing", label_smoothing.to_string(), "must be between 0 and 1");
    }
    let labels = Tensor::from_slice(labels, labels.len(), logits.device())?;
    let smoothing = label_smoothing as f32;
    let (value, kept) = rows.forward(&logits, None, Some(&labels), smoothing)?;
    Ok(node1(OP, &logits, value, (), move |[x], _, g| {
        let mut dx = empty(&rows.device, DType::F32, x.elem_count())?;
        rows.backward([x, g], None, Some(&labels), &kept, [Some(&mut dx), None], smoothing)?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

/// The mean cross-entropy of f32 `logits` `(N, K)` against the distributions `targets` `(N, K)`, a scalar in nats:
/// `mean_n sum_k t (ln sum exp x - x)`. A target of 0 has no part, also where its logit is minus infinity.
///
/// # Gradient
/// `g / N (softmax(x) sum(t) - t)`, and of the targets `g / N (ln sum exp x - x)`.
///
/// # Errors
/// As [`cross_entropy`], and targets of another shape or type.
pub fn cross_entropy_soft(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "cross_entropy_soft";
    let (rows, logits) = Rows::new(OP, logits)?;
    if targets.dims() != logits.dims() {
        let expected = format!("of the shape {:?} of the logits", logits.dims());
        return Err(Error::Shape { op: OP, name: "targets", expected, got: targets.dims().to_vec() });
    }
    f32_only(OP, "targets", targets)?;
    device(OP, "targets", targets)?;
    let targets = contiguous(targets)?;
    let (value, kept) = rows.forward(&logits, Some(&targets), None, 0.0)?;
    Ok(node2(OP, [&logits, &targets], value, (), move |[x, t], _, g| {
        let room = |tensor: &Tensor| match tensor.track_op() {
            true => Ok::<_, candle_core::Error>(Some(empty(&rows.device, DType::F32, x.elem_count())?)),
            false => Ok(None),
        };
        let (mut dx, mut dt) = (room(x)?, room(t)?);
        rows.backward([x, g], Some(t), None, &kept, [dx.as_mut(), dt.as_mut()], 0.0)?;
        Ok([dx.map(|dx| tensor(dx, x.shape())), dt.map(|dt| tensor(dt, t.shape()))])
    })?)
}

/// The rows of the logits.
#[derive(Clone, Debug)]
struct Rows {
    device: CudaDevice,
    count: usize,
    width: usize,
}

/// The maximum of each row and the logarithm of the sum below it, and the sum of its targets.
struct Kept {
    logs: Tensor,
    masses: Tensor,
}

impl Rows {
    fn new(op: &'static str, logits: &Tensor) -> Result<(Self, Tensor)> {
        let (count, width) = match *logits.dims() {
            [n, k] if n > 0 && k > 0 => (n, k),
            _ => {
                let expected = "a matrix with elements".into();
                return Err(Error::Shape { op, name: "logits", expected, got: logits.dims().to_vec() });
            }
        };
        f32_only(op, "logits", logits)?;
        let device = device(op, "logits", logits)?;
        count32(op, "rows", count)?;
        count32(op, "classes", width)?;
        Ok((Self { device, count, width }, contiguous(logits)?))
    }

    fn sizes<'a>(&self, smoothing: f32) -> [Arg<'a>; 3] {
        [Arg::U32(self.count as u32), Arg::U32(self.width as u32), Arg::F32(smoothing)]
    }

    fn launch(&self, name: &str, args: Vec<Arg<'_>>) -> candle_core::Result<()> {
        launch(&self.device, Module::CrossEntropy, name, Grid::rows(self.count, self.width), args)
    }

    fn forward(
        &self,
        x: &Tensor,
        targets: Option<&Tensor>,
        labels: Option<&Tensor>,
        smoothing: f32,
    ) -> candle_core::Result<(CudaStorage, Kept)> {
        let room = |count| empty(&self.device, DType::F32, count);
        let (mut losses, mut logs, mut masses) =
            (room(self.count)?, room(2 * self.count)?, room(self.count)?);
        let mut args = vec![
            Arg::Read(x),
            Arg::Maybe(targets),
            Arg::Maybe(labels),
            Arg::Write(&mut losses),
            Arg::Write(&mut logs),
            Arg::Write(&mut masses),
        ];
        args.extend(self.sizes(smoothing));
        self.launch("entropy_forward", args)?;
        let losses = tensor(losses, self.count);
        let mut mean = empty(&self.device, DType::F32, 1)?;
        let args = vec![Arg::Read(&losses), Arg::Write(&mut mean), Arg::U32(self.count as u32)];
        launch(&self.device, Module::CrossEntropy, "entropy_mean", each(1), args)?;
        Ok((mean, Kept { logs: tensor(logs, (self.count, 2)), masses: tensor(masses, self.count) }))
    }

    fn backward(
        &self,
        [x, g]: [&Tensor; 2],
        targets: Option<&Tensor>,
        labels: Option<&Tensor>,
        kept: &Kept,
        [dx, dt]: [Option<&mut CudaStorage>; 2],
        smoothing: f32,
    ) -> candle_core::Result<()> {
        let mut args = vec![
            Arg::Read(x),
            Arg::Maybe(targets),
            Arg::Maybe(labels),
            Arg::Read(&kept.logs),
            Arg::Read(&kept.masses),
            Arg::Read(g),
            Arg::MaybeWrite(dx),
            Arg::MaybeWrite(dt),
        ];
        args.extend(self.sizes(smoothing));
        self.launch("entropy_backward", args)
    }
}
