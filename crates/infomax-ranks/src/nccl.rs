//! Large tensors of CUDA cards over NCCL. The engine's headers go first, so that all ranks are there and ask for the same;
//! what NCCL does then is looked at and never waited for without an end.

#![allow(unsafe_code)]

use crate::engine::{Engine, Offer, Wait};
use crate::header::Call;
use crate::{Error, Result};
use candle_core::cuda::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr as _, result as driver};
use candle_core::cuda::cudarc::nccl::{result, sys};
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::{CudaDevice, DType, Device, Storage, Tensor};
use std::ffi::{CStr, c_int, c_void};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// The oldest version with communicators that do not block, as `ncclGetVersion` gives it.
const OLDEST: c_int = 21_400;

/// For how long ranks that still answer are asked for, once NCCL has not ended in time.
const ROLL_CALL: Duration = Duration::from_secs(5);

/// The part of this process in a communicator of all ranks, on one card.
pub(crate) struct Comm {
    raw: sys::ncclComm_t,
    device: CudaDevice,
    /// What NCCL does runs beside the work of the card.
    stream: Arc<CudaStream>,
}

// SAFETY: a communicator may be used by every thread, by one at a time: its owner is the engine, behind a mutex. Each use makes
// the context of its card current first.
unsafe impl Send for Comm {}

/// `ncclConfig_t` as it was in 2.14, which says so in `version`: later libraries read no more of it.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    undefined: c_int,
}

fn failed<E: Debug>(call: &'static str) -> impl Fn(E) -> Error {
    move |e| Error::Engine { call, problem: format!("{e:?}") }
}

fn code(code: sys::ncclResult_t) -> &'static str {
    match code {
        sys::ncclResult_t::ncclUnhandledCudaError => "a call of CUDA failed",
        sys::ncclResult_t::ncclSystemError => "a call of the system failed (sockets, shared memory)",
        sys::ncclResult_t::ncclInternalError => "an error within NCCL",
        sys::ncclResult_t::ncclInvalidArgument => "an argument is invalid",
        sys::ncclResult_t::ncclInvalidUsage => "a call is invalid here",
        sys::ncclResult_t::ncclRemoteError => "another rank ended, or the network to it",
        _ => "an unknown error",
    }
}

/// The error of a call; `ncclInProgress` is none.
fn check(call: &'static str, found: sys::ncclResult_t) -> Result<()> {
    match found {
        sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress => Ok(()),
        other => {
            // SAFETY: the library is there, in a version that has this function ([`version`] was asked first); the text
            // is its own.
            let text = unsafe { sys::ncclGetLastError(std::ptr::null_mut()) };
            let text = match text.is_null() {
                true => String::new(),
                // SAFETY: a text of the library ends in a zero.
                false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
            };
            let said = if text.is_empty() { String::new() } else { format!(": {text}") };
            let problem = format!("{}{said}; NCCL_DEBUG=WARN in the environment says more", code(other));
            Err(Error::Engine { call, problem })
        }
    }
}

/// The version of the library that is there.
fn version() -> Result<c_int> {
    let refuse = |problem: String| Error::Engine { call: "ncclGetVersion", problem };
    let found = result::get_nccl_version().map_err(|_| {
        refuse(
            "libnccl.so.2 cannot be loaded: install NCCL 2.14 or newer, or name its folder in LD_LIBRARY_PATH (the wheels of \
             PyTorch bring it, in site-packages/nvidia/nccl/lib)"
                .into(),
        )
    })?;
    match found >= OLDEST {
        true => Ok(found),
        false => Err(refuse(format!("this is NCCL {}, and 2.14 or newer is needed", words(found)))),
    }
}

