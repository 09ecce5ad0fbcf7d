//! Files of weights, whoever wrote them.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_train::{Checkpoint, Needs, RunDir};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors by name, from a file or a folder, with what stands beside them.
///
/// | path | what is read |
/// |---|---|
/// | `FILE.safetensors` | the file, with its metadata |
/// | `FILE.pt`, `FILE.pth`, `FILE.bin` | the state dict of a PyTorch archive, also below `state_dict` or `model` |
/// | a folder with `model.safetensors` | that file, and what a `config.json` beside it says (the layout of timm's hub) |
/// | a folder with `snapshots/` | its one snapshot (a copy of a hub's cache) |
/// | a run, or one of its checkpoints | the weights of the (newest) checkpoint |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WeightsFile {
    /// The file that was read.
    pub path: PathBuf,
    /// CRC-32 of its bytes.
    pub crc32: u32,
    /// The tensors, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// The `config.json` beside it.
    pub config: Option<Value>,
}

const MODEL: &str = "model.safetensors";

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
            return Self::file(&checkpoint.path().join(MODEL));
        }
        if path.join("checkpoints").is_dir() {
            let found =
                RunDir::latest_model(path)?.ok_or_else(|| Error::NoCheckpoint { path: path.to_owned() })?;
            return Self::file(&found.checkpoint.path().join(MODEL));
        }
        if path.join(MODEL).is_file() {
            let mut file = Self::file(&path.join(MODEL))?;
            file.config = config(&path.join("config.json"))?;
            return Ok(file);
        }
        let snapshots = entries(&path.join("snapshots"));
        if let [one] = snapshots.as_slice() {
            return Self::open(one);
        }
        let refuse = |reason: &str| Err(Error::Weights { path: path.to_owned(), reason: reason.to_owned() });
        if path.join("model.safetensors.index.json").is_file() {
            return refuse("its weights are in several files; join them into one safetensors file");
        }
        refuse("the folder has no model.safetensors; give a safetensors file, a folder with one, or a run")
    }

    fn file(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Weights { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let crc32 = crc32fast::hash(&bytes);
        // An archive of PyTorch is a zip file, or a bare pickle in old versions of it.
        let (tensors, metadata) = if bytes.starts_with(b"PK") {
            (
                archive(path).map_err(|e| refuse(format!("it is no PyTorch archive of tensors: {e}")))?,
                BTreeMap::new(),
            )
        } else {
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| {
                refuse(format!(
                    "it is no safetensors file ({e}); write one in Python by \
                     safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")"
                ))
            })?;
            let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
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

/// The tensors of a PyTorch archive: nothing in it is executed.
fn archive(path: &Path) -> candle_core::Result<BTreeMap<String, Tensor>> {
    for key in [None, Some("state_dict"), Some("model")] {
        // A key that is not there is an error; what matters is that of the plain form.
        match candle_core::pickle::read_all_with_key(path, key) {
            Ok(tensors) if !tensors.is_empty() => return Ok(tensors.into_iter().collect()),
            Err(error) if key.is_none() => return Err(error),
            _ => {}
        }
    }
    Ok(BTreeMap::new())
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
