//! The memory pool of a device.

use crate::{Error, Result};
use candle_core::Device;
use candle_core::cuda::cudarc::driver::sys::{self, CUmemPool_attribute as Attribute};
use std::ffi::c_void;

/// Bytes of the memory pool of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors and workspaces now.
    pub current: u64,
    /// The most at one time since [`reset_peak_memory`].
    pub peak: u64,
}

/// Lets the pool keep freed memory instead of returning it to the driver at every synchronization, which makes
/// the next allocations slow. Call it once before training.
///
/// # Errors
/// A device that is not a CUDA device; a driver without memory pools.
pub fn keep_freed_memory(device: &Device) -> Result<()> {
    set(device, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// The bytes in use, after all work on the device has ended.
///
/// # Errors
/// As [`keep_freed_memory`].
pub fn memory_use(device: &Device) -> Result<MemoryUse> {
    device.synchronize()?;
    Ok(MemoryUse {
        current: get(device, Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
        peak: get(device, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
    })
}

/// Starts the peak of [`memory_use`] at the present use.
///
/// # Errors
/// As [`keep_freed_memory`].
pub fn reset_peak_memory(device: &Device) -> Result<()> {
    device.synchronize()?;
    set(device, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
}

/// Stops recording an event for each use of each buffer from now on, which saves time on the host. Buffers made before
/// keep theirs.
///
/// # Errors
/// A device that is not a CUDA device.
pub fn stop_tracking_events(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { return Err(Error::Device { op: "events", name: "device" }) };
    // SAFETY: the events order the uses of a buffer on several streams. A device of Candle has one stream, which orders
    // them itself, and this crate launches on no other.
    unsafe { device.disable_event_tracking() };
    Ok(())
}

fn pool(device: &Device) -> Result<sys::CUmemoryPool> {
    let Device::Cuda(device) = device else { return Err(Error::Device { op: "memory", name: "device" }) };
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().map_err(candle_core::Error::wrap)?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the pointer is to a local; the device handle is that of a live context.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }
        .result()
        .map_err(candle_core::Error::wrap)?;
    Ok(pool)
}

fn get(device: &Device, attribute: Attribute) -> Result<u64> {
    let mut value = 0u64;
    // SAFETY: these attributes are 64-bit numbers, and the pool is the device's own.
    unsafe { sys::cuMemPoolGetAttribute(pool(device)?, attribute, (&raw mut value).cast::<c_void>()) }
        .result()
        .map_err(candle_core::Error::wrap)?;
    Ok(value)
}

fn set(device: &Device, attribute: Attribute, mut value: u64) -> Result<()> {
    // SAFETY: as in `get`.
    unsafe { sys::cuMemPoolSetAttribute(pool(device)?, attribute, (&raw mut value).cast::<c_void>()) }
        .result()
        .map_err(candle_core::Error::wrap)?;
    Ok(())
}
