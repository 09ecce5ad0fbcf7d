//! Checkpoints on disk.

use crate::capsule::Failure;
use crate::monitor::{Health, HealthState};
use crate::{Error, Result, files};
use candle_core::{Device, Tensor};
use infomax_core::{Key, Params, Position};
use infomax_optim::Schedule;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of the layout of checkpoints that this build reads and writes.
pub const FORMAT_VERSION: u64 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const OBJECTIVE: &str = "objective.safetensors";
const WATCHERS: &str = "watchers.safetensors";
/// Of a run with local steps: the parameters at the last outer step and the outer momentum.
const OUTER: &str = "outer.safetensors";
/// Of a run with local steps: what the ranks carry that did not write it.
const OTHERS: &str = "ranks.safetensors";
/// The name of the metadatum of `model.safetensors` that says what the model is, as JSON.
pub const METADATA: &str = "infomax";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";
/// Names in `checkpoints/` that never are checkpoints, and that nobody misses.
const TEMPORARY: &str = ".tmp-";

/// What a checkpoint is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// To continue the run: every file.
    All,
    /// To use the model: its tensors alone.
    Model,
}

/// The length and the CRC-32 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileCheck {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32 (IEEE).
    pub crc32: u32,
}

impl FileCheck {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }
}

/// All of a run that is not a tensor: `state.json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u64,
    /// Finished steps.
    pub step: u64,
    /// The next batch.
    pub position: Position,
    /// The seed of the run.
    pub seed: u64,
    /// The key that the objective's randomness is folded from.
    pub key: Key,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// The courses of weight decay and momenta.
    #[serde(default, skip_serializing_if = "crate::Courses::is_empty")]
    pub courses: crate::Courses,
    /// Seconds of training, of a run with a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_s: Option<f64>,
    /// The dtype of the parameters.
    pub dtype: String,
    /// The name of the objective.
    pub objective: String,
    /// The name of the optimizer.
    pub optimizer: String,
    /// The monitor's verdict.
    pub health: Health,
    /// The measurements that the next verdict still depends on.
    pub monitor: Vec<(HealthState, String)>,
    /// What the run depends on, by name: a run that continues with other values is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
    /// The settings of the run, by key: a run that continues with other values says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// How the step after this state failed, if this is its capsule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The other files of the checkpoint.
    pub files: BTreeMap<String, FileCheck>,
    /// CRC-32 of this file's content as compact JSON with a 0 here.
    pub crc32: u32,
}

impl State {
    fn crc(&self) -> Result<u32> {
        let blank = Self { crc32: 0, ..self.clone() };
        let bytes =
            serde_json::to_vec(&blank).map_err(|e| Error::io("encode", Path::new(STATE), e.into()))?;
        Ok(crc32fast::hash(&bytes))
    }
}

/// The tensors of a checkpoint.
pub(crate) struct Tensors {
    pub(crate) model: BTreeMap<String, Tensor>,
    pub(crate) optimizer: BTreeMap<String, Tensor>,
    pub(crate) objective: BTreeMap<String, Tensor>,
    pub(crate) watchers: BTreeMap<String, Tensor>,
    pub(crate) outer: BTreeMap<String, Tensor>,
    pub(crate) others: BTreeMap<String, Tensor>,
    /// What the model is, for its file.
    pub(crate) description: String,
}

/// A checkpoint whose state was read and whose files were found whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: State,
}

