//! Weights from elsewhere.

use crate::Result;
use candle_core::Tensor;
use infomax_core::{Error as CoreError, Params};
use std::collections::BTreeMap;

/// What the names of an encoder begin with in a checkpoint of this project.
const OWN: &str = "encoder.";

/// Sets the parameters below `prefix` (for example `encoder`) from tensors with the names of torchvision
/// (ResNet, ConvNeXt) or timm (vision transformers).
///
/// A checkpoint of this project is taken as it is: where names begin with `encoder.`, its encoder is meant, and its
/// heads and its teacher are passed over.
///
/// Classifiers (`fc.*`, `head.*`, `classifier.2.*`) and counters (`*.num_batches_tracked`) are passed over. Every parameter
/// below the prefix must be given, in its shape; other parameters of the model stay as they are.
///
/// # Errors
/// [`infomax_core::Error::Weights`] naming what is missing, superfluous or of another shape, or an empty
/// prefix scope; nothing is changed then.
pub fn load_encoder(params: &Params, prefix: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let start = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    let mut wanted = BTreeMap::new();
    for (name, param) in params.all() {
        if let Some(short) = name.strip_prefix(&start) {
            wanted.insert(short.to_owned(), param.var);
        }
    }
    let own: BTreeMap<String, Tensor>;
    let tensors = if tensors.keys().any(|name| name.starts_with(OWN)) {
        let inside =
            tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(OWN)?.to_owned(), t.clone())));
        own = inside.collect();
        &own
    } else {
        tensors
    };
    let mut wrong = Vec::new();
    if wanted.is_empty() {
        wrong.push(format!("the model has no parameter below `{prefix}`"));
    }
    for (name, var) in &wanted {
        match tensors.get(name) {
            None => wrong.push(format!("`{name}` {:?} is missing", var.dims())),
            Some(t) if t.dims() != var.dims() => {
                wrong.push(format!("`{name}` has shape {:?}, the model needs {:?}", t.dims(), var.dims()));
            }
            Some(_) => {}
        }
    }
    let ignored = |name: &str| {
        ["fc.", "head.", "classifier.2."].iter().any(|classifier| name.starts_with(classifier))
            || name.ends_with("num_batches_tracked")
    };
    let superfluous = tensors.keys().filter(|name| !wanted.contains_key(*name) && !ignored(name));
    wrong.extend(superfluous.map(|name| format!("`{name}` is not in the model")));
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(4);
        wrong.truncate(4);
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        return Err(CoreError::Weights(wrong.join("; ") + &tail).into());
    }
    for (name, var) in &wanted {
        if let Some(tensor) = tensors.get(name) {
            // A copy: a tensor may share its storage with the variable itself.
            var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?.copy()?)?;
        }
    }
    Ok(())
}
