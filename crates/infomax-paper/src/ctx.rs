//! What an experiment is given: its preset, its seeds, its images and encoders, and who watches.

use crate::encoders::{Method, Trained};
use crate::{Error, Result};
use infomax_run::{Images, RunConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The size of experiments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Seconds: whether everything runs. Its verdicts mean nothing.
    Smoke,
    /// An hour for all experiments on two cores.
    #[default]
    Small,
    /// The paper's scale: a GPU, ResNet-18.
    Full,
}

impl Preset {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

/// What is run, and where it goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The size.
    pub preset: Preset,
    /// The images; `None` for the embedded data set.
    pub data: Option<PathBuf>,
    /// The number of seeds; `None` for that of the preset.
    pub seeds: Option<u64>,
    /// The folder of the report, the numbers and the encoders.
    pub out: PathBuf,
    /// Whether findings that are there already, of the same settings and complete, are taken over.
    pub resume: bool,
    /// The threads of the loader; 0 for one a core.
    pub workers: usize,
    /// Changes the configuration of every encoder before it is trained: its result is part of the hash that encoders
    /// are kept by.
    pub adjust: fn(&mut RunConfig),
    /// The machine, in words, for the report.
    pub machine: String,
    /// The command, for the report.
    pub command: String,
    /// Ends the work at the next place where nothing is lost, once it is set.
    pub stop: Arc<AtomicBool>,
}

impl Settings {
    /// The preset `small` with the embedded data set, below a folder.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            preset: Preset::default(),
            data: None,
            seeds: None,
            out: out.into(),
            resume: false,
            workers: 0,
            adjust: |_| {},
            machine: String::new(),
            command: String::new(),
            stop: Arc::default(),
        }
    }
}

/// The surroundings of an experiment.
pub(crate) struct Ctx<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) say: &'a mut dyn FnMut(&str),
    /// The images, opened once.
    pub(crate) images: Option<(RunConfig, Images)>,
    /// What failed in the present experiment.
    pub(crate) missing: Vec<String>,
    /// The configurations that took part in the present experiment.
    pub(crate) configurations: Vec<(String, String)>,
    /// Encoders that failed in this process: they are not tried again by the next experiment.
    pub(crate) failed: Vec<(String, String)>,
}

impl<'a> Ctx<'a> {
    pub(crate) fn new(settings: &'a Settings, say: &'a mut dyn FnMut(&str)) -> Self {
        let (missing, configurations, failed) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, say, images: None, missing, configurations, failed }
    }

    /// The value of the preset.
    pub(crate) fn pick<T>(&self, smoke: T, small: T, full: T) -> T {
        match self.settings.preset {
            Preset::Smoke => smoke,
            Preset::Small => small,
            Preset::Full => full,
        }
    }

    /// The seeds of experiments that train.
    pub(crate) fn seeds(&self) -> std::ops::Range<u64> {
        0..self.settings.seeds.unwrap_or_else(|| self.pick(2, 3, 5))
    }

    /// The seeds of experiments that only compute, which cost little.
    pub(crate) fn starts(&self) -> std::ops::Range<u64> {
        0..self.settings.seeds.unwrap_or(0).max(self.pick(4, 20, 50))
    }

    pub(crate) fn note(&mut self, line: &str) {
        (self.say)(line);
    }

    /// Ends the work if that is asked for.
    pub(crate) fn check(&self) -> Result<()> {
        if self.settings.stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// An encoder of a method and seed, trained or from the cache; `None`, with the reason in `missing`, if its training
    /// failed.
    pub(crate) fn encoder(&mut self, method: &Method, seed: u64) -> Result<Option<Trained>> {
        self.check()?;
        let name = format!("{} seed {seed}", method.name);
        if let Some((_, reason)) = self.failed.iter().find(|(failed, _)| *failed == name) {
            self.missing.push(format!("{name}: {reason}"));
            return Ok(None);
        }
        match crate::encoders::trained(self, method, seed) {
            Ok(trained) => Ok(Some(trained)),
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error @ (Error::Config(_) | Error::Io { .. })) => Err(error),
            Err(error) => {
                let reason = error.to_string();
                self.note(&format!("{name} failed and is left out: {reason}"));
                self.missing.push(format!("{name}: {reason}"));
                self.failed.push((name, reason));
                Ok(None)
            }
        }
    }

    /// All encoders of some methods over the seeds; what failed is left out.
    pub(crate) fn encoders(&mut self, methods: &[Method]) -> Result<Vec<Trained>> {
        let mut all = Vec::new();
        for seed in self.seeds() {
            for method in methods {
                all.extend(self.encoder(method, seed)?);
            }
        }
        Ok(all)
    }
}
