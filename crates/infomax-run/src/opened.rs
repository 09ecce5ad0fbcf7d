//! A run whose model is used, by an evaluation or for its features.

use crate::assemble::params;
use crate::{Error, Images, ModelCard, Result, RunConfig, RunObserver, device};
use infomax_models::JointEmbedding;
use infomax_train::{Checkpoint, Needs, RunDir};
use std::path::{Path, PathBuf};

/// Which weights of a run are meant, and which images.
#[derive(Clone, Debug, Default)]
pub struct UseOptions {
    /// Other images than those of the run.
    pub data: Option<PathBuf>,
    /// Another checkpoint than the newest: its step, or its folder.
    pub checkpoint: Option<String>,
    /// Weights of the encoder from a file instead of a checkpoint: see [`WeightsFile`](crate::WeightsFile).
    pub init: Option<PathBuf>,
    /// Another device than that of the run, by its name: see [`device::open`].
    pub device: Option<String>,
}

/// A run with its images and its weights.
pub(crate) struct Opened {
    pub(crate) config: RunConfig,
    pub(crate) images: Images,
    pub(crate) learner: JointEmbedding,
    /// The number of finished steps of the weights.
    pub(crate) step: u64,
    /// What the checkpoint says of itself.
    pub(crate) card: Option<ModelCard>,
}

impl Opened {
    /// Opens a run that nobody has to hold: training may go on meanwhile, and the folder may be read-only.
    pub(crate) fn new(run: &Path, options: &UseOptions, observer: &mut dyn RunObserver) -> Result<Self> {
        let mut config = RunConfig::of_run(run)?;
        if let Some(data) = &options.data {
            config.data.source = crate::config::Source::Folder;
            config.data.path = Some(data.clone());
            (config.data.train_images, config.data.test_images) = (0, 0);
        }
        let checkpoint = match (&options.checkpoint, &options.init) {
            (Some(_), Some(_)) => {
                let text = "weights come from a checkpoint or from a file: leave --checkpoint or --init out";
                return Err(Error::Config(text.into()));
            }
            (None, Some(_)) => None,
            (Some(which), None) => Some(Checkpoint::open_for(named(run, which)?, Needs::Model)?),
            (None, None) => {
                let found =
                    RunDir::latest_model(run)?.ok_or_else(|| Error::NoCheckpoint { path: run.to_owned() })?;
                found.warnings.iter().for_each(|warning| observer.on_warning(warning));
                Some(found.checkpoint)
            }
        };
        let images = Images::open(&config.data)?;
        config.settle(&images)?;
        let chosen = device::open(options.device.as_ref().unwrap_or(&config.train.device))?;
        if let Some(warning) = &chosen.warning {
            observer.on_warning(warning);
        }
        let params = params(&config, &chosen.device);
        let learner = JointEmbedding::new(&config.model, &params)?;
        let (step, card) = match (&checkpoint, &options.init) {
            (Some(checkpoint), _) => {
                checkpoint.load_model(&params)?;
                (checkpoint.state().step, ModelCard::of(checkpoint)?)
            }
            (None, Some(path)) => {
                crate::weights::init(&config, path, &params)?.iter().for_each(|note| observer.on_note(note));
                (0, None)
            }
            (None, None) => (0, None),
        };
        Ok(Self { config, images, learner, step, card })
    }
}

/// The folder of a checkpoint that a person named by its step or its path.
pub(crate) fn named(run: &Path, which: &str) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    let path = match which.parse::<u64>() {
        Ok(step) => folder.join(format!("step-{step:08}")),
        Err(_) => PathBuf::from(which),
    };
    if path.is_dir() {
        return Ok(path);
    }
    let there = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut there: Vec<u64> =
        there.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()).collect();
    there.sort_unstable();
    let steps = there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::Config(format!(
        "there is no checkpoint {which}: {} has those of the steps {steps}; give a step or a folder",
        run.display()
    )))
}
