//! Messages over MPI: requests that own their buffers, so that safe code cannot free what the library still reads.
//!
//! All calls come from one thread at a time (the engine is behind a mutex), which is what `MPI_THREAD_SERIALIZED` asks
//! for. Communicators of the crate `mpi` are bound to a thread, so that the messages go through its raw bindings.

#![allow(unsafe_code)]

use crate::link::{Link, Request, Slice};
use crate::{Error, Result, World};
use mpi::Threading;
use mpi::ffi;
use mpi::traits::{AsRaw as _, Communicator as _};
use std::os::raw::c_int;

/// The ranks of `MPI_COMM_WORLD`, in a communicator of our own.
pub(crate) struct MpiLink {
    comm: ffi::MPI_Comm,
    rank: usize,
    size: usize,
    host: String,
    finished: bool,
}

// SAFETY: a communicator is a handle that every thread may use under MPI_THREAD_SERIALIZED, one at a time; the owner
// of the link sees to that by its mutex.
unsafe impl Send for MpiLink {}

impl std::fmt::Debug for MpiLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MPI rank {} of {}", self.rank, self.size)
    }
}

/// Starts MPI.
///
/// # Errors
/// MPI that was started already or allows one thread only; another number of processes than the launcher's.
pub(crate) fn start(world: &World) -> Result<MpiLink> {
    let refuse = |problem: &str| Error::Engine { call: "MPI_Init_thread", problem: problem.to_owned() };
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return Err(refuse("MPI was started already in this process"));
    };
    let comm = universe.world().duplicate();
    let (rank, size) = (comm.rank(), comm.size());
    let raw = comm.as_raw();
    // Dropping them would free the communicator and wait for all ranks in MPI_Finalize, in a panic too: `finish` does
    // it in the orderly case, and what else happens ends the process without it.
    std::mem::forget(comm);
    std::mem::forget(universe);
    let (rank, size) = (usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(1));
    if threading < Threading::Serialized {
        return Err(refuse(
            "this MPI lets only the first thread communicate (it lacks MPI_THREAD_SERIALIZED)",
        ));
    }
    if (rank, size) != (world.rank, world.size) {
        return Err(Error::OtherWorld {
            launcher: world.launcher,
            rank: world.rank,
            size: world.size,
            mpi_rank: rank,
            mpi_size: size,
        });
    }
    // SAFETY: the communicator is ours, and MPI_ERRORS_RETURN is predefined. Without it an error ends the process with
    // the library's words instead of ours, which is no harm.
    unsafe { ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN) };
    let host = mpi::environment::processor_name().unwrap_or_else(|_| "a host without a name".into());
    Ok(MpiLink { comm: raw, rank, size, host, finished: false })
}

fn check(call: &'static str, code: c_int) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::Engine { call, problem: format!("error {code}") }),
    }
}

fn count(call: &'static str, length: usize) -> Result<c_int> {
    c_int::try_from(length)
        .map_err(|_| Error::Engine { call, problem: format!("a message of {length} bytes is too long") })
}

fn peer(call: &'static str, rank: usize) -> Result<c_int> {
    c_int::try_from(rank).map_err(|_| Error::Engine { call, problem: format!("there is no rank {rank}") })
}

impl Link for MpiLink {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn host(&self) -> String {
        self.host.clone()
    }

    fn send(&mut self, to: usize, tag: i32, message: Slice) -> Result<Box<dyn Request>> {
        const CALL: &str = "MPI_Isend";
        let bytes = message.get();
        let (length, to) = (count(CALL, bytes.len())?, peer(CALL, to)?);
        let mut request = std::mem::MaybeUninit::uninit();
        // SAFETY: `bytes` is valid for `length` bytes and stays so: the request that owns it gives it up only after
        // MPI_Test said that it is done, or never. MPI fills `request` on success.
        let request = unsafe {
            let code = ffi::MPI_Isend(
                bytes.as_ptr().cast(),
                length,
                ffi::RSMPI_UINT8_T,
                to,
                tag,
                self.comm,
                request.as_mut_ptr(),
            );
            check(CALL, code)?;
            request.assume_init()
        };
        Ok(Box::new(Pending { request: Some(request), memory: Memory::Sent(message), length: 0 }))
    }

    fn receive(&mut self, from: usize, tag: i32, mut buffer: Vec<u8>) -> Result<Box<dyn Request>> {
        const CALL: &str = "MPI_Irecv";
        let (length, from) = (count(CALL, buffer.len())?, peer(CALL, from)?);
        let mut request = std::mem::MaybeUninit::uninit();
        // SAFETY: `buffer` is valid for `length` bytes; its heap memory does not move with the vector, and the request
        // that owns it touches it only after MPI_Test said that it is done. MPI fills `request` on success.
        let request = unsafe {
            let code = ffi::MPI_Irecv(
                buffer.as_mut_ptr().cast(),
                length,
                ffi::RSMPI_UINT8_T,
                from,
                tag,
                self.comm,
                request.as_mut_ptr(),
            );
            check(CALL, code)?;
            request.assume_init()
        };
        Ok(Box::new(Pending { request: Some(request), memory: Memory::Received(buffer), length: 0 }))
    }

    fn finish(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        // SAFETY: MPI was started by us and not ended yet; no request is open after an orderly run.
        check("MPI_Finalize", unsafe { ffi::MPI_Finalize() })
    }

    fn abort(&self, code: i32) {
        if !self.finished {
            // SAFETY: MPI runs; this ends the process, and with it all ranks.
            unsafe { ffi::MPI_Abort(self.comm, code) };
        }
    }
}

enum Memory {
    Sent(Slice),
    Received(Vec<u8>),
}

/// A message on its way, with its memory.
struct Pending {
    /// `None` once it is done.
    request: Option<ffi::MPI_Request>,
    memory: Memory,
    length: usize,
}

// SAFETY: a request is a handle, used by one thread at a time like the link that made it.
unsafe impl Send for Pending {}

impl Request for Pending {
    fn poll(&mut self) -> Result<bool> {
        const CALL: &str = "MPI_Test";
        let Some(request) = &mut self.request else { return Ok(true) };
        let mut done: c_int = 0;
        let mut status = std::mem::MaybeUninit::<ffi::MPI_Status>::zeroed();
        // SAFETY: the request is open; status and flag are ours. A status of zeros is plain data in every MPI.
        let status = unsafe {
            check(CALL, ffi::MPI_Test(request, &mut done, status.as_mut_ptr()))?;
            status.assume_init()
        };
        if done == 0 {
            return Ok(false);
        }
        self.request = None;
        if let Memory::Received(_) = self.memory {
            let mut length: c_int = 0;
            // SAFETY: the status of a receive that is done, and the type that it was posted with.
            check("MPI_Get_count", unsafe { ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut length) })?;
            self.length = usize::try_from(length).unwrap_or(0);
        }
        Ok(true)
    }

    fn take(&mut self) -> Vec<u8> {
        match (&mut self.memory, &self.request) {
            (Memory::Received(buffer), None) => {
                let mut bytes = std::mem::take(buffer);
                bytes.truncate(self.length);
                bytes
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.request.is_some() {
            // The library may still use it: such a run is about to end, and the memory stays until then.
            match &mut self.memory {
                Memory::Sent(slice) => std::mem::forget(std::sync::Arc::clone(&slice.bytes)),
                Memory::Received(buffer) => std::mem::forget(std::mem::take(buffer)),
            }
        }
    }
}
