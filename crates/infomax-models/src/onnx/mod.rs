//! Encoders as graphs of ONNX, for other runtimes.

mod graph;
mod networks;
mod proto;
#[cfg(test)]
mod tests;

use crate::{ModelConfig, Result};
use candle_core::Tensor;
use graph::Graph;
use prost::Message as _;
use std::collections::BTreeMap;

/// The version of the set of operators that graphs use: the first with `LayerNormalization` (December 2022).
pub const ONNX_OPSET: i64 = 17;

/// The version of the file format that belongs to it.
const IR_VERSION: i64 = 8;

/// The name of the images in a graph.
const INPUT: &str = "images";

/// The encoder of a model in evaluation mode as an ONNX file: `images` `(batch, C, H, W)`, f32, normalized as in
/// training, to `features` `(batch, D)`; with `head`, `projections` `(batch, D')` as well.
///
/// `tensors` holds the encoder's parameters and running statistics by their names without a prefix, and the projector's
/// below `projector.`. The number of images is the caller's choice. Residual networks and ConvNeXts take images of any
/// size; a vision transformer those of `image` (height, width), for which its positions are interpolated. Weights are in
/// the file under their names, transposed ones with `.T` behind it; `metadata` becomes its `metadata_props`.
/// Equal arguments give equal bytes.
///
/// # Errors
/// Tensors that are missing, a head that the model has not, or images that are not made of whole patches.
pub fn export_onnx(
    model: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    image: (usize, usize),
    head: bool,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut graph = Graph::new(tensors);
    let encoded = networks::encoder(&mut graph, &model.encoder, image)?;
    let features = graph.output("features");
    let mut outputs = vec![("features", encoded.width)];
    if head {
        let width = projector(&mut graph, model, &features)?;
        graph.output("projections");
        outputs.push(("projections", width));
    }
    let (height, width) = if encoded.any_size { (None, None) } else { (Some(image.0), Some(image.1)) };
    let input = [("batch", None), ("channels", Some(encoded.channels)), ("height", height), ("width", width)];
    let props = metadata
        .iter()
        .map(|(key, value)| proto::Property { key: Some(key.clone()), value: Some(value.clone()) });
    let message = proto::Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("infomax".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph.finish(&input, &outputs)),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(ONNX_OPSET) }],
        metadata_props: props.collect(),
    };
    Ok(message.encode_to_vec())
}

/// The projector, in evaluation mode.
fn projector(graph: &mut Graph<'_>, model: &ModelConfig, features: &str) -> Result<usize> {
    let Some((&width, hidden)) = model.projector.split_last() else {
        return Err(crate::Error::config("head", true, "the model has no projector"));
    };
    let per_layer = if model.projector_norm { 3 } else { 2 };
    let mut ys = features.to_owned();
    for i in 0..hidden.len() {
        ys = graph.linear(&ys, &format!("projector.{}", per_layer * i))?;
        if model.projector_norm {
            ys = graph.batch_norm(&ys, &format!("projector.{}", per_layer * i + 1))?;
        }
        ys = graph.relu(&ys);
    }
    graph.linear(&ys, &format!("projector.{}", per_layer * hidden.len()))?;
    Ok(width)
}
