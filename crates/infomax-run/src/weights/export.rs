//! The encoder of a run as a file of weights for other libraries.

use crate::opened::named;
use crate::{Error, ModelCard, Result, RunObserver};
use candle_core::Tensor;
use infomax_models::{EncoderConfig, ModelConfig, Naming, ONNX_OPSET, export_encoder};
use infomax_train::{Checkpoint, METADATA, Needs, RunDir};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What stands before the names of the projector's parameters.
const HEAD: &str = "projector.";

/// What is exported.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Another checkpoint than the newest: its step, or its folder.
    pub checkpoint: Option<String>,
    /// Whose names the parameters get.
    pub naming: Naming,
    /// Whether the projector goes with the encoder, its names below `projector.`.
    pub head: bool,
    /// The momentum teacher instead of the student.
    pub teacher: bool,
}

/// Weights for other libraries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exported {
    /// The file.
    pub bytes: Vec<u8>,
    /// The number of its tensors.
    pub tensors: usize,
    /// The number of finished steps of the weights.
    pub step: u64,
    /// What the model is.
    pub card: ModelCard,
    /// Python code that builds the modules; empty for our own names and for ONNX.
    pub modules: String,
    /// What the user has to know, a sentence each.
    pub notes: Vec<String>,
    head: bool,
}

impl Exported {
    /// Python code that builds the modules and loads the weights from `file` into them.
    pub fn python(&self, file: &Path) -> String {
        if self.modules.is_empty() {
            return String::new();
        }
        let file = Value::String(file.display().to_string());
        let mut text = format!("import safetensors.torch\n{}\n", self.modules);
        text += &format!("state = safetensors.torch.load_file({file})\n");
        if self.head {
            text += &format!(
                "head = {{k.removeprefix(\"{HEAD}\"): state.pop(k) for k in list(state) if k.startswith(\"{HEAD}\")}}\n\
                 projector.load_state_dict(head, strict=True)\n"
            );
        }
        text + "model.load_state_dict(state, strict=True)"
    }
}

/// The weights of a run or of one of its checkpoints under the names of another library, as a safetensors file.
///
/// The metadata of the file say what it is: `architecture` (the kind), `encoder` (its configuration as JSON), `names`,
/// `feature_dim`, `input_size`, `mean`, `std`, `step`, `infomax_version`, `python` (code that builds the modules), and
/// `infomax`, the whole [`ModelCard`].
///
/// # Errors
/// A folder that is neither; a checkpoint that does not say what its model is; a network that the library does not
/// have, a head or teacher that the model does not have.
pub fn export(path: &Path, options: &ExportOptions, observer: &mut dyn RunObserver) -> Result<Exported> {
    let Parts { card, step, encoder, head } = parts(path, options, observer)?;
    let done = export_encoder(&card.model.encoder, &encoder, options.naming)?;
    let (mut tensors, mut modules, mut notes) = (done.tensors, done.python, done.notes);
    if options.head {
        tensors.extend(head);
        if !modules.is_empty() {
            if !modules.contains("from torch import nn") {
                modules = format!("from torch import nn\n{modules}");
            }
            modules += &format!("\n{}", projector(&card.model, card.feature_dim));
        }
        notes.push(format!(
            "the projector's names begin with `{HEAD}`; strict loading takes it into a module of its own"
        ));
    }
    let mut metadata = metadata(&card, step)?;
    if let (EncoderConfig::Vit(vit), true) = (&card.model.encoder, options.naming != Naming::Own) {
        let (channels, height, width) = card.input;
        let side = vit.image;
        if (height, width) != (side, side) {
            // These modules take one size only.
            metadata.insert("input_size".to_owned(), format!("[{channels}, {side}, {side}]"));
            notes.push(format!(
                "its positions are those of {side}x{side} pixels, the size that the module takes; the views of the run had \
                 {height}x{width}, to which infomax interpolates them"
            ));
        }
    }
    metadata.insert("format".to_owned(), "pt".to_owned()); // Libraries of Python ask for it.
    metadata.insert("names".to_owned(), options.naming.name().to_owned());
    metadata.insert("python".to_owned(), modules.clone());
    let bytes = encode(&tensors, &metadata).map_err(|e| Error::Weights {
        path: path.to_owned(),
        reason: format!("it cannot be written: {e}"),
    })?;
    Ok(Exported { bytes, tensors: tensors.len(), step, card, modules, notes, head: options.head })
}

/// The encoder of a run or of one of its checkpoints in evaluation mode as an ONNX file, whose metadata are those of
/// [`export`]; see [`infomax_models::export_onnx`] for the graph. The naming of the options does not matter: weights keep
/// our names.
///
/// # Errors
/// As [`export`].
pub fn export_onnx(path: &Path, options: &ExportOptions, observer: &mut dyn RunObserver) -> Result<Exported> {
    let Parts { card, step, mut encoder, head } = parts(path, options, observer)?;
    encoder.extend(head);
    let (_, height, width) = card.input;
    let metadata = metadata(&card, step)?;
    let bytes = infomax_models::export_onnx(&card.model, &encoder, (height, width), options.head, &metadata)?;
    let mut notes = vec![format!(
        "opset {ONNX_OPSET}; the input `images` (batch, channels, height, width) is normalized by mean and std; the output \
         is `features`{}",
        if options.head { ", and `projections`" } else { "" }
    )];
    if let EncoderConfig::Vit(_) = card.model.encoder {
        notes.push(format!("images have {height}x{width} pixels: the positions are those of this size"));
    }
    Ok(Exported {
        bytes,
        tensors: encoder.len(),
        step,
        card,
        modules: String::new(),
        notes,
        head: options.head,
    })
}

