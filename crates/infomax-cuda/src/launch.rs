//! Between tensors and kernels: buffers, pointers, launches.

use crate::{Error, Result};
use candle_core::cuda::cudarc::driver::{
    CudaStream, DevicePtr, LaunchConfig, PushKernelArg, SyncOnDrop, result,
};
use candle_core::cuda::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Shape, Storage, StorageRef, Tensor, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// True if the kernels of this crate take tensors of this type on this device: f32 and bf16 on CUDA.
pub fn supports(xs: &Tensor) -> bool {
    xs.device().is_cuda() && matches!(xs.dtype(), DType::F32 | DType::BF16)
}

static POISON: AtomicBool = AtomicBool::new(false);

/// For tests: fills every new buffer with NaN before a kernel writes it, so that an element that was not written
/// shows.
pub fn poison_new_buffers(on: bool) {
    POISON.store(on, Ordering::Relaxed);
}

/// The compiled files of kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Module {
    BatchNorm,
    Characteristic,
    CrossEntropy,
    Moments,
    Rows,
    Elementwise,
    Pool,
    Pairwise,
    Optim,
    Views,
}

impl Module {
    fn ptx(self) -> (&'static str, &'static str) {
        macro_rules! ptx {
            ($name:literal) => {
                (concat!("infomax-cuda-", $name), include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")))
            };
        }
        match self {
            Self::BatchNorm => ptx!("batch_norm"),
            Self::Characteristic => ptx!("characteristic"),
            Self::CrossEntropy => ptx!("cross_entropy"),
            Self::Moments => ptx!("moments"),
            Self::Rows => ptx!("rows"),
            Self::Elementwise => ptx!("elementwise"),
            Self::Pool => ptx!("pool"),
            Self::Pairwise => ptx!("pairwise"),
            Self::Optim => ptx!("optim"),
            Self::Views => ptx!("views"),
        }
    }
}

/// An argument of a kernel.
pub(crate) enum Arg<'a> {
    /// A contiguous tensor that is read.
    Read(&'a Tensor),
    /// The same, or a null pointer.
    Maybe(Option<&'a Tensor>),
    /// A buffer that is written (and perhaps read).
    Write(&'a mut CudaStorage),
    /// The same, or a null pointer.
    MaybeWrite(Option<&'a mut CudaStorage>),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
}

/// An argument as the driver takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
}

/// The CUDA device of a tensor.
pub(crate) fn device(op: &'static str, name: &'static str, xs: &Tensor) -> Result<CudaDevice> {
    match xs.device() {
        Device::Cuda(device) => Ok(device.clone()),
        _ => Err(Error::Device { op, name }),
    }
}

/// The end of the name of a kernel for elements of this type.
pub(crate) fn suffix(op: &'static str, xs: &Tensor) -> Result<&'static str> {
    match xs.dtype() {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        got => Err(Error::DType { op, name: "xs", got, expected: "f32 or bf16" }),
    }
}

/// The tensor itself, or a copy in order; differentiable.
pub(crate) fn contiguous(xs: &Tensor) -> Result<Tensor> {
    Ok(if xs.is_contiguous() { xs.clone() } else { xs.contiguous()? })
}

/// 4 if packs of four neighbors can be read from all of these tensors, otherwise 1. New buffers are aligned.
pub(crate) fn pack(tensors: &[Option<&Tensor>]) -> usize {
    let fits = |t: &Tensor| t.layout().start_offset().is_multiple_of(4);
    if tensors.iter().flatten().all(|t| fits(t)) { 4 } else { 1 }
}

/// A buffer that is not initialized.
pub(crate) fn empty(device: &CudaDevice, dtype: DType, len: usize) -> candle_core::Result<CudaStorage> {
    fn of<T>(device: &CudaDevice, len: usize) -> candle_core::Result<CudaStorage>
    where
        T: CudaDType + candle_core::cuda::cudarc::driver::DeviceRepr,
    {
        // SAFETY: every kernel of this crate writes all elements of the buffers made here before they are read;
        // the device check runs them on poisoned buffers.
        let slice = unsafe { device.alloc::<T>(len.max(1))? };
        if POISON.load(Ordering::Relaxed) {
            let stream = device.cuda_stream();
            let (pointer, _guard) = slice.device_ptr(&stream);
            let bytes = len.max(1) * size_of::<T>();
            // SAFETY: the buffer has this many bytes; all-ones is a value of each type (a NaN of the floats).
            unsafe { result::memset_d8_async(pointer, 0xff, bytes, stream.cu_stream()) }
                .map_err(candle_core::Error::wrap)?;
        }
        Ok(T::wrap_cuda_slice(slice, device.clone()))
    }
    match dtype {
        DType::F32 => of::<f32>(device, len),
        DType::BF16 => of::<half::bf16>(device, len),
        DType::F64 => of::<f64>(device, len),
        DType::U32 => of::<u32>(device, len),
        DType::U8 => of::<u8>(device, len),
        other => bail!("no buffers of {other:?} here"),
    }
}

/// A tensor outside of any graph that owns `storage`.
pub(crate) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

fn pointer<'a>(
    storage: &'a CudaStorage,
    start: usize,
    stream: &'a Arc<CudaStream>,
) -> candle_core::Result<(u64, SyncOnDrop<'a>)> {
    macro_rules! of {
        ($($variant:ident: $size:literal),*) => {
            match &storage.slice {
                $(CudaStorageSlice::$variant(slice) => {
                    let (pointer, guard) = slice.device_ptr(stream);
                    Ok((pointer + (start * $size) as u64, guard))
                })*
                _ => bail!("no kernels for {:?}", candle_core::backend::BackendStorage::dtype(storage)),
            }
        };
    }
    of!(F32: 4, BF16: 2, F64: 8, U32: 4, U8: 1, I64: 8)
}

fn start(layout: &Layout) -> candle_core::Result<usize> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok(start),
        None => bail!("a kernel got a tensor that is not contiguous: {layout:?}"),
    }
}

/// Calls `f` with the arguments as the driver takes them, and holds the tensors until it returns.
pub(crate) fn with_values<R>(
    device: &CudaDevice,
    args: Vec<Arg<'_>>,
    f: impl FnOnce(&[Value]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
    // What the pointers below borrow from.
    enum Held<'a> {
        Tensor(StorageRef<'a>, &'a Layout),
        Buffer(&'a CudaStorage),
        Number(Value),
    }
    let held: Vec<Held<'_>> = args
        .into_iter()
        .map(|arg| match arg {
            Arg::Read(t) | Arg::Maybe(Some(t)) => {
                let (storage, layout) = t.storage_and_layout();
                Held::Tensor(storage, layout)
            }
            Arg::Write(s) | Arg::MaybeWrite(Some(s)) => Held::Buffer(s),
            Arg::Maybe(None) | Arg::MaybeWrite(None) => Held::Number(Value::U64(0)),
            Arg::U32(v) => Held::Number(Value::U32(v)),
            Arg::U64(v) => Held::Number(Value::U64(v)),
            Arg::F32(v) => Held::Number(Value::F32(v)),
            Arg::F64(v) => Held::Number(Value::F64(v)),
        })
        .collect();
    let mut guards = Vec::with_capacity(held.len());
    let mut values = Vec::with_capacity(held.len());
    for arg in &held {
        values.push(match arg {
            Held::Number(value) => *value,
            Held::Buffer(storage) => {
                let (address, guard) = pointer(storage, 0, &stream)?;
                guards.push(guard);
                Value::U64(address)
            }
            Held::Tensor(storage, layout) => match &**storage {
                Storage::Cuda(storage) => {
                    let (address, guard) = pointer(storage, start(layout)?, &stream)?;
                    guards.push(guard);
                    Value::U64(address)
                }
                _ => bail!("a kernel got a tensor that is not on a CUDA device"),
            },
        });
    }
    let out = f(&values);
    drop(guards);
    out
}

/// Threads of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) blocks: (u32, u32),
    pub(crate) threads: (u32, u32),
}

impl Grid {
    /// Threads that step over `count` elements.
    pub(crate) fn over(count: usize) -> Self {
        // 16 blocks of 256 threads for each multiprocessor of the largest cards, no more than there is work for.
        Self { blocks: (count.div_ceil(256).clamp(1, 132 * 16) as u32, 1), threads: (256, 1) }
    }

