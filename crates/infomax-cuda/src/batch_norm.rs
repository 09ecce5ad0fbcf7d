//! Batch normalization, with the residual sum and the activation in the same pass.

use crate::graph::{Parameters, node2, node3};
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, pack, suffix, tensor};
use crate::types::parts;
use crate::{BatchNormOutput, Error, Images, Result};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};

/// Batch norm with the statistics of this batch: `ys = act((xs - mean) / sqrt(var + eps) * weight + bias + residual)`,
/// where `act` is ReLU or nothing.
///
/// `xs` is `(N, C)`, or `(N, C, H, W)`, or `(N, H, W, C)` with [`Images::ChannelsLast`], f32 or bf16; `mean` and the
/// biased `var` of each channel are taken over all other dimensions; `weight` and `bias` `(C)`, f32 or of the type of
/// `xs`, may be missing (1 and 0), and so may `residual`, of the shape and type of `xs`.
///
/// # Gradient
/// Through the statistics too. With `g = dys [ys > 0]` (or `dys` without activation) and
/// `x^ = (xs - mean) / sqrt(var + eps)`: `dbias = sum g`, `dweight = sum g x^`, `dresidual = g`,
/// `dxs = weight / sqrt(var + eps) (g - mean(g) - x^ mean(g x^))`.
///
/// # Numerics
/// Squares are summed around the mean of the first elements of a channel, in f32 by thread and in f64 between
/// threads, in an order that depends on the shape alone: the same bits in every run.
///
/// # Errors
/// Shapes or types that do not fit; a batch without elements or of 2^31 of them; an `eps` that is not positive; a
/// tensor that is not on a CUDA device.
pub fn batch_norm_train(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    relu: bool,
    images: Images,
) -> Result<BatchNormOutput> {
    const OP: &str = "batch_norm_train";
    let shape = Channels::of(OP, xs, residual, eps, images)?;
    let xs = contiguous(xs)?;
    let device = device(OP, "xs", &xs)?;
    let [mean, var, scale] = shape.moments(&device, &xs.detach(), eps)?;
    let count = shape.count();
    let norm = Norm { op: OP, shape, device, mean: mean.clone(), scale, relu, train: true };
    let ys = norm.apply(&xs, weight, bias, residual)?;
    Ok(BatchNormOutput { ys, mean, var, count })
}

/// Batch norm with given statistics, as in evaluation; otherwise like [`batch_norm_train`].
///
/// # Gradient
/// Of `xs`, `weight`, `bias` and `residual`; `mean` and `var` are constants.
///
/// # Errors
/// As [`batch_norm_train`].
pub fn batch_norm_eval(
    xs: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    relu: bool,
    images: Images,
) -> Result<Tensor> {
    const OP: &str = "batch_norm_eval";
    let shape = Channels::of(OP, xs, residual, eps, images)?;
    let xs = contiguous(xs)?;
    let device = device(OP, "xs", &xs)?;
    let mean = shape.column(OP, "mean", Some(&mean.detach()))?;
    let var = shape.column(OP, "var", Some(&var.detach()))?;
    let (Some(mean), Some(var)) = (mean, var) else {
        return Err(Error::Device { op: OP, name: "mean" });
    };
    let mut scale = empty(&device, DType::F32, shape.c)?;
    launch(
        &device,
        Module::BatchNorm,
        "scales_of",
        Grid { blocks: (shape.c.div_ceil(256) as u32, 1), threads: (256, 1) },
        vec![Arg::Read(&var), Arg::Write(&mut scale), Arg::U32(shape.c as u32), Arg::F64(eps)],
    )?;
    let scale = tensor(scale, shape.c);
    Norm { op: OP, shape, device, mean, scale, relu, train: false }.apply(&xs, weight, bias, residual)
}

/// A tensor as `(n, c, inner)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    n: usize,
    c: usize,
    inner: usize,
}

impl Channels {
    /// The values of each channel.
    pub(crate) fn count(&self) -> usize {
        self.n * self.inner
    }

