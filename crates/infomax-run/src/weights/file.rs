//! Files of weights, whoever wrote them.

use super::archive;
use crate::{Error, Result, RunConfig};
use candle_core::{Device, Tensor};
use infomax_train::{Checkpoint, Needs, RunDir};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Tensors by name, from a file or a folder, with what stands beside them.
///
/// | path | what is read |
/// |---|---|
/// | `FILE.safetensors` | the file, with its metadata |
/// | `FILE.pt`, `FILE.pth`, `FILE.bin` | the state dict of a PyTorch archive, also below `state_dict` or `model`, or below names of its own |
/// | a folder with `model.safetensors` | that file, and what a `config.json` beside it says (the layout of timm's hub) |
/// | a folder with `model.safetensors.index.json` | the files that its `weight_map` names, one after the other |
/// | a folder with `snapshots/` | its one snapshot (a copy of a hub's cache) |
/// | a run, or one of its checkpoints | the weights of the (newest) checkpoint |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WeightsFile {
    /// The file that was read.
    pub path: PathBuf,
    /// CRC-32 of its bytes; of several files, of their bytes one after the other in the order of their names.
    pub crc32: u32,
    /// The tensors, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// The `config.json` beside it.
    pub config: Option<Value>,
}

const MODEL: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl WeightsFile {
    /// Reads weights.
    ///
    /// # Errors
    /// What is not there, is no file of weights or is damaged, with what to give instead.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::file(path);
        }
        if path.join("state.json").is_file() {
            // A checkpoint knows its checksums.
            let checkpoint = Checkpoint::open_for(path, Needs::Model)?;
            let run =
                std::path::absolute(path).ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
            return Ok(Self::file(&checkpoint.path().join(MODEL))?.of_run(run.as_deref()));
        }
        if path.join("checkpoints").is_dir() {
            let found =
                RunDir::latest_model(path)?.ok_or_else(|| Error::NoCheckpoint { path: path.to_owned() })?;
            return Ok(Self::file(&found.checkpoint.path().join(MODEL))?.of_run(Some(path)));
        }
        if path.join(MODEL).is_file() {
            let mut file = Self::file(&path.join(MODEL))?;
            file.config = config(&path.join("config.json"))?;
            return Ok(file);
        }
        if path.join(INDEX).is_file() {
            let mut file = Self::shards(path)?;
            file.config = config(&path.join("config.json"))?;
            return Ok(file);
        }
        let snapshots = entries(&path.join("snapshots"));
        if let [one] = snapshots.as_slice() {
            return Self::open(one);
        }
        let reason =
            "the folder has no model.safetensors; give a safetensors file, a folder with one, or a run";
        Err(Error::Weights { path: path.to_owned(), reason: reason.to_owned() })
    }

    /// Weights of a run, with the pixels that it normalized, as an export has them.
    fn of_run(mut self, run: Option<&Path>) -> Self {
        // A folder that is no run any more has its weights all the same.
        if let Some(recipe) = run.and_then(|run| RunConfig::of_run(run).ok()?.augment.resolve().ok()) {
            for (key, values) in [("mean", &recipe.mean), ("std", &recipe.std)] {
                let text = serde_json::to_string(values).unwrap_or_default();
                self.metadata.entry(key.to_owned()).or_insert(text);
            }
        }
        self
    }

    /// Weights in several files, with an index of which tensor is in which.
    fn shards(folder: &Path) -> Result<Self> {
        let path = folder.join(INDEX);
        let refuse = |reason: String| Error::Weights { path: path.clone(), reason };
        let index: Index = match config(&path)? {
            Some(value) => serde_json::from_value(value)
                .map_err(|e| refuse(format!("its `weight_map` is no table of file names: {e}")))?,
            None => return Err(refuse("it is gone".to_owned())),
        };
        let mut whole = Self {
            path: path.clone(),
            crc32: 0,
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            config: None,
        };
        let mut crc = crc32fast::Hasher::new();
        for name in index.weight_map.values().collect::<BTreeSet<_>>() {
            // A name, and no path that leads out of the folder.
            if Path::new(name).file_name().is_none_or(|last| last != name.as_str()) {
                return Err(refuse(format!("`{name}` is no name of a file beside it")));
            }
            let bytes = read(&folder.join(name))?;
            crc.update(&bytes);
            let part = Self::decode(&folder.join(name), &bytes)?;
            for (tensor, values) in part.tensors {
                match index.weight_map.get(&tensor) {
                    Some(file) if file == name => {
                        whole.tensors.insert(tensor, values);
                    }
                    Some(file) => {
                        return Err(refuse(format!("`{tensor}` is in {name}, and the index says {file}")));
                    }
                    None => return Err(refuse(format!("`{tensor}` of {name} is not in the index"))),
                }
            }
            whole.metadata.extend(part.metadata);
        }
        let lost: Vec<&str> = index
            .weight_map
            .keys()
            .filter(|name| !whole.tensors.contains_key(*name))
            .map(String::as_str)
            .take(5)
            .collect();
        if !lost.is_empty() {
            return Err(refuse(format!(
                "tensors of the index are in none of its files: {}",
                lost.join(", ")
            )));
        }
        if whole.tensors.is_empty() {
            return Err(refuse("it names no tensor".to_owned()));
        }
        whole.crc32 = crc.finalize();
        Ok(whole)
    }

    fn file(path: &Path) -> Result<Self> {
        Self::decode(path, &read(path)?)
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let refuse = |reason: String| Error::Weights { path: path.to_owned(), reason };
        let crc32 = crc32fast::hash(bytes);
        if bytes.is_empty() {
            return Err(refuse("it is empty".to_owned()));
        }
        if archive::is_old(bytes) {
            let reason = "PyTorch before 1.6 wrote it; write it anew in Python by torch.save(torch.load(FILE, \
                          map_location=\"cpu\"), NEW)";
            return Err(refuse(reason.to_owned()));
        }
        // An archive of PyTorch is a zip file.
        let (tensors, metadata) = if bytes.starts_with(b"PK") {
            (archive::read(bytes).map_err(refuse)?, BTreeMap::new())
        } else {
            let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| {
                refuse(match cut_off(bytes) {
                    Some(whole) => {
                        format!(
                            "it is cut off: it has {} bytes, and its header says {whole}; copy or download it again",
                            bytes.len()
                        )
                    }
                    None => format!(
                        "it is neither a safetensors file ({e}) nor a zip archive of PyTorch; write one in Python by \
                         safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")"
                    ),
                })
            })?;
            let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
                .map_err(|e| refuse(format!("its tensors cannot be read: {e}")))?;
            let metadata = header.metadata().clone().unwrap_or_default();
            (tensors.into_iter().collect(), metadata.into_iter().collect())
        };
        if tensors.is_empty() {
            return Err(refuse("it holds no tensor".to_owned()));
        }
        Ok(Self { path: path.to_owned(), crc32, tensors, metadata, config: None })
    }
}

/// The bytes that a safetensors file should have by its header, where it has fewer.
fn cut_off(bytes: &[u8]) -> Option<u64> {
    let (size, rest) = bytes.split_first_chunk::<8>()?;
    let size = u64::from_le_bytes(*size);
    // The header of what is no safetensors file has any size; real ones begin with a brace.
    if !rest.starts_with(b"{") || size > 100_000_000 {
        return None;
    }
    let whole = match rest.get(..usize::try_from(size).ok()?) {
        None => 8 + size,
        Some(header) => {
            let header: Value = serde_json::from_slice(header).ok()?;
            let ends = header
                .as_object()?
                .values()
                .filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
            8 + size + ends.max()?
        }
    };
    (whole > bytes.len() as u64).then_some(whole)
}

/// What stands in the index of weights in several files.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", path, e))
}

fn config(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes).map_err(|e| Error::Weights {
                path: path.to_owned(),
                reason: format!("it is no JSON: {e}"),
            })?;
            Ok(Some(value))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