/// `2.28.9` of 22809.
fn words(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// The card of a tensor; `None` where NCCL does not carry it.
pub(crate) fn card(device: &Device) -> Option<&CudaDevice> {
    match device {
        Device::Cuda(device) => Some(device),
        _ => None,
    }
}

impl Comm {
    /// Joins all ranks, each with its card.
    fn start(engine: &mut Engine, device: &CudaDevice) -> Result<Self> {
        const CALL: &str = "ncclCommInitRankConfig";
        let stream = device.cuda_stream();
        let context = stream.context();
        context.bind_to_thread().map_err(failed(CALL))?;
        let version = version()?;
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        if engine.rank() == 0 {
            // SAFETY: the library fills the number that it is given.
            check("ncclGetUniqueId", unsafe { sys::ncclGetUniqueId(&mut id) })?;
        }
        let uuid = context.uuid().map_err(failed("cuDeviceGetUuid"))?.bytes;
        let inline: Vec<u8> = id.internal.iter().chain(&uuid).map(|byte| *byte as u8).collect();
        let equal = format!("NCCL {}", words(version));
        let bytes = inline.len();
        let all =
            engine.exchange(Offer { call: Call::Nccl, equal: &equal, text: String::new(), bytes, inline })?;
        for (rank, header) in all.iter().enumerate() {
            let same = |other: &&crate::header::Header| other.inline.get(128..) == header.inline.get(128..);
            if let Some(first) = all[..rank].iter().position(|other| same(&other)) {
                let problem = format!(
                    "{} and {} compute on the same card, and NCCL wants one process a card: start as many processes on a \
                     host as it has cards, and leave --device at auto or cuda (or name different ones)",
                    engine.who(first),
                    engine.who(rank)
                );
                return Err(Error::Engine { call: CALL, problem });
            }
        }
        for (to, from) in id.internal.iter_mut().zip(&all[0].inline) {
            *to = *from as _;
        }
        let number = |n: usize| c_int::try_from(n).map_err(failed(CALL));
        let (rank, size) = (number(engine.rank())?, number(engine.size())?);
        let stream = context.new_stream().map_err(failed(CALL))?;
        let size_of = size_of::<Config>();
        let mut config = Config {
            size: size_of,
            magic: 0xcafe_beef,
            version: OLDEST as u32,
            blocking: 0,
            undefined: c_int::MIN,
        };
        let mut raw = std::ptr::null_mut();
        let wait = engine.wait(Call::Nccl);
        // SAFETY: the configuration is one of 2.14, whose size and version it names; NCCL reads it in the call and fills `raw`.
        let begun =
            unsafe { sys::ncclCommInitRankConfig(&mut raw, size, id, rank, (&raw mut config).cast()) };
        let comm = Self { raw, device: device.clone(), stream };
        check(CALL, begun)?;
        comm.settled(CALL, engine, &wait)?;
        Ok(comm)
    }

    /// Whether NCCL has taken what it was given.
    ///
    /// # Errors
    /// What it found since then, also on other ranks.
    fn is_settled(&self, call: &'static str) -> Result<bool> {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is open; the state is ours.
        check(call, unsafe { sys::ncclCommGetAsyncError(self.raw, &mut state) })?;
        check(call, state)?;
        Ok(state == sys::ncclResult_t::ncclSuccess)
    }

    fn settled(&self, call: &'static str, engine: &mut Engine, wait: &Wait) -> Result<()> {
        while !self.is_settled(call)? {
            self.pause(engine, wait)?;
        }
        Ok(())
    }

    /// Lets others work. Once the limit has passed, NCCL is ended, and the ranks that no longer answer are named.
    fn pause(&self, engine: &mut Engine, wait: &Wait) -> Result<()> {
        let Err(late) = wait.pause(|| "NCCL".into()) else { return Ok(()) };
        let Error::Late { call, number, waited_s, .. } = late else { return Err(late) };
        engine.limit(ROLL_CALL);
        let offer = Offer { call: Call::Stuck, equal: "", text: String::new(), bytes: 0, inline: Vec::new() };
        match engine.exchange(offer) {
            Err(Error::Late { missing, .. }) => Err(Error::Late { call, number, missing, waited_s }),
            // All answer, be it of something else.
            Ok(_) | Err(Error::Calls { .. }) => Err(Error::Engine {
                call: "NCCL",
                problem: format!(
                    "`{call}` (exchange {number}) did not end within {waited_s:.0} s, though all ranks answer: is the network \
                     between the cards up? NCCL_DEBUG=INFO in the environment says what it uses, --rank-timeout sets the limit"
                ),
            }),
            Err(other) => Err(other),
        }
    }

    /// Runs calls of NCCL as one, and returns when the card has done them.
    fn run(&self, call: Call, engine: &mut Engine, work: impl FnOnce() -> Result<()>) -> Result<()> {
        const CALL: &str = "NCCL";
        let wait = engine.wait(call);
        self.stream.wait(&self.before()?).map_err(failed(CALL))?;
        // SAFETY: a group is begun and ended on this thread.
        check("ncclGroupStart", unsafe { sys::ncclGroupStart() })?;
        let given = work();
        // SAFETY: as above.
        let ended = check("ncclGroupEnd", unsafe { sys::ncclGroupEnd() });
        given.and(ended)?;
        self.settled(CALL, engine, &wait)?;
        let done = self.stream.record_event(None).map_err(failed(CALL))?;
        while !done.try_is_complete().map_err(failed(CALL))? {
            // An error of the network leaves the card waiting.
            self.is_settled(CALL)?;
            self.pause(engine, &wait)?;
        }
        Ok(())
    }

    /// All that the card was given up to now.
    fn before(&self) -> Result<CudaEvent> {
        const CALL: &str = "cuEventRecord";
        let main = self.device.cuda_stream();
        let event = main.context().new_event(None).map_err(failed(CALL))?;
        // Candle's default is the stream of each thread by itself; the work may come from another thread. The stream of old
        // waits for all of them.
        let (own_of_each, of_all) = (2, 1);
        let raw = match main.cu_stream() {
            raw if raw as usize == own_of_each => of_all as _,
            raw => raw,
        };
        // SAFETY: the event and the stream are of this context, which `new_event` made current.
        unsafe { driver::event::record(event.cu_event(), raw) }.map_err(failed(CALL))?;
        Ok(event)
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if self.raw.is_null() || self.device.cuda_stream().context().bind_to_thread().is_err() {
            return;
        }
        // After a whole run nothing is under way, and after an error nothing more is to come of it.
        // SAFETY: the communicator is open, and not used after this.
        let _ = unsafe { sys::ncclCommAbort(self.raw) };
    }
}

/// Runs with the communicator of a card, which is made at the first use. An error ends it.
fn with(
    engine: &mut Engine,
    card: &CudaDevice,
    call: Call,
    kept: &[Tensor],
    work: impl FnOnce(&Comm) -> Result<()>,
) -> Result<()> {
    let comm = match engine.comm.take() {
        Some(comm) => comm,
        None => Comm::start(engine, card)?,
    };
    let stream = card.cuda_stream();
    let done = stream
        .context()
        .bind_to_thread()
        .map_err(failed("NCCL"))
        .and_then(|()| comm.run(call, engine, || work(&comm)));
    match done {
        Ok(()) => engine.comm = Some(comm),
        Err(error) => {
            drop(comm);
            // NCCL may not be out of them yet; such a run is about to end.
            kept.iter().cloned().for_each(std::mem::forget);
            return Err(error);
        }
    }
    Ok(())
}

/// The address of the first element of a contiguous tensor.
fn address(x: &Tensor, card: &CudaDevice) -> Result<*mut c_void> {
    fn of<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> u64 {
        slice.device_ptr(stream).0
    }
    let (storage, layout) = x.storage_and_layout();
    let problem =
        || Error::Engine { call: "NCCL", problem: format!("no tensor of a card: {:?}", x.device()) };
    let Storage::Cuda(storage) = &*storage else { return Err(problem()) };
    let stream = card.cuda_stream();
    let start = match &storage.slice {
        CudaStorageSlice::U8(s) => of(s, &stream),
        CudaStorageSlice::U32(s) => of(s, &stream),
        CudaStorageSlice::I64(s) => of(s, &stream),
        CudaStorageSlice::BF16(s) => of(s, &stream),
        CudaStorageSlice::F16(s) => of(s, &stream),
        CudaStorageSlice::F32(s) => of(s, &stream),
        CudaStorageSlice::F64(s) => of(s, &stream),
        _ => return Err(problem()),
    };
    Ok((start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64) as *mut c_void)
}

fn kind(dtype: DType) -> Result<sys::ncclDataType_t> {
    use sys::ncclDataType_t as Kind;
    Ok(match dtype {
        DType::U8 => Kind::ncclUint8,
        DType::U32 => Kind::ncclUint32,
        DType::I64 => Kind::ncclInt64,
        DType::BF16 => Kind::ncclBfloat16,
        DType::F16 => Kind::ncclFloat16,
        DType::F32 => Kind::ncclFloat32,
        DType::F64 => Kind::ncclFloat64,
        other => {
            let problem =
                format!("tensors of {other:?} are not sent between ranks; convert them first (`to_dtype`)");
            return Err(Error::Engine { call: "NCCL", problem });
        }
    })
}

fn contiguous(x: &Tensor) -> Result<Tensor> {
    x.contiguous().map_err(failed("NCCL"))
}

/// Room for a result.
fn empty(dims: &[usize], like: &Tensor) -> Result<Tensor> {
    // SAFETY: NCCL writes all of it before anybody reads it; after an error nobody does.
    unsafe { Tensor::empty(dims, like.dtype(), like.device()) }.map_err(failed("NCCL"))
}

/// The sums over ranks of tensors of one type on a card. `equal` is what all ranks must have.
pub(crate) fn sum(
    engine: &mut Engine,
    card: &CudaDevice,
    bucket: &[&Tensor],
    equal: &str,
) -> Result<Vec<Tensor>> {
    let own = bucket.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
    let sums = own.iter().map(|x| empty(x.dims(), x)).collect::<Result<Vec<_>>>()?;
    let bytes = own.iter().map(|x| x.elem_count() * x.dtype().size_in_bytes()).sum();
    let offer = Offer { call: Call::Sum, equal, text: String::new(), bytes, inline: Vec::new() };
    engine.exchange(offer)?;
    let kept: Vec<Tensor> = own.iter().chain(&sums).cloned().collect();
    with(engine, card, Call::Sum, &kept, |comm| {
        for (x, sum) in own.iter().zip(&sums).filter(|(x, _)| x.elem_count() > 0) {
            let (from, to, kind) = (address(x, card)?, address(sum, card)?, kind(x.dtype())?);
            let (op, stream) = (sys::ncclRedOp_t::ncclSum, comm.stream.cu_stream() as _);
            // SAFETY: both tensors have so many elements of this type on the card, and live until NCCL is done with them.
            let found = unsafe { sys::ncclAllReduce(from, to, x.elem_count(), kind, op, comm.raw, stream) };
            check("ncclAllReduce", found)?;
        }
        Ok(())
    })?;
    Ok(sums)
}

/// Every rank's tensor, of so many rows each; the headers were exchanged.
pub(crate) fn gather(
    engine: &mut Engine,
    card: &CudaDevice,
    x: &Tensor,
    rows: &[usize],
) -> Result<Vec<Tensor>> {
    let own = contiguous(x)?;
    let dims = |rows: usize| [&[rows], own.dims().get(1..).unwrap_or_default()].concat();
    let even = rows.iter().all(|count| *count == rows[0]);
    let parts = match even {
        true => {
            let whole = empty(&dims(rows.iter().sum()), &own)?;
            let part = |rank: usize| whole.narrow(0, rank * rows[0], rows[0]);
            (0..rows.len()).map(part).collect::<candle_core::Result<Vec<_>>>().map_err(failed("NCCL"))?
        }
        false => rows.iter().map(|count| empty(&dims(*count), &own)).collect::<Result<Vec<_>>>()?,
    };
    let kept: Vec<Tensor> = parts.iter().chain([&own]).cloned().collect();
    let kind = kind(own.dtype())?;
    with(engine, card, Call::Gather, &kept, |comm| {
        let (from, stream) = (address(&own, card)?, comm.stream.cu_stream() as _);
        if even {
            let (to, count) = (address(&parts[0], card)?, own.elem_count());
            // SAFETY: the parts lie behind each other in one buffer with room for those of all ranks; all live until NCCL is
            // done with them.
            let found = unsafe { sys::ncclAllGather(from, to, count, kind, comm.raw, stream) };
            return check("ncclAllGather", found);
        }
        for (root, part) in (0..).zip(&parts).filter(|(_, part)| part.elem_count() > 0) {
            // SAFETY: the part has room for the rows of its rank, which are those of `own` on it.
            let found = unsafe {
                sys::ncclBroadcast(
                    from,
                    address(part, card)?,
                    part.elem_count(),
                    kind,
                    root,
                    comm.raw,
                    stream,
                )
            };
            check("ncclBroadcast", found)?;
        }
        Ok(())
    })?;
    Ok(parts)
}

/// The tensor of one rank. `equal` is what all ranks must have.
pub(crate) fn broadcast(
    engine: &mut Engine,
    card: &CudaDevice,
    x: &Tensor,
    root: usize,
    equal: &str,
) -> Result<Tensor> {
    let own = contiguous(x)?;
    let (out, kind) = (empty(own.dims(), &own)?, kind(own.dtype())?);
    let bytes = own.elem_count() * own.dtype().size_in_bytes();
    let offer = Offer { call: Call::Broadcast, equal, text: String::new(), bytes, inline: Vec::new() };
    engine.exchange(offer)?;
    let root = c_int::try_from(root).map_err(failed("NCCL"))?;
    with(engine, card, Call::Broadcast, &[own.clone(), out.clone()], |comm| {
        let (from, to, stream) = (address(&own, card)?, address(&out, card)?, comm.stream.cu_stream() as _);
        // SAFETY: both tensors have so many elements of this type on the card, and live until NCCL is done with them.
        let found = unsafe { sys::ncclBroadcast(from, to, own.elem_count(), kind, root, comm.raw, stream) };
        check("ncclBroadcast", found)
    })?;
    Ok(out)
}
