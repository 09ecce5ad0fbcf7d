//! The weights of an encoder under the names of another library.

use super::positions::with_registers;
use super::{Naming, python};
use crate::{EncoderConfig, Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// The weights of an encoder, ready for a file, and how they are loaded there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Export {
    /// Parameters and running statistics, f32, contiguous, on the CPU, by their names in the other library.
    pub tensors: BTreeMap<String, Tensor>,
    /// Python code that builds the network as `model`; `load_state_dict(tensors, strict=True)` takes the weights then.
    /// Empty for [`Naming::Own`].
    pub python: String,
    /// What the user has to know: which modules differ from the library's own network, what was reshaped.
    pub notes: Vec<String>,
}

/// The weights of an encoder under the names of `naming`.
///
/// `tensors` holds the parameters and running statistics by their names in this crate, without a prefix. Counters
/// (`num_batches_tracked`) are not written: PyTorch sets them where a file has none.
///
/// # Errors
/// A network that the library does not have (with the reason), tensors that are not those of this encoder.
pub fn export_encoder(
    encoder: &EncoderConfig,
    tensors: &BTreeMap<String, Tensor>,
    naming: Naming,
) -> Result<Export> {
    let expected = encoder.shapes()?;
    let mut wrong = Vec::new();
    for (name, shape) in &expected {
        match tensors.get(name) {
            None => wrong.push(format!("`{name}` {shape:?} is missing")),
            Some(t) if t.dims() != shape.as_slice() => {
                wrong.push(format!("`{name}` has shape {:?}, the encoder needs {shape:?}", t.dims()));
            }
            Some(_) => {}
        }
    }
    let superfluous = tensors.keys().filter(|name| !expected.contains_key(*name));
    wrong.extend(superfluous.map(|name| format!("`{name}` is not in the encoder")));
    if !wrong.is_empty() {
        wrong.truncate(5);
        return Err(infomax_core::Error::Weights(wrong.join("; ")).into());
    }
    let code = python::code(encoder, naming)?;
    let mut out = BTreeMap::new();
    for (own, tensor) in tensors {
        let Some(name) = naming.of(encoder, own) else {
            let reason = format!("{naming} has no parameter for `{own}`; use another naming");
            return Err(Error::config("names", naming, reason));
        };
        let tensor = shaped(encoder, naming, own, &tensor.detach(), code.pointwise)?;
        out.insert(name, tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?);
    }
    Ok(Export { tensors: out, python: code.text, notes: code.notes })
}

/// A parameter in the shape that it has there.
fn shaped(
    encoder: &EncoderConfig,
    naming: Naming,
    own: &str,
    tensor: &Tensor,
    pointwise: bool,
) -> Result<Tensor> {
    match (encoder, naming) {
        (EncoderConfig::Vit(cfg), Naming::Timm) if own == "pos_embed" && cfg.registers > 0 => {
            with_registers(tensor, cfg.registers)
        }
        (EncoderConfig::ConvNext(_), Naming::Timm) if own.ends_with(".layer_scale") => {
            Ok(tensor.flatten_all()?)
        }
        (EncoderConfig::ConvNext(_), Naming::Timm)
            if pointwise && tensor.rank() == 2 && own.contains(".block.") =>
        {
            Ok(tensor.unsqueeze(2)?.unsqueeze(3)?)
        }
        _ => Ok(tensor.clone()),
    }
}