    pub(crate) fn of(
        op: &'static str,
        xs: &Tensor,
        residual: Option<&Tensor>,
        eps: f64,
        images: Images,
    ) -> Result<Self> {
        suffix(op, xs)?;
        let (n, c, inner) = match (images, xs.dims()) {
            (_, &[n, c]) => (n, c, 1),
            (Images::ChannelsFirst, &[n, c, h, w]) => (n, c, h * w),
            (Images::ChannelsLast, &[n, h, w, c]) => (n * h * w, c, 1),
            (_, dims) => {
                let expected = "(N, C), or images of rank 4".into();
                return Err(Error::Shape { op, name: "xs", expected, got: dims.to_vec() });
            }
        };
        count32(op, "xs", xs.elem_count())?;
        if xs.elem_count() == 0 {
            let expected = "with elements".into();
            return Err(Error::Shape { op, name: "xs", expected, got: xs.dims().to_vec() });
        }
        if let Some(r) = residual {
            if r.dims() != xs.dims() {
                let expected = format!("{:?} like xs", xs.dims());
                return Err(Error::Shape { op, name: "residual", expected, got: r.dims().to_vec() });
            }
            if r.dtype() != xs.dtype() {
                let expected = "the type of xs";
                return Err(Error::DType { op, name: "residual", got: r.dtype(), expected });
            }
        }
        if !(eps > 0.0 && eps.is_finite()) {
            let reason = "must be positive and finite";
            return Err(Error::Config { op, name: "eps", value: eps.to_string(), reason });
        }
        Ok(Self { n, c, inner })
    }

    /// A vector of one number for each channel, as contiguous f32.
    pub(crate) fn column(
        &self,
        op: &'static str,
        name: &'static str,
        v: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let Some(v) = v else { return Ok(None) };
        if v.dims() != [self.c] {
            let expected = format!("({})", self.c);
            return Err(Error::Shape { op, name, expected, got: v.dims().to_vec() });
        }
        Ok(Some(contiguous(&v.to_dtype(DType::F32)?)?))
    }

    /// Elements of a channel.
    fn m(&self) -> usize {
        self.n * self.inner
    }

    /// The launch of sums for each channel, the number of parts, and the elements of a part.
    fn cut(&self, pack: usize) -> (Grid, usize, usize) {
        // About 1024 blocks, and no part so short that its start costs more than its sum.
        if self.inner == 1 {
            let lanes = if pack == 4 && self.c <= 64 { 16 } else { 32 };
            let across = self.c.div_ceil(lanes * pack);
            let (count, per) = parts(self.m(), 64, (1024 / across).max(1));
            let threads = (lanes as u32, 512 / lanes as u32);
            return (Grid { blocks: (across as u32, count as u32), threads }, count, per);
        }
        let (count, per) = parts(self.m(), 256 * pack, (1024 / self.c).max(1));
        (Grid { blocks: (self.c as u32, count as u32), threads: (256, 1) }, count, per)
    }

    /// Elements that a thread takes at once: neighbors of one plane, or of one row.
    fn pack(&self, tensors: &[Option<&Tensor>]) -> usize {
        let side = if self.inner == 1 { self.c } else { self.inner };
        if side.is_multiple_of(4) { pack(tensors) } else { 1 }
    }

    /// One warp for each channel.
    fn warps(&self) -> Grid {
        Grid { blocks: (self.c.div_ceil(8) as u32, 1), threads: (32, 8) }
    }