impl Checkpoint {
    /// Opens a checkpoint and verifies length and CRC-32 of every file.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::FormatVersion`], or [`Error::Io`] if the folder cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_for(path, Needs::All)
    }

    /// [`Checkpoint::open`] with those files alone that are needed: what else is damaged does not matter then.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_for(path: impl Into<PathBuf>, needs: Needs) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such folder");
            return Err(Error::io("read", &path, source));
        }
        let file = path.join(STATE);
        let bytes = read(&file)?;
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| Error::damaged(&file, e.to_string()))?;
        // The version first: another one may well have other fields.
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(found) => return Err(Error::FormatVersion { path, found, known: FORMAT_VERSION }),
            None => return Err(Error::damaged(&file, "it has no format version")),
        }
        let state: State = serde_json::from_value(value).map_err(|e| Error::damaged(&file, e.to_string()))?;
        if state.crc()? != state.crc32 {
            return Err(Error::damaged(&file, "its content does not match its checksum"));
        }
        let checkpoint = Self { path, state };
        for name in checkpoint.state.files.keys().filter(|name| needs == Needs::All || *name == MODEL) {
            checkpoint.bytes(name)?;
        }
        Ok(checkpoint)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is not a tensor.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The parameters and buffers of the model, on the CPU.
    ///
    /// # Errors
    /// A file that is damaged since it was verified.
    pub fn model(&self) -> Result<BTreeMap<String, Tensor>> {
        self.tensors(MODEL)
    }

    /// Loads the parameters and buffers into a model.
    ///
    /// # Errors
    /// [`Error::OtherRun`] with the names or shapes that differ; the model is not changed then.
    pub fn load_model(&self, params: &Params) -> Result<()> {
        params.load(&self.model()?).map_err(|e| self.other_run(e.to_string()))
    }

    /// The state of the optimizer, on the CPU.
    ///
    /// # Errors
    /// As [`Checkpoint::model`].
    pub fn optimizer(&self) -> Result<BTreeMap<String, Tensor>> {
        self.tensors(OPTIMIZER)
    }

    /// The running state of the objective, on the CPU; empty if it has none.
    ///
    /// # Errors
    /// As [`Checkpoint::model`].
    pub fn objective(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.state.files.contains_key(OBJECTIVE) { self.tensors(OBJECTIVE) } else { Ok(BTreeMap::new()) }
    }

    /// The state of what was measured beside the training, on the CPU; empty if there is none.
    ///
    /// # Errors
    /// As [`Checkpoint::model`].
    pub fn watchers(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.state.files.contains_key(WATCHERS) { self.tensors(WATCHERS) } else { Ok(BTreeMap::new()) }
    }

    /// The parameters at the last outer step and the outer momentum of a run with local steps, on the CPU; empty for
    /// another.
    pub(crate) fn outer(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.state.files.contains_key(OUTER) { self.tensors(OUTER) } else { Ok(BTreeMap::new()) }
    }

    /// What the ranks of a run with local steps carry that did not write the checkpoint, on the CPU.
    pub(crate) fn others(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.state.files.contains_key(OTHERS) { self.tensors(OTHERS) } else { Ok(BTreeMap::new()) }
    }

    /// What `model.safetensors` says of itself, as JSON; `None` for a file without it.
    ///
    /// # Errors
    /// As [`Checkpoint::model`].
    pub fn description(&self) -> Result<Option<String>> {
        let bytes = self.bytes(MODEL)?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|e| Error::damaged(&self.path.join(MODEL), e.to_string()))?;
        Ok(metadata.metadata().as_ref().and_then(|all| all.get(METADATA)).cloned())
    }

    pub(crate) fn other_run(&self, problem: impl Into<String>) -> Error {
        Error::OtherRun { path: self.path.clone(), problem: problem.into() }
    }

    fn tensors(&self, name: &str) -> Result<BTreeMap<String, Tensor>> {
        let bytes = self.bytes(name)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| Error::damaged(&self.path.join(name), e.to_string()))?;
        Ok(tensors.into_iter().collect())
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.path.join(name);
        let Some(expected) = self.state.files.get(name) else {
            return Err(Error::damaged(&file, "it is not listed in state.json"));
        };
        let bytes = read(&file)?;
        let found = FileCheck::of(&bytes);
        if found.bytes != expected.bytes {
            let problem = format!("it has {} bytes, {} were written", found.bytes, expected.bytes);
            return Err(Error::damaged(&file, problem));
        }
        if found != *expected {
            return Err(Error::damaged(&file, "its content does not match its checksum"));
        }
        Ok(bytes)
    }

    /// Writes a checkpoint into `checkpoints`: under a temporary name, synced, then renamed.
    pub(crate) fn write(checkpoints: &Path, mut state: State, tensors: &Tensors) -> Result<PathBuf> {
        let target = path_of(checkpoints, state.step);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = checkpoints.join(format!("{TEMPORARY}{name}"));
        remove(&temporary)?;
        let written = (|| {
            files::create_dir(&temporary)?;
            let description = &tensors.description;
            let mut parts = vec![(MODEL, &tensors.model), (OPTIMIZER, &tensors.optimizer)];
            if !tensors.objective.is_empty() {
                parts.push((OBJECTIVE, &tensors.objective));
            }
            let more = [(WATCHERS, &tensors.watchers), (OUTER, &tensors.outer), (OTHERS, &tensors.others)];
            parts.extend(more.into_iter().filter(|(_, tensors)| !tensors.is_empty()));
            state.files.clear();
            for (name, tensors) in parts {
                let file = temporary.join(name);
                let description = (name == MODEL && !description.is_empty()).then_some(description.as_str());
                let bytes = encode(tensors, description)
                    .map_err(|e| Error::io("encode", &file, std::io::Error::other(e)))?;
                files::write_synced(&file, &bytes)?;
                state.files.insert(name.to_owned(), FileCheck::of(&bytes));
            }
            state.crc32 = state.crc()?;
            let file = temporary.join(STATE);
            let text = serde_json::to_vec_pretty(&state).map_err(|e| Error::io("encode", &file, e.into()))?;
            files::write_synced(&file, &text)?;
            files::sync_dir(&temporary)?;
            if target.exists() {
                set_aside(&target)?;
            }
            files::rename_synced(&temporary, &target)
        })();
        if let Err(error) = written {
            // A full disk: give back what the attempt took. The first error is the one that matters.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        Ok(target)
    }
}

