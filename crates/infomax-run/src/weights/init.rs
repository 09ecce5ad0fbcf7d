//! The start of an encoder from weights in a file.

use super::WeightsFile;
use crate::{Error, Result, RunConfig};
use candle_core::DType;
use infomax_core::Params;
use infomax_models::{EncoderConfig, init_student};
use serde_json::Value;
use std::path::Path;

/// Sets the encoder of a model, and its teacher, from `path`, and says what was found: whose names, how many tensors,
/// what was converted, interpolated or passed over, and where the pixels are normalized otherwise than the weights are
/// used to.
///
/// # Errors
/// A file that cannot be read, or weights of another architecture, with the first five parameters that differ.
pub(crate) fn init(config: &RunConfig, path: &Path, params: &Params) -> Result<Vec<String>> {
    let file = WeightsFile::open(path)?;
    let architecture = text(&file, "architecture");
    finite(&file)?;
    let done = init_student(&config.model.encoder, params, &file.tensors).map_err(|error| {
        let reason = match &architecture {
            Some(name) => format!("it says that it is `{name}`; {error}"),
            None => error.to_string(),
        };
        let fits =
            settings(&file).map_or(String::new(), |lines| format!("\n[model.encoder] would be:\n{lines}"));
        let reason = format!("it does not fit [model.encoder]: {reason}{fits}");
        Error::Weights { path: file.path.clone(), reason }
    })?;
    let below = match done.prefix.as_str() {
        "" => String::new(),
        prefix => format!(" below `{prefix}`"),
    };
    let mut notes = vec![format!(
        "the encoder starts from {} ({} tensors with the names of {}{below}, crc32 {:08x}{})",
        file.path.display(),
        done.tensors,
        match done.naming {
            infomax_models::Naming::Own => "this project",
            other => other.name(),
        },
        file.crc32,
        architecture.map_or(String::new(), |name| format!(", `{name}`"))
    )];
    notes.extend(done.notes);
    notes.extend(other_function(config, &file));
    notes.extend(other_name(config, &file));
    let recipe = config.augment.resolve().ok();
    for (key, ours) in [("mean", recipe.as_ref().map(|r| &r.mean)), ("std", recipe.as_ref().map(|r| &r.std))]
    {
        let (Some(ours), Some(theirs)) = (ours, numbers(&file, key)) else { continue };
        let same = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-3);
        let usable = ours.len() == theirs.len() && (key == "mean" || theirs.iter().all(|x| *x > 0.0));
        if !usable {
            notes.push(format!(
                "what is said of the weights is no {key} of these pixels, and not used: {theirs:?}"
            ));
        } else if !same {
            notes.push(format!(
                "the weights are used to pixels with the {key} {theirs:?}, [augment] has {ours:?}: set \
                 `augment.{key} = {theirs:?}`, in a run that there is in its config.toml"
            ));
        }
    }
    Ok(notes)
}

/// Refuses weights that are NaN or infinite: every feature would be.
fn finite(file: &WeightsFile) -> Result<()> {
    let (mut spoiled, mut negative) = (Vec::new(), Vec::new());
    for (name, tensor) in file.tensors.iter().filter(|(_, tensor)| tensor.dtype().is_float()) {
        // A sum is not finite if a summand is not, and in f64 not for any other reason.
        let sum = tensor.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
        if !sum.is_finite() {
            spoiled.push(format!("`{name}`"));
        } else if name.ends_with("running_var") {
            let least = tensor.to_dtype(DType::F64)?.flatten_all()?.min(0)?.to_scalar::<f64>()?;
            if least < 0.0 {
                negative.push(format!("`{name}` ({least})"));
            }
        }
    }
    if let (true, Some(first)) = (spoiled.is_empty(), negative.first()) {
        let reason = format!(
            "the variance {first} is below 0: no training leaves that, and no feature would be finite"
        );
        return Err(Error::Weights { path: file.path.clone(), reason });
    }
    if spoiled.is_empty() {
        return Ok(());
    }
    let (count, of) = (spoiled.len(), file.tensors.len());
    spoiled.truncate(5);
    let reason = format!(
        "{count} of its {of} tensors hold NaN or infinity: {}; save the weights of a step before the training diverged",
        spoiled.join(", ")
    );
    Err(Error::Weights { path: file.path.clone(), reason })
}

