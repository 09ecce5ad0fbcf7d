//! Processes that a launcher started together: joined for `pretrain`, refused for what one process does.

use crate::pretrain;
use anyhow::{Result, bail};
use infomax_core::{Collective, Local};
use infomax_ranks::{Limits, Ranks, Report, World, connect, guarded};
use std::sync::Arc;
use std::time::Duration;

/// This process, alone or one of several.
pub(crate) struct Job {
    ranks: Option<Ranks>,
    /// What the launcher says of the place of this process on its host.
    local_rank: Option<usize>,
}

fn world() -> Result<Option<World>> {
    Ok(World::of_variables(|name| std::env::var(name).ok())?)
}

/// Refuses to do the work of one process several times.
pub(crate) fn alone(command: &str) -> Result<()> {
    match world()? {
        Some(world) if world.size > 1 => bail!(
            "`infomax {command}` is the work of one process, and this is process {} of {} (started by {}); only `infomax \
             pretrain` shares its work",
            world.rank,
            world.size,
            world.launcher
        ),
        _ => Ok(()),
    }
}

/// Runs work that the ranks share. What fails on one of them ends all.
pub(crate) fn run<T>(timeout: Option<f64>, work: impl FnOnce(&Job) -> Result<T>) -> Result<T> {
    let mut limits = Limits::default();
    if let Some(seconds) = timeout {
        let Some(usual) = Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero()) else {
            bail!("--rank-timeout {seconds}: seconds above 0 are needed");
        };
        limits = Limits { usual, first: usual * 10 };
    }
    let report: Report = Arc::new(|text: &str| {
        pretrain::ended();
        crate::say!("error: {text}");
    });
    let world = world()?;
    if let Some(world @ World { rank, size: 2.., master: Some((host, port)), .. }) = &world
        && !world.is_joined_by_mpi()
    {
        crate::say!(
            "rank {rank} of {}: meeting the others at {host}:{port}, for at most {:.0} s",
            world.size,
            limits.first.as_secs_f64()
        );
    }
    let Some(ranks) = connect(world.as_ref(), limits, report.clone())? else {
        return work(&Job { ranks: None, local_rank: None });
    };
    let local_rank = world.and_then(|world| world.local_rank);
    let job = Job { ranks: Some(ranks.clone()), local_rank };
    // Launchers send the signal of a stop to the ranks of a job that failed.
    let result = guarded(&ranks, &report, || {
        let result = work(&job).map_err(|error| crate::said(&error));
        pretrain::ended();
        result
    });
    ranks.finish()?;
    Ok(result)
}

impl Job {
    /// The processes, as training knows them.
    pub(crate) fn collective(&self) -> Arc<dyn Collective> {
        match &self.ranks {
            Some(ranks) => ranks.handle(),
            None => Arc::new(Local),
        }
    }

    /// The number of this process on its host; nothing for a single one.
    pub(crate) fn local_rank(&self) -> Option<usize> {
        let ranks = self.ranks.as_ref()?;
        Some(self.local_rank.unwrap_or_else(|| ranks.on_this_host_before()))
    }

    /// `rank 1 (node-7)`; nothing for a single process.
    pub(crate) fn name(&self) -> Option<String> {
        self.ranks.as_ref().map(Ranks::name)
    }

    /// Whether this process speaks and writes.
    pub(crate) fn is_root(&self) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)
    }

    /// The threads of this process, where the user names none and ranks share a host: an equal part of its cores, or all
    /// that the launcher bound it to.
    pub(crate) fn threads(&self) -> Option<usize> {
        let ranks = self.ranks.as_ref()?;
        let own = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = cores_online().is_some_and(|all| own < all);
        Some(if bound { own } else { (own / ranks.on_this_host()).max(1) })
    }

    /// With how many processes a run of these is continued; nothing for a single one.
    pub(crate) fn again(&self) -> String {
        self.ranks.as_ref().map_or_else(String::new, |ranks| format!(" (as {} processes)", ranks.size()))
    }

    /// The processes in words; nothing for a single one.
    pub(crate) fn describe(&self, threads: usize) -> Option<String> {
        let ranks = self.ranks.as_ref()?;
        let mut hosts = ranks.hosts().to_vec();
        hosts.sort();
        hosts.dedup();
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        Some(format!(
            "{} on {} ({}), {} each",
            plural(ranks.size(), "rank"),
            plural(hosts.len(), "host"),
            hosts.join(", "),
            plural(threads, "thread")
        ))
    }
}

/// The cores of this machine, whatever the process is bound to; known on Linux.
fn cores_online() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count(text.trim())
}

/// The numbers of a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => (to.parse::<usize>().ok()? + 1).checked_sub(from.parse().ok()?),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!([count("0"), count("0-3"), count("0-3,8,10-11")], [Some(1), Some(4), Some(7)]);
        assert_eq!([count(""), count("3-1"), count("x")], [None; 3]);
    }
}
