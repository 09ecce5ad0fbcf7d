//! Messages over TCP, for launchers that start processes and nothing else: torchrun, `srun` without MPI, a shell.
//!
//! [`meet`] joins the processes; then each pair has a connection of its own, without a thread: whoever waits for a
//! message moves what is on its way on all of them.

mod meet;
mod peer;

use crate::link::{Link, Request, Slice};
use crate::{Error, Limits, Result, World};
use peer::Peer;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often all connections are looked at while one is waited for: others must not be held up by messages that nobody
/// here waits for yet.
const SWEEP: Duration = Duration::from_micros(200);

/// The ranks of a run, each connected with each.
pub(crate) struct TcpLink {
    rank: usize,
    size: usize,
    host: String,
    mesh: Arc<Mutex<Mesh>>,
}

impl std::fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TCP rank {} of {}", self.rank, self.size)
    }
}

/// The connections in the order of ranks; there is none with oneself.
struct Mesh {
    peers: Vec<Option<Peer>>,
    swept: Instant,
}

/// Joins the processes that meet at the address which [`World::master`] names.
///
/// # Errors
/// [`Error::Meeting`]: a port that is taken, an address at which nobody answers, ranks that did not come, processes of
/// another job or version.
pub(crate) fn start(world: &World, limits: Limits) -> Result<TcpLink> {
    let host = host_name();
    let peers = meet::meet(world, &host, Instant::now() + limits.first.max(limits.usual))?;
    let mesh = Arc::new(Mutex::new(Mesh { peers, swept: Instant::now() }));
    Ok(TcpLink { rank: world.rank, size: world.size, host, mesh })
}

/// The name of this host, where the system tells it as a file.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "a host without a name".to_owned(),
        name => name.to_owned(),
    }
}

fn lock(mesh: &Mutex<Mesh>) -> MutexGuard<'_, Mesh> {
    mesh.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mesh {
    fn peer(&mut self, rank: usize) -> Result<&mut Peer> {
        let missing =
            || Error::Engine { call: "TCP", problem: format!("there is no rank {rank} to talk to") };
        self.peers.get_mut(rank).and_then(Option::as_mut).ok_or_else(missing)
    }

    /// Moves what is on its way: with this rank, and now and then with all.
    fn advance(&mut self, rank: usize) -> Result<()> {
        if self.swept.elapsed() > SWEEP {
            self.peers.iter_mut().flatten().for_each(Peer::advance);
            self.swept = Instant::now();
        } else {
            self.peer(rank)?.advance();
        }
        Ok(())
    }
}

impl Link for TcpLink {
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
        let number = lock(&self.mesh).peer(to)?.send(tag, message);
        Ok(Box::new(Sent { mesh: self.mesh.clone(), to, number }))
    }

    fn receive(&mut self, from: usize, tag: i32, buffer: Vec<u8>) -> Result<Box<dyn Request>> {
        lock(&self.mesh).peer(from)?;
        let longest = buffer.len();
        Ok(Box::new(Received { mesh: self.mesh.clone(), from, tag, longest, came: None }))
    }

    fn finish(&mut self) -> Result<()> {
        // All that was sent is with the system, which delivers it after the end of this process, too.
        Ok(())
    }

    fn abort(&self, _: i32) {
        // The end of this process closes its connections, which the others see at once.
    }
}

struct Sent {
    mesh: Arc<Mutex<Mesh>>,
    to: usize,
    number: u64,
}

impl Request for Sent {
    fn poll(&mut self) -> Result<bool> {
        let mut mesh = lock(&self.mesh);
        if mesh.peer(self.to)?.is_sent(self.number)? {
            return Ok(true);
        }
        mesh.advance(self.to)?;
        mesh.peer(self.to)?.is_sent(self.number)
    }

    fn take(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

struct Received {
    mesh: Arc<Mutex<Mesh>>,
    from: usize,
    tag: i32,
    longest: usize,
    came: Option<Vec<u8>>,
}

impl Request for Received {
    fn poll(&mut self) -> Result<bool> {
        if self.came.is_some() {
            return Ok(true);
        }
        let mut mesh = lock(&self.mesh);
        let mut came = mesh.peer(self.from)?.take(self.tag)?;
        if came.is_none() {
            mesh.advance(self.from)?;
            came = mesh.peer(self.from)?.take(self.tag)?;
        }
        if came.as_ref().is_some_and(|bytes| bytes.len() > self.longest) {
            return Err(Error::Garbled { who: mesh.peer(self.from)?.who.clone() });
        }
        self.came = came;
        Ok(self.came.is_some())
    }

    fn take(&mut self) -> Vec<u8> {
        self.came.take().unwrap_or_default()
    }
}
