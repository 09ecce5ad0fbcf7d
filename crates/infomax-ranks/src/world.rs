//! What launchers say of the processes that they start.

use crate::{Error, Result};

/// The place of this process among those that a launcher started together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The number of this process, `0 <= rank < size`.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// The number of this process on its host, where the launcher says so.
    pub local_rank: Option<usize>,
    /// The processes on its host, where the launcher says so.
    pub local_size: Option<usize>,
    /// The launcher in words.
    pub launcher: &'static str,
    /// Whether the launcher gives its processes what MPI needs to find each other.
    pub mpi: bool,
    /// Where processes meet without MPI: the host of rank 0, and a port that is free there.
    pub master: Option<(String, u16)>,
}

/// Words for a launcher, its names of rank, size, rank on the host and processes on the host, and a variable that is there
/// where it serves MPI; an empty one always is.
type Names = (&'static str, [&'static str; 4], Option<&'static str>);

/// In the order in which they are asked: an `mpirun` inside of a Slurm job counts before the job.
const LAUNCHERS: [Names; 4] = [
    (
        "mpirun of Open MPI",
        [
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        ],
        Some(""),
    ),
    (
        "a PMI launcher such as MPICH's mpiexec",
        ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
        Some(""),
    ),
    // Of a step only: in the script of `sbatch` a plain command is one process, whatever SLURM_NTASKS says.
    ("srun of Slurm", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""], Some("PMIX_RANK")),
    ("torchrun or variables like its own", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"], None),
];

impl World {
    /// Whether this program joins these processes over MPI; else they meet over TCP.
    pub fn is_joined_by_mpi(&self) -> bool {
        self.mpi && crate::has_mpi()
    }

    /// Reads the variables of Open MPI (`OMPI_COMM_WORLD_*`), of PMI (`PMI_RANK`, `PMI_SIZE`: MPICH, Intel MPI,
    /// `srun --mpi=pmi2`), of Slurm's steps (`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`) and of torchrun (`RANK`,
    /// `WORLD_SIZE`); the first that name a number of processes count. `None` where none does.
    ///
    /// `PMIX_RANK` has no number of processes beside it; launchers that set it set others of these, too.
    ///
    /// `MASTER_ADDR` and `MASTER_PORT` name where processes meet without MPI, whoever started them. torchrun itself listens at
    /// that port where it sets `TORCHELASTIC_USE_AGENT_STORE`: then the next port is taken.
    ///
    /// ```
    /// use infomax_ranks::World;
    /// let variables = [("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "node-0"), ("MASTER_PORT", "29500")];
    /// let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
    /// let world = World::of_variables(get)?.expect("there are several");
    /// assert_eq!((world.rank, world.size), (1, 4));
    /// assert_eq!(world.master, Some(("node-0".to_owned(), 29500)));
    /// # Ok::<(), infomax_ranks::Error>(())
    /// ```
    ///
    /// # Errors
    /// A value that is no number, a number of processes without a rank, a rank that is not below it; one of `MASTER_ADDR` and
    /// `MASTER_PORT` without the other.
    pub fn of_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |variable: &'static str| match get(variable).filter(|_| !variable.is_empty()) {
            None => Ok(None),
            Some(value) => value.trim().parse::<usize>().map(Some).map_err(|_| Error::Variable {
                variable,
                problem: "must be a number of processes or of one of them".into(),
                value,
            }),
        };
        for (launcher, [rank, size, local_rank, local_size], serves) in LAUNCHERS {
            let Some(count) = number(size)? else { continue };
            let refuse = |value: usize, problem: String| {
                Err(Error::Variable { variable: size, value: value.to_string(), problem })
            };
            let Some(own) = number(rank)? else {
                return refuse(count, format!("{rank} is not set, which numbers this process"));
            };
            if own >= count {
                return refuse(count, format!("{rank} = {own} must be below it"));
            }
            let (local_rank, local_size) = (number(local_rank)?, number(local_size)?);
            let mpi = serves.is_some_and(|name| name.is_empty() || get(name).is_some());
            let master = master(&get)?;
            return Ok(Some(Self { rank: own, size: count, local_rank, local_size, launcher, mpi, master }));
        }
        // RANK alone may be of any program; with a place to meet it is one of several, whose number is missing.
        match get("RANK").filter(|rank| rank.trim().parse::<usize>().is_ok()) {
            Some(rank) if master(&get)?.is_some() => Err(Error::Variable {
                variable: "RANK",
                value: rank,
                problem: "WORLD_SIZE is not set beside it and MASTER_ADDR, the number of processes".into(),
            }),
            _ => Ok(None),
        }
    }
}

