//! A failed step of a run, made again.

use crate::identity::identity;
use crate::{Assembly, Error, Result, RunConfig, RunObserver};
use infomax_core::Learner as _;
use infomax_train::{Checkpoint, Parts, Replay, RunDir, Trainer};
use std::path::{Path, PathBuf};

/// Where a capsule is replayed.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// The run that it belongs to; `None` for the one that it lies in.
    pub run: Option<PathBuf>,
    /// Where the images are now, if they moved.
    pub data: Option<PathBuf>,
    /// The threads of the loader; 0 for one a core. The result does not depend on it.
    pub workers: usize,
}

/// Builds a run anew from its configuration, sets it to the state that a capsule holds, and makes the step again that
/// failed there. Nothing in the run's folder changes.
///
/// # Errors
/// A folder that is no capsule, or outside of its run; a configuration or images that no longer fit.
pub fn replay(capsule: &Path, options: &ReplayOptions, observer: &mut dyn RunObserver) -> Result<Replay> {
    let checkpoint = Checkpoint::open(capsule)?;
    let absolute = std::path::absolute(capsule).map_err(|e| Error::io("find", capsule, e))?;
    let run = options.run.clone().or_else(|| absolute.parent()?.parent().map(Path::to_owned));
    let run = run.filter(|run| crate::runs::is_run(run)).ok_or_else(|| {
        Error::Config(format!(
            "{} is not in the folder of its run (RUN/capsules/step-N); name the run",
            capsule.display()
        ))
    })?;
    let mut config = RunConfig::of_run(&run)?;
    if let Some(data) = &options.data {
        config.data.source = crate::config::Source::Folder;
        config.data.path = Some(data.clone());
    }
    // A replay writes nothing.
    config.train.run.log.clear();
    // The length that a budget came to is in the capsule.
    let budget = config.train.run.budget.take();
    let assembly = Assembly::new(&config, options.workers)?;
    if let Some(warning) = &assembly.device_warning {
        observer.on_warning(warning);
    }
    let config = &assembly.config;
    // Of the run as it was.
    let mut told = config.clone();
    told.train.run.budget = budget;
    let identity = identity(&told, &assembly.images, assembly.learner.feature_dim(), 1)?;
    let mut parts = Parts::local(
        Box::new(assembly.learner),
        assembly.objective,
        assembly.optimizer,
        assembly.schedule,
        crate::ahead::source(assembly.loader, &assembly.device)?,
        config.train.run.clone(),
        RunDir::scratch()?,
    );
    (parts.identity, parts.device) = (identity, assembly.device);
    parts.courses = assembly.courses;
    Ok(Trainer::new(parts)?.replay(&checkpoint)?)
}
