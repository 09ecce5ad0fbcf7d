//! Steps of optimizers for all parameters in one launch.

use crate::launch::{Arg, Grid, Module, Value, count32, device, empty, launch, tensor, with_values};
use crate::{Error, Result};
use candle_core::cuda::CudaDType;
use candle_core::{CudaDevice, DType, Tensor};

/// A parameter with what belongs to it: contiguous f32 tensors of one shape on one device. `param` and the state are
/// changed in place, so nothing else may share their memory.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The parameter.
    pub param: &'a Tensor,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// The momentum, or the first moment.
    pub first: &'a Tensor,
    /// The second moment, for AdamW.
    pub second: Option<&'a Tensor>,
    /// The weight decay of this parameter.
    pub decay: f64,
    /// The factor of the gradient: the trust ratio of LARS, otherwise 1. AdamW does not look at it.
    pub scale: f64,
    /// The number of this step, from 1 on, for AdamW.
    pub step: u64,
}

/// The settings of [`sgd_step`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f64,
    /// The factor of the momentum.
    pub momentum: f64,
    /// Whether the step looks ahead.
    pub nesterov: bool,
}

/// The settings of [`adamw_step`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The learning rate.
    pub lr: f64,
    /// The factor of the running mean of the gradient.
    pub beta1: f64,
    /// The factor of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// The settings of [`lamb_step`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    /// The learning rate.
    pub lr: f64,
    /// The factor of the running mean of the gradient.
    pub beta1: f64,
    /// The factor of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The largest trust ratio; infinite for no bound.
    pub max_trust: f64,
    /// Whether the step is scaled by the trust ratio.
    pub adapt: bool,
}

/// Elements of one block.
const CHUNK: usize = 1 << 14;

