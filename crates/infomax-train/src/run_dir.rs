//! The folder of a run.

use crate::checkpoint::{self, Checkpoint, Needs, State, Tensors};
use crate::logs::{LogFormat, Logs};
use crate::{Error, Result, RunState, StepMetrics, files, metrics};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const LOG: &str = "log.txt";
const CHECKPOINTS: &str = "checkpoints";
const CAPSULES: &str = "capsules";
pub(crate) const LOCK: &str = ".lock";

/// The newest checkpoint that can be loaded, and what was passed over on the way to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// One line for each newer checkpoint that is damaged. Show them.
    pub warnings: Vec<String>,
    damaged: Vec<PathBuf>,
}

/// The folder of a run, held by one process at a time (a lock on `.lock` that ends with the process).
///
/// ```text
/// RUN/config.toml       the resolved configuration
/// RUN/metrics.jsonl     one line for each logged step
/// RUN/log.txt           what happened, with times
/// RUN/checkpoints/step-00000120/{model,optimizer,objective}.safetensors, state.json
/// RUN/capsules/step-00000120/ the same, of a step that failed: see [`crate::Trainer::replay`]
/// RUN/metrics.csv, tensorboard/, mlruns/ what [`LogFormat`] asks for
/// ```
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The files that this process appends to; `None` for a rank that only reads.
    held: Option<Held>,
    logs: Logs,
    /// The folder of a run that leaves nothing.
    _scratch: Option<tempfile::TempDir>,
}

/// What the process has open that writes a run.
#[derive(Debug)]
struct Held {
    metrics: File,
    log: File,
    _lock: File,
}

impl RunDir {
    /// Creates the folder of a new run. One that a run left before its first logged step and its first checkpoint is
    /// taken over: there is nothing in it to lose.
    ///
    /// # Errors
    /// [`Error::RunExists`] if there is a run already, [`Error::Busy`] if one is starting there; [`Error::Io`] with the
    /// path otherwise.
    pub fn create(path: impl Into<PathBuf>, config: &str) -> Result<Self> {
        let path = path.into();
        // Devices as well: nothing in them can be read, as in a run of somebody else.
        let nearest = path.ancestors().find(|above| !above.as_os_str().is_empty() && above.exists());
        if nearest.is_some_and(|above| !above.is_dir()) {
            let why = "a file is there, and a run is a folder";
            let error = std::io::Error::new(std::io::ErrorKind::NotADirectory, why);
            return Err(Error::io("create", &path, error));
        }
        if has_results(&path) {
            return Err(Error::RunExists { path });
        }
        if is_of_others(&path) {
            let problem =
                "it holds other files, and a run has a folder of its own; name a new one".to_owned();
            return Err(Error::NotARun { path, problem });
        }
        files::create_dir(&path)?;
        files::create_dir(&path.join(CHECKPOINTS))?;
        let run = Self::hold(path)?;
        // Last, so that a folder with a configuration is a whole run.
        files::replace(&run.path.join(CONFIG), config.as_bytes())?;
        Ok(run)
    }