/// The tensors of a checkpoint, and what they are.
struct Parts {
    card: ModelCard,
    step: u64,
    /// By their names in the encoder.
    encoder: BTreeMap<String, Tensor>,
    /// Below [`HEAD`]; empty unless it is asked for.
    head: BTreeMap<String, Tensor>,
}

fn parts(path: &Path, options: &ExportOptions, observer: &mut dyn RunObserver) -> Result<Parts> {
    let checkpoint = open(path, options.checkpoint.as_deref(), observer)?;
    let refuse =
        |reason: &str| Error::Weights { path: checkpoint.path().to_owned(), reason: reason.to_owned() };
    let card = ModelCard::of(&checkpoint)?.ok_or_else(|| {
        refuse(
            "the checkpoint does not say what its model is, or in the way of another version; continue the run for one \
             step with this version, which writes it anew",
        )
    })?;
    let all = checkpoint.model()?;
    let root = if options.teacher { "teacher." } else { "" };
    let below = |part: &str| -> BTreeMap<String, Tensor> {
        let start = format!("{root}{part}");
        all.iter().filter_map(|(name, t)| Some((name.strip_prefix(&start)?.to_owned(), t.clone()))).collect()
    };
    let encoder = below("encoder.");
    if encoder.is_empty() && options.teacher {
        return Err(refuse("the model has no momentum teacher; leave --teacher out"));
    }
    let mut head = BTreeMap::new();
    if options.head {
        head.extend(below(HEAD).into_iter().map(|(name, t)| (format!("{HEAD}{name}"), t)));
        if head.is_empty() {
            return Err(refuse("the model has no projector; leave --head out"));
        }
    }
    Ok(Parts { card, step: checkpoint.state().step, encoder, head })
}

/// The checkpoint that is meant by a run or by its own folder.
pub(crate) fn open(path: &Path, which: Option<&str>, observer: &mut dyn RunObserver) -> Result<Checkpoint> {
    if path.join("state.json").is_file() {
        if which.is_some() {
            let text = format!("{} is a checkpoint already; leave --checkpoint out", path.display());
            return Err(Error::Config(text));
        }
        return Ok(Checkpoint::open_for(path, Needs::Model)?);
    }
    if let Some(which) = which {
        return Ok(Checkpoint::open_for(named(path, which)?, Needs::Model)?);
    }
    let found = RunDir::latest_model(path)?.ok_or_else(|| Error::NoCheckpoint { path: path.to_owned() })?;
    found.warnings.iter().for_each(|warning| observer.on_warning(warning));
    Ok(found.checkpoint)
}

/// The projector as a module of PyTorch, which numbers its layers as ours are.
fn projector(model: &ModelConfig, features: usize) -> String {
    let mut layers = Vec::new();
    let mut inputs = features;
    let word = |yes: bool| if yes { "True" } else { "False" };
    for (i, &width) in model.projector.iter().enumerate() {
        let last = i + 1 == model.projector.len();
        let bias = if last { model.projector_last_bias } else { !model.projector_norm };
        layers.push(format!("nn.Linear({inputs}, {width}, bias={})", word(bias)));
        if !last && model.projector_norm {
            layers.push(format!("nn.BatchNorm1d({width})"));
        }
        if !last {
            layers.push("nn.ReLU()".to_owned());
        }
        inputs = width;
    }
    format!("projector = nn.Sequential({})", layers.join(", "))
}

/// What files of either format say of themselves.
fn metadata(card: &ModelCard, step: u64) -> Result<BTreeMap<String, String>> {
    let json = |value: serde_json::Result<Value>| match value {
        Ok(value) => Ok(value.to_string()),
        Err(e) => Err(Error::io("encode", Path::new("the metadata"), e.into())),
    };
    let (channels, height, width) = card.input;
    // f32 as it is written, not as the nearest f64.
    let list =
        |values: &[f32]| format!("[{}]", values.iter().map(f32::to_string).collect::<Vec<_>>().join(", "));
    let entries = [
        ("architecture", card.model.encoder.kind().to_owned()),
        ("encoder", json(serde_json::to_value(&card.model.encoder))?),
        ("feature_dim", card.feature_dim.to_string()),
        ("input_size", format!("[{channels}, {height}, {width}]")),
        ("mean", list(&card.mean)),
        ("std", list(&card.std)),
        ("step", step.to_string()),
        ("infomax_version", env!("CARGO_PKG_VERSION").to_owned()),
        (METADATA, json(serde_json::to_value(card))?),
    ];
    Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Tensors with metadata as a safetensors file. The crate keeps metadata in a hash map, whose order differs from run to
/// run: they are put into the header here, sorted, so that equal exports are equal bytes.
fn encode(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = safetensors::serialize(tensors.iter(), None)?;
    let (size, rest) = bytes.split_first_chunk::<8>().ok_or("no header")?;
    let size = usize::try_from(u64::from_le_bytes(*size))?;
    let (header, data) = rest.split_at_checked(size).ok_or("a header beyond the end")?;
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(header)?;
    header.insert("__metadata__".to_owned(), serde_json::to_value(metadata)?);
    let mut header = serde_json::to_vec(&header)?;
    // The data begins at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    Ok(out)
}
