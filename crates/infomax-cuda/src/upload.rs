//! Copies from the host to a device that run beside its work.

use crate::launch::{Arg, Value, empty, tensor, with_values};
use crate::{Error, Result};
use candle_core::cuda::cudarc::driver::result::{self, stream::StreamKind};
use candle_core::cuda::cudarc::driver::sys;
use candle_core::{CpuStorage, CudaDevice, DType, Device, Storage, Tensor};
use std::ffi::c_void;

const OP: &str = "upload";

/// Copies tensors to a device on a stream of its own, out of two buffers of pinned memory.
///
/// [`Uploader::begin`] starts a copy and returns; what the device was told to do before and is told to do after runs
/// meanwhile. [`Upload::finish`] gives the tensors, and lets later work of the device wait for the copy. The host waits only
/// where a third copy begins before the first has ended.
#[derive(Debug)]
pub struct Uploader {
    device: CudaDevice,
    stream: sys::CUstream,
    /// The work of the device up to the moment in which a copy begins.
    before: sys::CUevent,
    buffers: [Buffer; 2],
    next: usize,
}

/// Pinned memory, and the end of the copy out of it.
#[derive(Debug)]
struct Buffer {
    memory: *mut c_void,
    bytes: usize,
    done: sys::CUevent,
}

// SAFETY: streams, events and pinned memory of the driver belong to a context, not to a thread; each function here makes the
// context current on its thread first, and `&mut self` keeps two threads from one uploader.
unsafe impl Send for Uploader {}

/// A copy that has begun. Dropped, it lets later work of the device wait for its end, as its memory is given back then.
#[derive(Debug)]
pub struct Upload {
    device: CudaDevice,
    tensors: Vec<Tensor>,
    done: sys::CUevent,
}

// SAFETY: as for `Uploader`; the event lives as long as the uploader, which the owner of both keeps.
unsafe impl Send for Upload {}

fn wrap(error: result::DriverError) -> Error {
    candle_core::Error::wrap(error).into()
}

fn bind(device: &CudaDevice) -> Result<()> {
    device.cuda_stream().context().bind_to_thread().map_err(wrap)
}

impl Uploader {
    /// An uploader to a CUDA device. It must outlive its [`Upload`]s.
    ///
    /// # Errors
    /// A device that is not a CUDA device; what the driver refuses.
    pub fn new(on: &Device) -> Result<Self> {
        let Device::Cuda(device) = on else { return Err(Error::Device { op: OP, name: "device" }) };
        bind(device)?;
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(wrap);
        let buffer =
            || -> Result<Buffer> { Ok(Buffer { memory: std::ptr::null_mut(), bytes: 0, done: event()? }) };
        Ok(Self {
            device: device.clone(),
            stream: result::stream::create(StreamKind::NonBlocking).map_err(wrap)?,
            before: event()?,
            buffers: [buffer()?, buffer()?],
            next: 0,
        })
    }

    /// Begins to copy contiguous f32 tensors of the host.
    ///
    /// # Errors
    /// Another type, a tensor that is not on the CPU or not contiguous; memory that the host or the device has not.
    pub fn begin(&mut self, tensors: &[Tensor]) -> Result<Upload> {
        bind(&self.device)?;
        let count: usize = tensors.iter().map(Tensor::elem_count).sum();
        let number = self.next;
        self.next = 1 - number;
        let memory = self.pinned(number, count * size_of::<f32>())?;
        // SAFETY: the buffer is aligned as pinned memory is (to pages), has room for `count` numbers, and the copy out of it
        // has ended; any bits are a float.
        let pinned = unsafe { std::slice::from_raw_parts_mut(memory.cast::<f32>(), count) };
        let mut rest = &mut *pinned;
        for xs in tensors {
            let (to, after) = rest.split_at_mut(xs.elem_count());
            copy_to(xs, to)?;
            rest = after;
        }
        let buffers = tensors.iter().map(|xs| empty(&self.device, DType::F32, xs.elem_count()));
        let mut buffers = buffers.collect::<candle_core::Result<Vec<_>>>()?;
        let main = self.device.cuda_stream().cu_stream();
        let (before, stream, done) = (self.before, self.stream, self.buffers[number].done);
        let args = buffers.iter_mut().map(Arg::Write).collect();
        with_values(&self.device, args, |values| {
            let copy = || -> Result<(), result::DriverError> {
                let mut start = 0;
                // SAFETY: events and streams are those of this device. The buffers were allocated in the order of the
                // main stream, for which the copies wait; each has the length of what is copied into it.
                unsafe {
                    result::event::record(before, main)?;
                    result::stream::wait_event(
                        stream,
                        before,
                        sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
                    )?;
                    for (value, xs) in values.iter().zip(tensors) {
                        let part = &pinned[start..start + xs.elem_count()];
                        if let (Value::U64(to), false) = (value, part.is_empty()) {
                            result::memcpy_htod_async(*to, part, stream)?;
                        }
                        start += xs.elem_count();
                    }
                    result::event::record(done, stream)
                }
            };
            let copied = copy();
            if copied.is_err() {
                // What was begun must end before the buffers are given back.
                // SAFETY: the stream is that of this uploader.
                let _ = unsafe { result::stream::synchronize(stream) };
            }
            copied.map_err(candle_core::Error::wrap)
        })?;
        let tensors = buffers.into_iter().zip(tensors).map(|(there, xs)| tensor(there, xs.shape())).collect();
        Ok(Upload { device: self.device.clone(), tensors, done })
    }