    /// One warp for each short row, one block for each long row.
    pub(crate) fn rows(rows: usize, width: usize) -> Self {
        if width <= 1024 {
            return Self { blocks: (rows.div_ceil(8) as u32, 1), threads: (32, 8) };
        }
        Self { blocks: (rows as u32, 1), threads: (256, 1) }
    }
}

/// Launches a kernel on the stream of the device.
pub(crate) fn launch(
    device: &CudaDevice,
    module: Module,
    name: &str,
    grid: Grid,
    args: Vec<Arg<'_>>,
) -> candle_core::Result<()> {
    let (id, ptx) = module.ptx();
    let func = device.get_or_load_custom_func(name, id, ptx)?;
    with_values(device, args, |values| {
        let mut builder = func.builder();
        for value in values {
            match value {
                Value::U32(v) => builder.arg(v),
                Value::U64(v) => builder.arg(v),
                Value::F32(v) => builder.arg(v),
                Value::F64(v) => builder.arg(v),
            };
        }
        let config = LaunchConfig {
            grid_dim: (grid.blocks.0, grid.blocks.1, 1),
            block_dim: (grid.threads.0, grid.threads.1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the callers pass the arguments of the kernel `name` in order and with its types, and buffers as
        // large as it reads and writes; the emulated tests and the device check run every kernel.
        unsafe { builder.launch(config) }.map(|_| ()).map_err(candle_core::Error::wrap)
    })
}

/// The number of elements for a kernel that counts in 32 bits.
pub(crate) fn count32(op: &'static str, name: &'static str, count: usize) -> Result<u32> {
    match u32::try_from(count) {
        Ok(small) if small < 1 << 31 => Ok(small),
        _ => {
            let reason = "elements; fewer than 2^31 are supported, use a smaller batch";
            Err(Error::Config { op, name, value: count.to_string(), reason })
        }
    }
}
