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
mod ranks;
mod sum;
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
/// # Errors
/// [`Error::NotBuilt`] in a program without an engine, [`Error::OtherWorld`] where MPI sees other processes than the
/// launcher's variables name, [`Error::Engine`]; [`Error::Late`] with the ranks that did not come.
pub fn connect(world: Option<&World>, limits: Limits, report: Report) -> Result<Option<Ranks>> {
    match world {
        Some(world) if world.size > 1 => start(world, limits, report).map(Some),
        _ => Ok(None),
    }
}

/// Whether this program has an engine between processes.
pub fn is_built() -> bool {
    cfg!(feature = "mpi")
}

#[cfg(feature = "mpi")]
fn start(world: &World, limits: Limits, report: Report) -> Result<Ranks> {
    Ranks::over(Box::new(mpi::start(world)?), limits, Some(report))
}

#[cfg(not(feature = "mpi"))]
fn start(world: &World, _: Limits, _: Report) -> Result<Ranks> {
    Err(Error::NotBuilt { rank: world.rank, size: world.size, launcher: world.launcher })
}