    /// A buffer of at least so many bytes whose last copy has ended.
    fn pinned(&mut self, number: usize, bytes: usize) -> Result<*mut c_void> {
        let buffer = &mut self.buffers[number];
        // SAFETY: the event is this buffer's; one that was never recorded has ended.
        unsafe { result::event::synchronize(buffer.done) }.map_err(wrap)?;
        if buffer.bytes < bytes || buffer.memory.is_null() {
            if !buffer.memory.is_null() {
                let old = std::mem::replace(&mut buffer.memory, std::ptr::null_mut());
                buffer.bytes = 0;
                // SAFETY: it was given by `malloc_host`, and nothing reads it any more.
                unsafe { result::free_host(old) }.map_err(wrap)?;
            }
            // SAFETY: the context is current.
            buffer.memory = unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(wrap)?;
            buffer.bytes = bytes;
        }
        Ok(buffer.memory)
    }
}

/// The numbers of a tensor on the host.
fn copy_to(xs: &Tensor, to: &mut [f32]) -> Result<()> {
    let (storage, layout) = xs.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => {
            to.copy_from_slice(&values[start..end]);
            Ok(())
        }
        (Storage::Cpu(CpuStorage::F32(_)), None) => {
            let expected = "contiguous".to_owned();
            Err(Error::Shape { op: OP, name: "tensors", expected, got: xs.dims().to_vec() })
        }
        (Storage::Cpu(_), _) => {
            Err(Error::DType { op: OP, name: "tensors", got: xs.dtype(), expected: "f32 on the CPU" })
        }
        _ => {
            let reason = "it must be on the CPU";
            Err(Error::Config { op: OP, name: "tensors", value: format!("{:?}", xs.device()), reason })
        }
    }
}

impl Upload {
    fn wait(&self) -> Result<()> {
        bind(&self.device)?;
        let (main, flags) = (self.device.cuda_stream(), sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT);
        // SAFETY: the event is that of a buffer of the uploader, which outlives this.
        unsafe { result::stream::wait_event(main.cu_stream(), self.done, flags) }.map_err(wrap)
    }

    /// The tensors on the device. Work that follows waits for the copy; the host does not.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn finish(mut self) -> Result<Vec<Tensor>> {
        self.wait()?;
        Ok(std::mem::take(&mut self.tensors))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // After `finish` there is nothing left to give back.
        if !self.tensors.is_empty() && self.wait().is_err() {
            // Memory that may still be written must not be given to others.
            std::mem::forget(std::mem::take(&mut self.tensors));
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        if bind(&self.device).is_err() {
            return;
        }
        // SAFETY: all are of this uploader, and nothing runs on the stream once it is synchronized. An error leaves
        // something to the end of the process.
        unsafe {
            if result::stream::synchronize(self.stream).is_err() {
                return;
            }
            for buffer in &self.buffers {
                if !buffer.memory.is_null() {
                    let _ = result::free_host(buffer.memory);
                }
                let _ = result::event::destroy(buffer.done);
            }
            let _ = result::event::destroy(self.before);
            let _ = result::stream::destroy(self.stream);
        }
    }
}
