//! Functions of rows, over the last dimension: norms, softmax, log-sum-exp.

use crate::graph::{Grads, node1, node2, node3};
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, suffix, tensor};
use crate::types::parts;
use crate::{Error, Result};
use candle_core::{CudaDevice, DType, Tensor};

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension `D`, with the biased variance
/// (arXiv:1607.06450). `weight` and `bias` `(D)`, f32 or of the type of `xs`, may be missing (1 and 0).
///
/// # Gradient
/// With `x^ = (x - mean) / sqrt(var + eps)` and `h = g weight`:
/// `dx = (h - mean(h) - x^ mean(h x^)) / sqrt(var + eps)`, `dweight = sum g x^`, `dbias = sum g`.
///
/// # Numerics
/// The mean first, then the centered moments, in f32; sums over rows in parts that depend on the shape alone.
///
/// # Errors
/// Shapes or types that do not fit; a tensor without elements; an `eps` that is not positive; a tensor that is not on
/// a CUDA device.
pub fn layer_norm(xs: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    norm("layer_norm", xs, weight, bias, eps, true)
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (arXiv:1910.07467); otherwise as [`layer_norm`].
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    norm("rms_norm", xs, weight, None, eps, false)
}

/// [`layer_norm`] of each of `groups` groups of channels of `(N, C)` or `(N, C, H, W)`; `weight` and `bias` are
/// `(C)`, of the type of `xs` (arXiv:1803.08494).
///
/// # Errors
/// As [`layer_norm`], or a number of groups that does not divide the channels.
pub fn group_norm(
    xs: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    const OP: &str = "group_norm";
    let (n, c, inner) = match *xs.dims() {
        [n, c] => (n, c, 1),
        [n, c, h, w] => (n, c, h * w),
        _ => {
            let expected = "(N, C) or (N, C, H, W)".into();
            return Err(Error::Shape { op: OP, name: "xs", expected, got: xs.dims().to_vec() });
        }
    };
    if groups == 0 || c % groups != 0 {
        let reason = "must divide the number of channels";
        return Err(Error::Config { op: OP, name: "groups", value: groups.to_string(), reason });
    }
    let rows = xs.reshape((n, groups, c / groups * inner))?;
    let mut ys = norm(OP, &rows, None, None, eps, true)?.reshape((n, c, inner))?;
    if let Some(weight) = weight {
        ys = ys.broadcast_mul(&weight.reshape((1, c, 1))?)?;
    }
    if let Some(bias) = bias {
        ys = ys.broadcast_add(&bias.reshape((1, c, 1))?)?;
    }
    Ok(ys.reshape(xs.shape())?)
}

/// `exp(x) / sum exp(x)` over the last dimension.
///
/// # Gradient
/// `dx = y (g - sum(g y))`.
///
/// # Numerics
/// The maximum is taken off first. A row of `-inf` only, or with NaN, gives NaN. bf16 is computed in f32.
///
/// # Errors
/// A scalar or a tensor without elements; another type than f32 or bf16; a tensor that is not on a CUDA device.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    softmax_of("softmax", xs, 0)
}

/// `x - ln sum exp(x)` over the last dimension.
///
/// # Gradient
/// `dx = g - exp(y) sum(g)`.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    softmax_of("log_softmax", xs, 1)
}

