//! Processes of a data-parallel run: [`infomax_core::Collective`] over engines that clusters already have.
//!
#![doc = include_str!("../README.md")]

mod engine;
mod error;
mod guard;
mod header;
pub mod link;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod ranks;
mod sum;
mod tcp;
mod values;
mod world;

pub use error::{Error, Result};
pub use guard::guarded;
pub use ranks::{Limits, Ranks, Report};
pub use world::World;
pub use {candle_core, infomax_core};

/// Joins the processes that a launcher started together; `None` for a single one, which needs no engine.
///
/// It is to be called once, before threads are started. `report` is where the watchdog says why it ends the process;
/// everything else comes back as an error.
///
/// A launcher of MPI is joined by MPI, if this program has it; every other one over TCP, where [`World::master`] says.
///
/// # Errors
/// [`Error::NotBuilt`] in a program without MPI and without a place to meet, [`Error::OtherWorld`] where MPI sees other
/// processes than the launcher's variables name, [`Error::Meeting`] where processes did not find each other over TCP,
/// [`Error::Engine`]; [`Error::Late`] with the ranks that did not come.
pub fn connect(world: Option<&World>, limits: Limits, report: Report) -> Result<Option<Ranks>> {
    match world {
        Some(world) if world.size > 1 => start(world, limits, report).map(Some),
        _ => Ok(None),
    }
}

/// Whether this program can join processes over MPI.
pub fn has_mpi() -> bool {
    cfg!(feature = "mpi")
}

/// Whether this program sends large tensors of CUDA devices over NCCL.
pub fn has_nccl() -> bool {
    cfg!(feature = "nccl")
}

/// A rank by itself, which exchanges with nobody and still goes every way that several go: for checks of NCCL on one card.
///
/// # Errors
/// A watchdog that cannot be started.
pub fn alone(limits: Limits, report: Report) -> Result<Ranks> {
    let world = World {
        rank: 0,
        size: 1,
        local_rank: None,
        local_size: None,
        launcher: "nobody",
        mpi: false,
        master: None,
    };
    start(&world, limits, report)
}

fn start(world: &World, limits: Limits, report: Report) -> Result<Ranks> {
    #[cfg(feature = "mpi")]
    if world.is_joined_by_mpi() {
        return Ranks::over(Box::new(mpi::start(world)?), limits, Some(report));
    }
    if world.mpi && world.master.is_none() {
        return Err(Error::NotBuilt { rank: world.rank, size: world.size, launcher: world.launcher });
    }
    Ranks::over(Box::new(tcp::start(world, limits)?), limits, Some(report))
}