/// Where the checkpoint of a step is.
pub(crate) fn path_of(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!("{PREFIX}{step:08}"))
}

/// Tensors as a safetensors file. A description is its metadatum `infomax`: one, since the file format leaves the
/// order of several open, and equal runs write equal bytes.
fn encode(
    tensors: &BTreeMap<String, Tensor>,
    description: Option<&str>,
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    // The conversion to bytes inside safetensors cannot report an error, so reading from a device comes first.
    let host = tensors.iter().map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.contiguous()?)));
    let host = host.collect::<candle_core::Result<Vec<_>>>()?;
    let metadata = description.map(|text| [(METADATA.to_owned(), text.to_owned())].into());
    Ok(safetensors::serialize(host, metadata)?)
}

/// A file that should be there: its absence is damage.
fn read(file: &Path) -> Result<Vec<u8>> {
    match files::read(file) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::damaged(file, "the file is missing"))
        }
        result => result,
    }
}

/// The checkpoints in a folder, by ascending step. Nothing is verified.
pub(crate) fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(checkpoints).map_err(|e| Error::io("read", checkpoints, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", checkpoints, e))?;
        let name = entry.file_name();
        let step =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|step| step.parse().ok());
        if let Some(step) = step {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what a killed process left.
pub(crate) fn clean(checkpoints: &Path) -> Result<()> {
    let entries = fs::read_dir(checkpoints).map_err(|e| Error::io("read", checkpoints, e))?;
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Renames a checkpoint that is damaged or that belongs to an abandoned course, so that no list finds it.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let free = (0u32..).map(|i| path.with_file_name(format!("aside-{i}-{name}"))).find(|path| !path.exists());
    let to = free.unwrap_or_else(|| path.with_file_name(format!("aside-{name}")));
    files::rename_synced(path, &to)?;
    Ok(to)
}

/// Deletes all but the newest `keep` checkpoints and those at multiples of `every`.
pub(crate) fn prune(checkpoints: &Path, keep: usize, every: Option<u64>) -> Result<()> {
    let found = list(checkpoints)?;
    let old = found.len().saturating_sub(keep.max(1));
    for (step, path) in found.into_iter().take(old) {
        if every.is_some_and(|every| step.is_multiple_of(every)) {
            continue;
        }
        delete(checkpoints, step, &path)?;
    }
    Ok(())
}

/// Deletes the checkpoint of a step, if there is one.
pub(crate) fn discard(checkpoints: &Path, step: u64) -> Result<()> {
    let path = checkpoints.join(format!("{PREFIX}{step:08}"));
    if path.exists() { delete(checkpoints, step, &path) } else { Ok(()) }
}

/// First the name, then the content: a half-deleted checkpoint must not look like one.
fn delete(checkpoints: &Path, step: u64, path: &Path) -> Result<()> {
    let trash = checkpoints.join(format!("{TEMPORARY}trash-{step}"));
    remove(&trash)?;
    files::rename_synced(path, &trash)?;
    remove(&trash)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