    /// Mean, biased variance and `1 / sqrt(var + eps)` of each channel.
    pub(crate) fn moments(&self, device: &CudaDevice, xs: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
        let suffix = suffix("batch_norm_train", xs)?;
        let pack = self.pack(&[Some(xs)]);
        let (grid, count, per) = self.cut(pack);
        let (m, c, inner) = (self.m() as u32, self.c as u32, self.inner as u32);
        let mut sums = empty(device, DType::F64, 2 * count * self.c)?;
        launch(
            device,
            Module::BatchNorm,
            &format!("moments_{suffix}_{pack}"),
            grid,
            vec![
                Arg::Read(xs),
                Arg::Write(&mut sums),
                Arg::U32(m),
                Arg::U32(c),
                Arg::U32(inner),
                Arg::U32(per as u32),
            ],
        )?;
        let sums = tensor(sums, 2 * count * self.c);
        let mut mean = empty(device, DType::F32, self.c)?;
        let mut var = empty(device, DType::F32, self.c)?;
        let mut scale = empty(device, DType::F32, self.c)?;
        launch(
            device,
            Module::BatchNorm,
            &format!("moments_finish_{suffix}"),
            self.warps(),
            vec![
                Arg::Read(xs),
                Arg::Read(&sums),
                Arg::Write(&mut mean),
                Arg::Write(&mut var),
                Arg::Write(&mut scale),
                Arg::U32(m),
                Arg::U32(c),
                Arg::U32(inner),
                Arg::U32(count as u32),
                Arg::F64(eps),
            ],
        )?;
        Ok([mean, var, scale].map(|storage| tensor(storage, self.c)))
    }
}

/// A normalization with known statistics.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) op: &'static str,
    pub(crate) shape: Channels,
    pub(crate) device: CudaDevice,
    pub(crate) mean: Tensor,
    /// `1 / sqrt(var + eps)`.
    pub(crate) scale: Tensor,
    pub(crate) relu: bool,
    /// The statistics are those of the input.
    pub(crate) train: bool,
}

/// The gradients of a normalization.
pub(crate) struct NormGrads {
    /// That of the input, if it was asked for.
    pub(crate) input: Option<Tensor>,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// That of the residual, if it was asked for.
    pub(crate) residual: Option<Tensor>,
}

impl Norm {
    /// As a node of the graph.
    fn apply(
        self,
        xs: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let weight = self.shape.column(self.op, "weight", weight)?;
        let bias = self.shape.column(self.op, "bias", bias)?;
        let residual = residual.map(contiguous).transpose()?;
        let all: Vec<&Tensor> = weight.iter().chain(&bias).collect();
        let parameters = Parameters::new(&all, &self.device)?;
        let ys = self.forward(xs, weight.as_ref(), bias.as_ref(), residual.as_ref())?;
        let (op, token) = (self.op, parameters.token.clone());
        let (scaled, shifted) = (weight.map(|w| w.detach()), bias.is_some());
        let back = move |x: &Tensor, y: &Tensor, g: &Tensor, r: bool| {
            let NormGrads { input, weight, bias, residual } =
                self.backward(x, y, g, scaled.as_ref(), x.track_op(), r)?;
            let mut all = Vec::with_capacity(2);
            if scaled.is_some() {
                all.push(weight);
            }
            if shifted {
                all.push(bias);
            }
            Ok::<_, candle_core::Error>([input, parameters.give(all)?, residual])
        };
        Ok(match residual {
            None => node2(op, [xs, &token], ys, xs.shape(), move |[x, _], y, g| {
                let [dx, dtoken, _] = back(x, y, g, false)?;
                Ok([dx, dtoken])
            })?,
            Some(residual) => node3(op, [xs, &token, &residual], ys, xs.shape(), move |[x, _, r], y, g| {
                back(x, y, g, r.track_op())
            })?,
        })
    }