/// Where processes meet without MPI.
fn master(get: &impl Fn(&str) -> Option<String>) -> Result<Option<(String, u16)>> {
    const NAMES: [&str; 2] = ["MASTER_ADDR", "MASTER_PORT"];
    let [host, port] = NAMES.map(|name| get(name).filter(|value| !value.trim().is_empty()));
    let refuse = |variable, value: &str, problem: &str| {
        Err(Error::Variable { variable, value: value.to_owned(), problem: problem.to_owned() })
    };
    match (host, port) {
        (None, None) => Ok(None),
        (Some(host), None) => {
            refuse(NAMES[0], &host, "MASTER_PORT is not set beside it, a port that is free there")
        }
        (None, Some(port)) => refuse(NAMES[1], &port, "MASTER_ADDR is not set beside it, the host of rank 0"),
        (Some(host), Some(port)) => {
            let taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
            match port.trim().parse::<u16>().ok().and_then(|port| port.checked_add(u16::from(taken))) {
                None | Some(0) => {
                    refuse(NAMES[1], &port, "must be a port, 1 to 65535 (under torchrun 65534)")
                }
                Some(port) => Ok(Some((host.trim().to_owned(), port))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &[(&str, &str)]) -> Result<Option<World>> {
        World::of_variables(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_launcher_is_understood_and_mpirun_inside_of_slurm_counts_first() {
        let open = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2"), ("SLURM_PROCID", "0")];
        let found = world(&[&open[..], &[("SLURM_STEP_NUM_TASKS", "1")]].concat()).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.launcher), (1, 2, "mpirun of Open MPI"));
        let pmi = world(&[("PMI_RANK", "3"), ("PMI_SIZE", "4")]).unwrap().unwrap();
        assert_eq!((pmi.rank, pmi.size, pmi.local_rank), (3, 4, None));
        let slurm = [("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_LOCALID", "1")];
        let slurm = world(&slurm).unwrap().unwrap();
        assert_eq!((slurm.rank, slurm.size, slurm.local_rank, slurm.mpi), (5, 8, Some(1), false));
        let pmix = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("PMIX_RANK", "0")];
        assert!(world(&pmix).unwrap().unwrap().mpi && found.mpi && pmi.mpi);
        let torch = [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")];
        let torch = world(&torch).unwrap().unwrap();
        assert_eq!((torch.rank, torch.size, torch.local_size, torch.mpi), (0, 2, Some(2), false));
        assert_eq!(torch.master, None);
    }

    #[test]
    fn the_place_to_meet_is_read_and_torchrun_has_taken_its_own_port() {
        let own = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", " node-0 "), ("MASTER_PORT", "29500")];
        let master = |more: &[(&str, &str)]| world(&[&own[..], more].concat()).unwrap().unwrap().master;
        assert_eq!(master(&[]), Some(("node-0".into(), 29500)));
        assert_eq!(master(&[("TORCHELASTIC_USE_AGENT_STORE", "True")]), Some(("node-0".into(), 29501)));
        assert_eq!(master(&[("TORCHELASTIC_USE_AGENT_STORE", "False")]), Some(("node-0".into(), 29500)));
        let error =
            |variables: &[(&str, &str)]| world(&[&own[..2], variables].concat()).unwrap_err().to_string();
        assert!(error(&[("MASTER_ADDR", "x")]).contains("MASTER_PORT is not set"));
        assert!(error(&[("MASTER_PORT", "29500")]).contains("MASTER_ADDR is not set"));
        for port in ["0", "65536", "http"] {
            let text = error(&[("MASTER_ADDR", "x"), ("MASTER_PORT", port)]);
            assert!(text.contains(&format!("MASTER_PORT = {port}: must be a port")), "{text}");
        }
    }

    #[test]
    fn one_process_alone_and_the_script_of_a_batch_job_are_no_world() {
        assert_eq!(world(&[]).unwrap(), None);
        assert_eq!(world(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]).unwrap(), None);
        // A rank without a number of processes: what other programs call RANK.
        assert_eq!(world(&[("RANK", "captain")]).unwrap(), None);
        let place = [("MASTER_ADDR", "node-0"), ("MASTER_PORT", "29500")];
        assert_eq!(world(&place).unwrap(), None);
        let lost = world(&[&place[..], &[("RANK", "1")]].concat()).unwrap_err().to_string();
        assert!(lost.contains("RANK = 1: WORLD_SIZE is not set"), "{lost}");
    }

    #[test]
    fn contradictions_name_their_variable() {
        let error = |variables| world(variables).unwrap_err().to_string();
        assert!(error(&[("WORLD_SIZE", "2")]).contains("RANK is not set"));
        assert!(error(&[("WORLD_SIZE", "2"), ("RANK", "2")]).contains("RANK = 2 must be below"));
        assert!(error(&[("PMI_SIZE", "two"), ("PMI_RANK", "0")]).contains("PMI_SIZE = two"));
    }
}
