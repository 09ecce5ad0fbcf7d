//! The error of this crate.

/// What can go wrong between the processes of a run.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The variables of a launcher contradict each other.
    #[error("{variable} = {value}: {problem}")]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Why it has no meaning, and what it needs.
        problem: String,
    },
    /// Several processes were started by MPI, which this program does not have, without a place to meet over TCP.
    #[error(
        "this is process {rank} of {size} (started by {launcher}), and this program was built without mpi: each would \
         do all of the work alone. Build it with the feature `mpi` (`cargo build --release -p infomax-cli --features \
         mpi`; needs MPI with its headers, mpicc and libclang), or name the host of rank 0 and a free port on it in \
         MASTER_ADDR and MASTER_PORT for all of them, to join them over TCP"
    )]
    NotBuilt {
        /// The number of this process.
        rank: usize,
        /// How many were started.
        size: usize,
        /// What started them.
        launcher: &'static str,
    },
    /// MPI sees other processes than the launcher's variables name.
    #[error(
        "{launcher} says that this is process {rank} of {size}, and MPI that it is {mpi_rank} of {mpi_size}: start it by \
         the mpirun of the library that it is linked with, or by `srun --mpi=pmix`"
    )]
    OtherWorld {
        /// What started the processes.
        launcher: &'static str,
        /// The number of this process by the variables.
        rank: usize,
        /// The number of processes by the variables.
        size: usize,
        /// The number of this process by MPI.
        mpi_rank: usize,
        /// The number of processes by MPI.
        mpi_size: usize,
    },
    /// The processes did not find each other over TCP.
    #[error("rank {rank} of {size}: {problem}")]
    Meeting {
        /// The number of this process.
        rank: usize,
        /// The number of processes.
        size: usize,
        /// What is in the way, and what to do.
        problem: String,
    },
    /// The connection with a rank has ended.
    #[error("{who} closed its connection ({problem}): its process has ended, or its host or network is down")]
    Closed {
        /// The rank with its host.
        who: String,
        /// What the system says.
        problem: String,
    },
    /// A rank did not come in time.
    #[error(
        "waited {waited_s:.0} s in `{call}` (exchange {number}) for {missing}: stopped, much slower, or its host or \
         network is down; --rank-timeout sets the limit"
    )]
    Late {
        /// The operation.
        call: &'static str,
        /// Its number since the start.
        number: u64,
        /// The ranks that did not come, with their hosts.
        missing: String,
        /// Seconds of waiting.
        waited_s: f64,
    },
    /// A rank has left the run.
    #[error("{who} left the run: {reason}")]
    Left {
        /// The rank with its host.
        who: String,
        /// What it said.
        reason: String,
    },
    /// The ranks called different operations.
    #[error("`{call}` (exchange {number}), while {who} called `{other}` (exchange {other_number})")]
    Calls {
        /// The operation of this rank.
        call: &'static str,
        /// Its number since the start.
        number: u64,
        /// The other rank with its host.
        who: String,
        /// The operation of that rank.
        other: &'static str,
        /// The number of that one.
        other_number: u64,
    },
    /// What must agree on all ranks does not.
    #[error("{what}: {left} on {first}, {right} on {second}")]
    Unequal {
        /// What must agree.
        what: String,
        /// The first rank with its host.
        first: String,
        /// What it has.
        left: String,
        /// The second rank with its host.
        second: String,
        /// What it has.
        right: String,
    },
    /// The library or system below refused a call.
    #[error("`{call}` failed: {problem}")]
    Engine {
        /// The call.
        call: &'static str,
        /// What the library says.
        problem: String,
    },
    /// A message that is no message of this program.
    #[error("{who} sent something that is no message of this version: are all ranks the same program?")]
    Garbled {
        /// The rank with its host.
        who: String,
    },
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