    /// The result, for contiguous tensors and f32 parameters.
    pub(crate) fn forward(
        &self,
        xs: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> candle_core::Result<CudaStorage> {
        let shape = self.shape;
        let suffix = suffix(self.op, xs)?;
        let pack = shape.pack(&[Some(xs), residual, weight, bias, Some(&self.mean)]);
        let mut ys = empty(&self.device, xs.dtype(), xs.elem_count())?;
        launch(
            &self.device,
            Module::BatchNorm,
            &format!("apply_{suffix}_{pack}"),
            Grid::over(xs.elem_count() / pack),
            vec![
                Arg::Read(xs),
                Arg::Maybe(residual),
                Arg::Read(&self.mean),
                Arg::Read(&self.scale),
                Arg::Maybe(weight),
                Arg::Maybe(bias),
                Arg::Write(&mut ys),
                Arg::U32(xs.elem_count() as u32),
                Arg::U32(shape.c as u32),
                Arg::U32(shape.inner as u32),
                Arg::U32(u32::from(self.relu)),
            ],
        )?;
        Ok(ys)
    }

    /// The gradients; of the input and of the residual if asked for.
    pub(crate) fn backward(
        &self,
        xs: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
        weight: Option<&Tensor>,
        input: bool,
        residual: bool,
    ) -> candle_core::Result<NormGrads> {
        let shape = self.shape;
        let suffix = suffix(self.op, xs)?;
        let (m, c, inner) = (shape.m() as u32, shape.c as u32, shape.inner as u32);
        let result = self.relu.then_some(ys);
        let pack = shape.pack(&[Some(xs), result, Some(grad), weight, Some(&self.mean)]);
        let mut kept = None;
        if residual && self.relu {
            kept = Some(empty(&self.device, xs.dtype(), xs.elem_count())?);
        }
        let (grid, count, per) = shape.cut(pack);
        let mut sums = empty(&self.device, DType::F64, 2 * count * shape.c)?;
        launch(
            &self.device,
            Module::BatchNorm,
            &format!("grad_sums_{suffix}_{pack}"),
            grid,
            vec![
                Arg::Read(xs),
                Arg::Maybe(result),
                Arg::Read(grad),
                Arg::MaybeWrite(kept.as_mut()),
                Arg::Read(&self.mean),
                Arg::Read(&self.scale),
                Arg::Write(&mut sums),
                Arg::U32(m),
                Arg::U32(c),
                Arg::U32(inner),
                Arg::U32(per as u32),
            ],
        )?;
        let sums = tensor(sums, 2 * count * shape.c);
        let mut dbias = empty(&self.device, DType::F32, shape.c)?;
        let mut dweight = empty(&self.device, DType::F32, shape.c)?;
        let mut mean_g = empty(&self.device, DType::F32, shape.c)?;
        let mut mean_gx = empty(&self.device, DType::F32, shape.c)?;
        launch(
            &self.device,
            Module::BatchNorm,
            "grad_finish",
            shape.warps(),
            vec![
                Arg::Read(&sums),
                Arg::Write(&mut dbias),
                Arg::Write(&mut dweight),
                Arg::Write(&mut mean_g),
                Arg::Write(&mut mean_gx),
                Arg::U32(m),
                Arg::U32(c),
                Arg::U32(count as u32),
            ],
        )?;
        let vector = |storage| tensor(storage, shape.c);
        let (mean_g, mean_gx) = (vector(mean_g), vector(mean_gx));
        let means = |t| self.train.then_some(t);
        let kept = kept.map(|storage| tensor(storage, xs.shape()));
        // The gradient behind the activation, if the first pass left it.
        let (dy, mask) = match &kept {
            Some(kept) => (kept, None),
            None => (grad, result),
        };
        let mut dx = None;
        if input {
            let mut out = empty(&self.device, xs.dtype(), xs.elem_count())?;
            launch(
                &self.device,
                Module::BatchNorm,
                &format!("grad_apply_{suffix}_{pack}"),
                Grid::over(xs.elem_count() / pack),
                vec![
                    Arg::Read(xs),
                    Arg::Maybe(mask),
                    Arg::Read(dy),
                    Arg::Maybe(None),
                    Arg::Read(&self.mean),
                    Arg::Read(&self.scale),
                    Arg::Maybe(weight),
                    Arg::Maybe(means(&mean_g)),
                    Arg::Maybe(means(&mean_gx)),
                    Arg::Write(&mut out),
                    Arg::U32(xs.elem_count() as u32),
                    Arg::U32(c),
                    Arg::U32(inner),
                ],
            )?;
            dx = Some(tensor(out, xs.shape()));
        }
        Ok(NormGrads {
            input: dx,
            weight: vector(dweight),
            bias: vector(dbias),
            // A copy: who gets a gradient may change it in place.
            residual: residual.then(|| kept.map_or_else(|| grad.copy(), Ok)).transpose()?,
        })
    }
}