/// `ln sum exp(x)` over the last dimension `D`: `(.., D)` to `(..)`, in f32. A row of `-inf` gives `-inf`.
///
/// # Gradient
/// `dx = g exp(x - y)`; 0 where `y` is `-inf`.
///
/// # Errors
/// As [`softmax`].
pub fn log_sum_exp(xs: &Tensor) -> Result<Tensor> {
    const OP: &str = "log_sum_exp";
    let (rows, xs) = Rows::new(OP, xs)?;
    let mut ys = empty(&rows.device, DType::F32, rows.count)?;
    rows.launch("lse_forward", vec![Arg::Read(&xs), Arg::Write(&mut ys)], vec![])?;
    let shape = xs.dims()[..xs.rank() - 1].to_vec();
    Ok(node1(OP, &xs, ys, shape, move |[x], y, g| {
        let mut dx = empty(&rows.device, x.dtype(), x.elem_count())?;
        let io = vec![Arg::Read(x), Arg::Read(y), Arg::Read(g), Arg::Write(&mut dx)];
        rows.launch("lse_backward", io, vec![])?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

/// `x / max(|x|, eps)` over the last dimension.
///
/// # Gradient
/// `dx = (g - y sum(g y)) / |x|`; where `|x| <= eps` that of `x / eps`.
///
/// # Errors
/// As [`softmax`], or an `eps` that is not positive.
pub fn l2_normalize(xs: &Tensor, eps: f64) -> Result<Tensor> {
    const OP: &str = "l2_normalize";
    positive(OP, eps)?;
    let (rows, xs) = Rows::new(OP, xs)?;
    let mut ys = empty(&rows.device, xs.dtype(), xs.elem_count())?;
    let mut norms = empty(&rows.device, DType::F32, rows.count)?;
    let io = vec![Arg::Read(&xs), Arg::Write(&mut ys), Arg::Write(&mut norms)];
    rows.launch("unit_forward", io, vec![Arg::F32(eps as f32)])?;
    let norms = tensor(norms, rows.count);
    Ok(node1(OP, &xs, ys, xs.shape(), move |[x], _, g| {
        let mut dx = empty(&rows.device, x.dtype(), x.elem_count())?;
        let io = vec![Arg::Read(x), Arg::Read(&norms), Arg::Read(g), Arg::Write(&mut dx)];
        rows.launch("unit_backward", io, vec![])?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

fn softmax_of(op: &'static str, xs: &Tensor, logarithm: u32) -> Result<Tensor> {
    let (rows, xs) = Rows::new(op, xs)?;
    let mut ys = empty(&rows.device, xs.dtype(), xs.elem_count())?;
    let io = vec![Arg::Read(&xs), Arg::Write(&mut ys)];
    rows.launch("softmax_forward", io, vec![Arg::U32(logarithm)])?;
    Ok(node1(op, &xs, ys, xs.shape(), move |[x], y, g| {
        let mut dx = empty(&rows.device, x.dtype(), x.elem_count())?;
        let io = vec![Arg::Read(y), Arg::Read(g), Arg::Write(&mut dx)];
        rows.launch("softmax_backward", io, vec![Arg::U32(logarithm)])?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

fn positive(op: &'static str, eps: f64) -> Result<()> {
    if eps > 0.0 && eps.is_finite() {
        return Ok(());
    }
    let reason = "must be positive and finite";
    Err(Error::Config { op, name: "eps", value: eps.to_string(), reason })
}

/// The rows of a tensor.
#[derive(Clone, Debug)]
struct Rows {
    device: CudaDevice,
    suffix: &'static str,
    count: usize,
    width: usize,
}

impl Rows {
    /// The rows, and the tensor in order.
    fn new(op: &'static str, xs: &Tensor) -> Result<(Self, Tensor)> {
        let (suffix, device) = (suffix(op, xs)?, device(op, "xs", xs)?);
        let width = xs.dims().last().copied().unwrap_or(0);
        if width == 0 || xs.elem_count() == 0 {
            let expected = "of rank at least 1, with elements".into();
            return Err(Error::Shape { op, name: "xs", expected, got: xs.dims().to_vec() });
        }
        let count = xs.elem_count() / width;
        count32(op, "xs", count)?;
        count32(op, "xs", width)?;
        Ok((Self { device, suffix, count, width }, contiguous(xs)?))
    }

    /// Launches a kernel of rows: tensors, the sizes, more.
    fn launch<'a>(&self, name: &str, mut args: Vec<Arg<'a>>, more: Vec<Arg<'a>>) -> candle_core::Result<()> {
        args.extend([Arg::U32(self.count as u32), Arg::U32(self.width as u32)]);
        args.extend(more);
        let name = format!("{name}_{}", self.suffix);
        launch(&self.device, Module::Rows, &name, Grid::rows(self.count, self.width), args)
    }
}

fn norm(
    op: &'static str,
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
    center: bool,
) -> Result<Tensor> {
    positive(op, eps)?;
    let (rows, xs) = Rows::new(op, xs)?;
    let vector = |name: &'static str, v: Option<&Tensor>| -> Result<Option<Tensor>> {
        let Some(v) = v else { return Ok(None) };
        if v.dims() != [rows.width] {
            let expected = format!("({})", rows.width);
            return Err(Error::Shape { op, name, expected, got: v.dims().to_vec() });
        }
        Ok(Some(contiguous(&v.to_dtype(DType::F32)?)?))
    };
    let (weight, bias) = (vector("weight", weight)?, vector("bias", bias)?);
    let mut ys = empty(&rows.device, xs.dtype(), xs.elem_count())?;
    let mut means = empty(&rows.device, DType::F32, rows.count)?;
    let mut scales = empty(&rows.device, DType::F32, rows.count)?;
    rows.launch(
        "norm_forward",
        vec![
            Arg::Read(&xs),
            Arg::Maybe(weight.as_ref()),
            Arg::Maybe(bias.as_ref()),
            Arg::Write(&mut ys),
            Arg::Write(&mut means),
            Arg::Write(&mut scales),
        ],
        vec![Arg::U32(u32::from(center)), Arg::F32(eps as f32)],
    )?;
    let (means, scales) = (tensor(means, rows.count), tensor(scales, rows.count));
    let back = NormBack { rows, means, scales, center };
    Ok(match (&weight, &bias) {
        (Some(w), Some(b)) => node3(op, [&xs, w, b], ys, xs.shape(), move |[x, w, b], _, g| {
            let [dx, dw, db] = back.run(x, Some(w), w.track_op() || b.track_op(), g)?;
            Ok([dx, dw, db])
        })?,
        (Some(w), None) => node2(op, [&xs, w], ys, xs.shape(), move |[x, w], _, g| {
            let [dx, dw, _] = back.run(x, Some(w), w.track_op(), g)?;
            Ok([dx, dw])
        })?,
        (None, Some(b)) => node2(op, [&xs, b], ys, xs.shape(), move |[x, b], _, g| {
            let [dx, _, db] = back.run(x, None, b.track_op(), g)?;
            Ok([dx, db])
        })?,
        (None, None) => node1(op, &xs, ys, xs.shape(), move |[x], _, g| {
            let [dx, _, _] = back.run(x, None, false, g)?;
            Ok([dx])
        })?,
    })
}

struct NormBack {
    rows: Rows,
    means: Tensor,
    scales: Tensor,
    center: bool,
}

impl NormBack {
    /// The gradients of the input, the scale and the shift.
    fn run(&self, xs: &Tensor, weight: Option<&Tensor>, parameters: bool, g: &Tensor) -> Grads<3> {
        let rows = &self.rows;
        let mut dx = None;
        if xs.track_op() {
            let mut out = empty(&rows.device, xs.dtype(), xs.elem_count())?;
            rows.launch(
                "norm_backward",
                vec![
                    Arg::Read(xs),
                    Arg::Maybe(weight),
                    Arg::Read(&self.means),
                    Arg::Read(&self.scales),
                    Arg::Read(g),
                    Arg::Write(&mut out),
                ],
                vec![Arg::U32(u32::from(self.center))],
            )?;
            dx = Some(tensor(out, xs.shape()));
        }
        if !parameters {
            return Ok([dx, None, None]);
        }
        let across = rows.width.div_ceil(32);
        let (count, per) = parts(rows.count, 32, (1024 / across).max(1));
        let mut sums = empty(&rows.device, DType::F32, 2 * count * rows.width)?;
        launch(
            &rows.device,
            Module::Rows,
            &format!("norm_columns_{}", rows.suffix),
            Grid { blocks: (across as u32, count as u32), threads: (32, 8) },
            vec![
                Arg::Read(xs),
                Arg::Read(&self.means),
                Arg::Read(&self.scales),
                Arg::Read(g),
                Arg::Write(&mut sums),
                Arg::U32(rows.count as u32),
                Arg::U32(rows.width as u32),
                Arg::U32(per as u32),
            ],
        )?;
        let sums = tensor(sums, 2 * count * rows.width);
        let mut both = empty(&rows.device, DType::F32, 2 * rows.width)?;
        launch(
            &rows.device,
            Module::Rows,
            "column_sums",
            Grid { blocks: (rows.width.div_ceil(256) as u32, 2), threads: (256, 1) },
            vec![
                Arg::Read(&sums),
                Arg::Write(&mut both),
                Arg::U32(rows.width as u32),
                Arg::U32(count as u32),
            ],
        )?;
        let both = tensor(both, (2, rows.width));
        // Copies: who gets a gradient may change it in place.
        Ok([dx, Some(both.get(1)?.copy()?), Some(both.get(0)?.copy()?)])
    }
}