    /// Opens the folder of a run in order to continue it, and removes what a killed process left.
    ///
    /// # Errors
    /// [`Error::NotARun`], [`Error::Busy`], or [`Error::Io`] with the path.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        is_run(&path)?;
        files::create_dir(&path.join(CHECKPOINTS))?;
        let run = Self::hold(path)?;
        checkpoint::clean(&run.checkpoints())?;
        Ok(run)
    }

    fn hold(path: PathBuf) -> Result<Self> {
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
            // Some network file systems have no locks: then the user has to take care.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &lock_path, e)),
        }
        let append = |name: &str| {
            let file = path.join(name);
            OpenOptions::new().create(true).append(true).open(&file).map_err(|e| Error::io("open", &file, e))
        };
        let held = Held { metrics: append(METRICS)?, log: append(LOG)?, _lock: lock };
        Ok(Self { held: Some(held), logs: Logs::default(), _scratch: None, path })
    }

    /// The folder of a run that another process writes: the ranks of a data-parallel run read its checkpoints, and all
    /// that they would write is left to rank 0.
    pub fn follow(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: None, logs: Logs::default(), _scratch: None }
    }

    /// Whether this process writes the run.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// A folder in the place for temporary files, which goes with this value.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn scratch() -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| Error::io("create", Path::new("a temporary folder"), e))?;
        let mut run = Self::create(dir.path(), "")?;
        run._scratch = Some(dir);
        Ok(run)
    }

    /// Writes the metrics in these formats, too, from the next line on, with all that is there already.
    pub(crate) fn write_logs(&mut self, formats: &[LogFormat]) {
        self.logs = Logs::new(formats);
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// A file that cannot be read or is no text.
    pub fn config(&self) -> Result<String> {
        Self::config_of(&self.path)
    }

    /// The text of the `config.toml` of a run that is not held.
    ///
    /// # Errors
    /// [`Error::NotARun`], or a file that cannot be read or is no text.
    pub fn config_of(path: &Path) -> Result<String> {
        is_run(path)?;
        let file = path.join(CONFIG);
        std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, e))
    }

    /// Writes a file of the run, such as an evaluation, as a whole: there is the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        files::replace(&self.path.join(name), bytes)
    }

    /// Writes a file into the folder of a run that is not held: an evaluation may go on beside the training.
    ///
    /// # Errors
    /// [`Error::NotARun`]; [`Error::Io`] with the path, for example of a folder that may only be read.
    pub fn write_into(path: &Path, name: &str, bytes: &[u8]) -> Result<()> {
        is_run(path)?;
        files::replace(&path.join(name), bytes)
    }

    /// Appends a line to the log, with the time in UTC.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn log(&mut self, message: &str) -> Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let line = format!("{:.3} {message}\n", jiff::Timestamp::now());
        held.log.write_all(line.as_bytes()).map_err(|e| Error::io("write", &self.path.join(LOG), e))?;
        match RunState::of_message(message) {
            Some((state, _)) => self.logs.end(state),
            None => Ok(()),
        }
    }

    /// The folder of the run that this file is a part of: one without which it cannot be continued or read, be it there. What
    /// is made of a run, such as `metrics.csv`, is none.
    pub fn of_file(path: &Path) -> Option<PathBuf> {
        const FILES: [&str; 4] = [CONFIG, METRICS, LOG, "evaluation.json"];
        let path = fs::canonicalize(path).ok()?;
        let run = path.ancestors().skip(1).find(|folder| {
            folder.join(CONFIG).is_file() && (folder.join(LOG).is_file() || folder.join(CHECKPOINTS).is_dir())
        })?;
        let mut inside = path.strip_prefix(run).ok()?.iter();
        let first = inside.next()?.to_str()?;
        let own = if inside.next().is_none() { &FILES[..] } else { &[CHECKPOINTS, CAPSULES] };
        own.contains(&first).then(|| run.to_owned())
    }

    /// The capsules of a run, the oldest step first; `None` for a folder that is no run and has none.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn capsules(path: &Path) -> Result<Option<Vec<PathBuf>>> {
        let folder = path.join(CAPSULES);
        if !folder.is_dir() {
            return Ok(is_run(path).is_ok().then(Vec::new));
        }
        Ok(Some(checkpoint::list(&folder)?.into_iter().map(|(_, path)| path).collect()))
    }

    /// The newest checkpoint that can be continued, `None` if there is none at all. The run need not be held.
    ///
    /// # Errors
    /// [`Error::NoGoodCheckpoint`] if there are checkpoints and all are damaged; [`Error::FormatVersion`] if
    /// the newest was written by another version, since an older one would silently lose work.
    pub fn latest(path: &Path) -> Result<Option<Found>> {
        Self::newest(path, Needs::All)
    }

    /// The newest checkpoint whose model can be loaded: what is asked of an evaluation or an export, which needs
    /// no state of an optimizer.
    ///
    /// # Errors
    /// As [`RunDir::latest`].
    pub fn latest_model(path: &Path) -> Result<Option<Found>> {
        Self::newest(path, Needs::Model)
    }

    fn newest(path: &Path, needs: Needs) -> Result<Option<Found>> {
        is_run(path)?;
        let folder = path.join(CHECKPOINTS);
        if !folder.is_dir() {
            return Ok(None);
        }
        let (mut warnings, mut damaged) = (Vec::new(), Vec::new());
        for (_, path) in checkpoint::list(&folder)?.into_iter().rev() {
            match Checkpoint::open_for(&path, needs) {
                Ok(checkpoint) => return Ok(Some(Found { checkpoint, warnings, damaged })),
                Err(error @ Error::Damaged { .. }) => {
                    warnings.push(error.to_string());
                    damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        if warnings.is_empty() {
            return Ok(None);
        }
        Err(Error::NoGoodCheckpoint { path: path.to_owned(), problems: warnings })
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Replaces the configuration: a run that is extended has another one.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn replace_config(&self, config: &str) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        files::replace(&self.path.join(CONFIG), config.as_bytes())
    }

    /// Goes back to a checkpoint: sets damaged ones aside and cuts the metrics off after its step.
    pub(crate) fn rewind(&mut self, found: &Found) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        for path in &found.damaged {
            let to = checkpoint::set_aside(path)?;
            self.log(&format!("warning: damaged checkpoint {} moved to {}", path.display(), to.display()))?;
        }
        self.rewind_to(found.checkpoint.state().step)
    }

    /// Leaves no metrics of later steps than `step`.
    pub(crate) fn rewind_to(&mut self, step: u64) -> Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        self.logs.restart();
        let file = self.path.join(METRICS);
        let bytes = files::read(&file)?;
        let keep = metrics::keep_len(&bytes, step);
        // A file opened for appending goes on at its new end.
        let cut = || held.metrics.set_len(keep as u64).and_then(|()| held.metrics.sync_all());
        cut().map_err(|e| Error::io("truncate", &file, e))
    }

    /// Appends a line of metrics.
    pub(crate) fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let file = self.path.join(METRICS);
        let mut line = serde_json::to_vec(metrics).map_err(|e| Error::io("encode", &file, e.into()))?;
        line.push(b'\n');
        held.metrics.write_all(&line).map_err(|e| Error::io("write", &file, e))?;
        self.logs.append(&self.path, &line)
    }

    /// Writes a checkpoint, and gives its path. The metrics up to it reach the disk first.
    pub(crate) fn save(
        &mut self,
        state: State,
        tensors: &Tensors,
        keep: usize,
        every: Option<u64>,
    ) -> Result<PathBuf> {
        let folder = self.checkpoints();
        let Some(held) = &self.held else { return Ok(checkpoint::path_of(&folder, state.step)) };
        held.metrics.sync_all().map_err(|e| Error::io("sync", &self.path.join(METRICS), e))?;
        let path = Checkpoint::write(&folder, state, tensors)?;
        checkpoint::prune(&folder, keep, every)?;
        Ok(path)
    }

    /// Writes a capsule: a checkpoint in a folder of its own, of which the newest `keep` stay. With its size in bytes.
    pub(crate) fn save_capsule(
        &self,
        state: State,
        tensors: &Tensors,
        keep: usize,
    ) -> Result<(PathBuf, u64)> {
        let folder = self.path.join(CAPSULES);
        files::create_dir(&folder)?;
        checkpoint::clean(&folder)?;
        // The same step that failed before: the newer one counts.
        checkpoint::discard(&folder, state.step)?;
        let path = Checkpoint::write(&folder, state, tensors)?;
        checkpoint::prune(&folder, keep, None)?;
        let mut bytes = 0;
        for entry in fs::read_dir(&path).map_err(|e| Error::io("read", &path, e))?.flatten() {
            bytes += entry.metadata().map_or(0, |file| file.len());
        }
        Ok((path, bytes))
    }
}

/// Whether a run logged a step or kept a checkpoint here; what cannot be read counts as a result.
fn has_results(path: &Path) -> bool {
    let metrics = match fs::metadata(path.join(METRICS)) {
        Ok(metrics) => metrics.len() > 0,
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    };
    let checkpoints = match fs::read_dir(path.join(CHECKPOINTS)) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    };
    metrics || checkpoints
}

/// Whether a folder has files, and not the one that a run begins with.
fn is_of_others(path: &Path) -> bool {
    !path.join(LOCK).exists() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

pub(crate) fn is_run(path: &Path) -> Result<()> {
    let problem = match () {
        () if !path.exists() => "there is no such folder".to_owned(),
        () if !path.join(CONFIG).is_file() => format!("it has no {CONFIG}"),
        () => return Ok(()),
    };
    Err(Error::NotARun { path: path.to_owned(), problem })
}