/// Settings of the encoder that no shape of a tensor shows, such as the heads of attention, where the file says that its
/// weights were used with others.
fn other_function(config: &RunConfig, file: &WeightsFile) -> Option<String> {
    let theirs: Value = serde_json::from_str(file.metadata.get("encoder")?).ok()?;
    let ours = serde_json::to_value(&config.model.encoder).ok()?;
    // What training does to a network is not what the network is.
    let training = ["drop_path", "dropout", "zero_init_residual"];
    let differs = ours.as_object()?.iter().filter_map(|(key, value)| {
        let saved = theirs.get(key)?;
        (saved != value && !training.contains(&key.as_str()))
            .then(|| format!("{key} was {saved}, now it is {value}"))
    });
    let differs: Vec<String> = differs.collect();
    (!differs.is_empty()).then(|| {
        format!(
            "warning: the weights were those of another function, although every shape fits: model.encoder.{}",
            differs.join("; model.encoder.")
        )
    })
}

/// The published residual networks by the names of torchvision and timm.
const RESNETS: [(&str, usize); 5] =
    [("resnet18", 18), ("resnet34", 34), ("resnet50", 50), ("resnet101", 101), ("resnet152", 152)];

/// The lines of `[model.encoder]` that the weights want, where the file says so.
fn settings(file: &WeightsFile) -> Option<String> {
    if let Some(encoder) = file.metadata.get("encoder") {
        let encoder: Value = serde_json::from_str(encoder).ok()?;
        return toml::to_string(&encoder).ok().map(|lines| lines.trim_end().to_owned());
    }
    let name = text(file, "architecture")?;
    let (_, depth) = RESNETS.iter().find(|(known, _)| name.split('.').next() == Some(known))?;
    Some(format!("kind = \"resnet\"\ndepth = {depth}\nblocks = []\nwidth = 64\nstem = \"imagenet\""))
}

/// A name beside the weights that is not theirs, although they fit.
fn other_name(config: &RunConfig, file: &WeightsFile) -> Option<String> {
    let name = text(file, "architecture")?;
    let start = name.split('.').next()?;
    let ours = match &config.model.encoder {
        EncoderConfig::ResNet(net) if net.blocks.is_empty() => format!("a ResNet-{}", net.depth),
        EncoderConfig::ResNet(_) => "a residual network".to_owned(),
        EncoderConfig::Vit(_) => "a vision transformer".to_owned(),
        EncoderConfig::ConvNext(_) => "a ConvNeXt".to_owned(),
        _ => return None,
    };
    let depth = RESNETS.iter().find(|(known, _)| start == *known).map(|(_, depth)| *depth);
    let other = match &config.model.encoder {
        EncoderConfig::ResNet(net) => {
            depth.is_some_and(|depth| net.blocks.is_empty() && net.depth != depth)
                || start.starts_with("vit")
                || start.starts_with("convnext")
        }
        EncoderConfig::Vit(_) => depth.is_some() || start.starts_with("convnext"),
        _ => depth.is_some() || start.starts_with("vit"),
    };
    other.then(|| format!("warning: the file says that its weights are `{name}`, and they fit {ours}"))
}

/// A word that the file, or the `config.json` beside it, says of the weights.
fn text(file: &WeightsFile, key: &str) -> Option<String> {
    let beside = file.config.as_ref().and_then(|config| config.get(key)).and_then(Value::as_str);
    beside.map(str::to_owned).or_else(|| file.metadata.get(key).cloned())
}

/// Numbers that the file, or the `config.json` beside it, says of the weights.
fn numbers(file: &WeightsFile, key: &str) -> Option<Vec<f64>> {
    let beside = file.config.as_ref().and_then(|config| config.get("pretrained_cfg")?.get(key).cloned());
    let value = beside.or_else(|| serde_json::from_str(file.metadata.get(key)?).ok())?;
    value.as_array()?.iter().map(Value::as_f64).collect()
}