/// `d = scale (g + decay p)`, `m <- mu m + d`, `p <- p - lr m`, or with Nesterov `p <- p - lr (d + mu m)`, for all
/// parameters. With the trust ratio as the scale this is LARS.
///
/// # Errors
/// Tensors that are not contiguous f32 of one shape on one CUDA device.
pub fn sgd_step(slots: &[Slot<'_>], cfg: Sgd) -> Result<()> {
    let Some(table) = Table::new("sgd_step", slots, |s| [s.scale, s.decay, 0.0])? else { return Ok(()) };
    let more = vec![Arg::F64(cfg.lr), Arg::F64(cfg.momentum), Arg::U32(u32::from(cfg.nesterov))];
    table.launch("sgd", more)
}

/// `p <- (1 - lr decay) p`, `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`,
/// `p <- p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)` for all parameters (arXiv:1711.05101).
///
/// # Errors
/// As [`sgd_step`], or a slot without a second moment.
pub fn adamw_step(slots: &[Slot<'_>], cfg: AdamW) -> Result<()> {
    const OP: &str = "adamw_step";
    if slots.iter().any(|s| s.second.is_none() || s.step == 0) {
        let reason = "each slot needs a second moment and a step from 1 on";
        return Err(Error::Config { op: OP, name: "slots", value: slots.len().to_string(), reason });
    }
    let coefficients = |s: &Slot<'_>| {
        let t = s.step as f64;
        let rate = cfg.lr / (1.0 - cfg.beta1.powf(t));
        [1.0 - cfg.lr * s.decay, rate, (1.0 - cfg.beta2.powf(t)).sqrt()]
    };
    let Some(table) = Table::new(OP, slots, coefficients)? else { return Ok(()) };
    table.launch("adamw", vec![Arg::F64(cfg.beta1), Arg::F64(cfg.beta2), Arg::F64(cfg.eps)])
}

/// `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`,
/// `r = m / (1 - b1^t) / (sqrt(v) / sqrt(1 - b2^t) + eps) + decay p`, `p <- p - lr q r` with `q = |p| / |r|`, at most
/// `max_trust`, and 1 where a norm is 0 (LAMB, arXiv:1904.00962) for all parameters, in two launches: the norms are summed in
/// f64 in a fixed order, and never come to the host.
///
/// # Errors
/// As [`adamw_step`].
pub fn lamb_step(slots: &[Slot<'_>], cfg: Lamb) -> Result<()> {
    const OP: &str = "lamb_step";
    if slots.iter().any(|s| s.second.is_none() || s.step == 0) {
        let reason = "each slot needs a second moment and a step from 1 on";
        return Err(Error::Config { op: OP, name: "slots", value: slots.len().to_string(), reason });
    }
    let coefficients = |s: &Slot<'_>| {
        let t = s.step as f64;
        [s.decay, 1.0 / (1.0 - cfg.beta1.powf(t)), (1.0 - cfg.beta2.powf(t)).sqrt()]
    };
    let Some(table) = Table::new(OP, slots, coefficients)? else { return Ok(()) };
    let mut sums = empty(&table.device, DType::F64, 2 * table.chunks as usize)?;
    let more = vec![Arg::F64(cfg.beta1), Arg::F64(cfg.beta2), Arg::F64(cfg.eps), Arg::Write(&mut sums)];
    table.launch("lamb_moments", more)?;
    let sums = tensor(sums, 2 * table.chunks as usize);
    let more = vec![
        Arg::F64(cfg.lr),
        Arg::F64(cfg.eps),
        Arg::F64(cfg.max_trust),
        Arg::U32(u32::from(cfg.adapt)),
        Arg::Read(&sums),
    ];
    table.launch("lamb", more)
}

/// `[sum p^2, sum g^2, sum p g]` of each parameter and its gradient, in f64 and in a fixed order; the norms of LARS.
/// `first` and `second` of the slots are not read. Waits for the device.
///
/// # Errors
/// As [`sgd_step`].
pub fn squared_norms(slots: &[Slot<'_>]) -> Result<Vec<[f64; 3]>> {
    let Some(table) = Table::new("squared_norms", slots, |_| [0.0; 3])? else { return Ok(Vec::new()) };
    let chunks = table.chunks as usize;
    let mut sums = empty(&table.device, DType::F64, 3 * chunks)?;
    table.launch("norms", vec![Arg::Write(&mut sums)])?;
    let sums = tensor(sums, (chunks, 3)).to_vec2::<f64>()?;
    let mut rows = sums.iter();
    let sum = |slot: &Slot<'_>| {
        let own = rows.by_ref().take(slot.param.elem_count().div_ceil(CHUNK));
        own.fold([0.0; 3], |a, row| [a[0] + row[0], a[1] + row[1], a[2] + row[2]])
    };
    Ok(slots.iter().map(sum).collect())
}

/// The table of the kernels on the device.
struct Table {
    device: CudaDevice,
    words: Tensor,
    entries: u32,
    chunks: u32,
}

impl Table {
    /// The table, or nothing for no parameters.
    fn new(
        op: &'static str,
        slots: &[Slot<'_>],
        coefficients: impl Fn(&Slot<'_>) -> [f64; 3],
    ) -> Result<Option<Self>> {
        let Some(slot) = slots.first() else { return Ok(None) };
        let device = device(op, "param", slot.param)?;
        let mut args = Vec::with_capacity(4 * slots.len());
        for slot in slots {
            let all = [Some(slot.param), Some(slot.grad), Some(slot.first), slot.second];
            for t in all.into_iter().flatten() {
                if t.dims() != slot.param.dims() || t.elem_count() == 0 {
                    let expected = format!("{:?}, with elements", slot.param.dims());
                    return Err(Error::Shape { op, name: "state", expected, got: t.dims().to_vec() });
                }
                if t.dtype() != DType::F32 {
                    return Err(Error::DType { op, name: "state", got: t.dtype(), expected: "f32" });
                }
                if !t.device().same_device(slots[0].param.device()) {
                    return Err(Error::Device { op, name: "state" });
                }
            }
            args.extend(all.map(Arg::Maybe));
        }
        let words = with_values(&device, args, |values| {
            let (mut words, mut first) = (Vec::with_capacity(9 * slots.len()), 0);
            for (slot, pointers) in slots.iter().zip(values.chunks_exact(4)) {
                words.extend(pointers.iter().map(|v| if let Value::U64(p) = v { *p as i64 } else { 0 }));
                let count = slot.param.elem_count();
                words.extend([count as i64, first as i64]);
                words.extend(coefficients(slot).map(|c| c.to_bits() as i64));
                first += count.div_ceil(CHUNK);
            }
            Ok((words, first))
        })?;
        let (words, chunks) = words;
        let chunks = count32(op, "param", chunks)?;
        let len = words.len();
        let words = tensor(i64::wrap_cuda_slice(device.clone_htod(&words)?, device.clone()), len);
        Ok(Some(Self { device, words, entries: slots.len() as u32, chunks }))
    }

    fn launch(&self, name: &str, more: Vec<Arg<'_>>) -> Result<()> {
        let mut args = vec![Arg::Read(&self.words), Arg::U32(self.entries), Arg::U32(CHUNK as u32)];
        args.extend(more);
        let grid = Grid { blocks: (self.chunks, 1), threads: (256, 1) };
        Ok(launch(&self.device, Module::Optim, name, grid, args)?)
    }
}
