//! The graph of each kind of encoder, in evaluation mode.

use super::INPUT;
use super::graph::{Attr, Graph, Value};
use crate::patches::cells;
use crate::positions::resample;
use crate::{
    ConvNextConfig, EncoderConfig, Error, Patches, PatchesConfig, ResNet9Config, ResNetConfig, Result, Stem,
    VitConfig, VitPool,
};
use candle_core::{DType, Device, Tensor};

/// What the graph of an encoder gives.
pub(super) struct Encoded {
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Whether the images may have any size.
    pub(super) any_size: bool,
}

pub(super) fn encoder(
    graph: &mut Graph<'_>,
    encoder: &EncoderConfig,
    image: (usize, usize),
) -> Result<Encoded> {
    // The features are the value of the last operator.
    let (_, width, channels) = match encoder {
        EncoderConfig::ResNet(cfg) => (resnet(graph, cfg)?, cfg.feature_dim()?, cfg.in_channels),
        EncoderConfig::ResNet9(cfg) => (resnet9(graph, cfg)?, 8 * cfg.width, cfg.in_channels),
        EncoderConfig::Patches(cfg) => {
            (patches(graph, cfg, image)?, 2 * cfg.filters * cfg.grid * cfg.grid, cfg.in_channels)
        }
        EncoderConfig::Vit(cfg) => (vit(graph, cfg, image)?, cfg.width, cfg.in_channels),
        EncoderConfig::ConvNext(cfg) => {
            (convnext(graph, cfg)?, cfg.widths[cfg.widths.len() - 1], cfg.in_channels)
        }
    };
    let any_size = !matches!(encoder, EncoderConfig::Vit(_) | EncoderConfig::Patches(_));
    Ok(Encoded { width, channels, any_size })
}

fn resnet(g: &mut Graph<'_>, cfg: &ResNetConfig) -> Result<Value> {
    let (stride, padding) = if cfg.stem == Stem::Imagenet { (2, 3) } else { (1, 1) };
    let xs = whiten(g, cfg.stem)?;
    let ys = g.conv(&xs, "conv1", stride, padding, 1)?;
    let ys = g.batch_norm(&ys, "bn1")?;
    let mut ys = g.relu(&ys);
    if cfg.stem == Stem::Imagenet {
        ys = max_pool(g, &ys, 3, 2, 1);
    }
    let expansion = if cfg.depth >= 50 { 4 } else { 1 };
    let mut channels = cfg.width;
    for (i, count) in cfg.stages()?.into_iter().enumerate() {
        for j in 0..count {
            let block = format!("layer{}.{j}", i + 1);
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            // (stride, padding) of each convolution.
            let plan =
                if expansion == 1 { vec![(stride, 1), (1, 1)] } else { vec![(1, 0), (stride, 1), (1, 0)] };
            let outputs = (cfg.width << i) * expansion;
            let mut shortcut = ys.clone();
            if stride != 1 || channels != outputs {
                shortcut = g.conv(&ys, &format!("{block}.downsample.0"), stride, 0, 1)?;
                shortcut = g.batch_norm(&shortcut, &format!("{block}.downsample.1"))?;
            }
            let last = plan.len();
            for (k, (stride, padding)) in (1..).zip(plan) {
                ys = g.conv(&ys, &format!("{block}.conv{k}"), stride, padding, 1)?;
                ys = g.batch_norm(&ys, &format!("{block}.bn{k}"))?;
                if k < last {
                    ys = g.relu(&ys);
                }
            }
            ys = g.op("Add", &[&ys, &shortcut], &[]);
            ys = g.relu(&ys);
            channels = outputs;
        }
    }
    let ys = g.op("GlobalAveragePool", &[&ys], &[]);
    Ok(g.op("Flatten", &[&ys], &[Attr::Int("axis", 1)]))
}

/// The images, whitened where the stem does so.
fn whiten(g: &mut Graph<'_>, stem: Stem) -> Result<Value> {
    if stem.whitens().is_none() {
        return Ok(INPUT.to_owned());
    }
    let ys = g.conv(INPUT, "whiten", 1, 0, 1)?;
    Ok(g.relu(&ys))
}

fn resnet9(g: &mut Graph<'_>, cfg: &ResNet9Config) -> Result<Value> {
    fn layer(g: &mut Graph<'_>, xs: &str, name: &str) -> Result<Value> {
        let ys = g.conv(xs, &format!("{name}.conv"), 1, 1, 1)?;
        let ys = g.batch_norm(&ys, &format!("{name}.bn"))?;
        Ok(g.relu(&ys))
    }
    let xs = whiten(g, cfg.stem)?;
    let mut ys = layer(g, &xs, "prep")?;
    for i in 1..=3 {
        ys = layer(g, &ys, &format!("layer{i}"))?;
        ys = max_pool(g, &ys, 2, 2, 0);
        if i != 2 {
            let branch = layer(g, &ys, &format!("layer{i}.residual.0"))?;
            let branch = layer(g, &branch, &format!("layer{i}.residual.1"))?;
            ys = g.op("Add", &[&ys, &branch], &[]);
        }
    }
    let ys = g.op("GlobalMaxPool", &[&ys], &[]);
    Ok(g.op("Flatten", &[&ys], &[Attr::Int("axis", 1)]))
}

/// The means over cells are a product with a matrix, which fits one size of images.
fn patches(g: &mut Graph<'_>, cfg: &PatchesConfig, (height, width): (usize, usize)) -> Result<Value> {
    let least = cfg.patch + (cfg.grid - 1) * cfg.stride;
    if height.min(width) < least {
        let reason = format!("this layer of patches takes images from {least}x{least} pixels on");
        return Err(Error::config("image", format!("{height}x{width}"), reason));
    }
    let (weight, bias) = (g.tensor("filters.weight")?, g.tensor("filters.bias")?);
    let (weight, bias) = Patches::both_signs(weight, bias, cfg.threshold)?;
    let (weight, bias) = (g.constant("filters.weight", &weight)?, g.constant("filters.bias", &bias)?);
    let stride = cfg.stride as i64;
    let attributes =
        [Attr::Ints("strides", &[stride, stride]), Attr::Ints("pads", &[0; 4]), Attr::Int("group", 1)];
    let ys = g.op("Conv", &[INPUT, &weight, &bias], &attributes);
    let ys = g.relu(&ys);
    let shape = g.ints("shape.maps", &[0, 2 * cfg.filters as i64, -1], &[3]);
    let ys = g.op("Reshape", &[&ys, &shape], &[]);
    let ys = g.transpose(&ys, &[0, 2, 1]);
    let places = |n: usize| (n - cfg.patch) / cfg.stride + 1;
    let cells = cells(cfg.grid, (places(height), places(width)), DType::F32, &Device::Cpu)?;
    let cells = g.constant("cells", &cells.t()?)?;
    let ys = g.op("MatMul", &[&cells, &ys], &[]);
    Ok(g.op("Flatten", &[&ys], &[Attr::Int("axis", 1)]))
}

fn max_pool(g: &mut Graph<'_>, xs: &str, kernel: i64, stride: i64, padding: i64) -> Value {
    let attributes = [
        Attr::Ints("kernel_shape", &[kernel, kernel]),
        Attr::Ints("strides", &[stride, stride]),
        Attr::Ints("pads", &[padding; 4]),
    ];
    g.op("MaxPool", &[xs], &attributes)
}

fn vit(g: &mut Graph<'_>, cfg: &VitConfig, (height, width): (usize, usize)) -> Result<Value> {
    let (p, d) = (cfg.patch, cfg.width);
    if height == 0 || width == 0 || !height.is_multiple_of(p) || !width.is_multiple_of(p) {
        let reason = format!("{height}x{width} pixels are not made of whole patches of {p}");
        return Err(Error::config("image", format!("{height}x{width}"), reason));
    }
    // Everything before the patches is constant: the class token with its position, then the registers.
    let positions = g.tensor("pos_embed")?;
    let old = cfg.image / p;
    let mut prefix = vec![(g.tensor("cls_token")? + positions.narrow(1, 0, 1)?)?];
    if cfg.registers > 0 {
        prefix.push(g.tensor("reg_token")?.clone());
    }
    let prefix = g.constant("prefix_tokens", &Tensor::cat(&prefix, 1)?)?;
    let patches = resample(&positions.narrow(1, 1, old * old)?, old, (height / p, width / p))?;
    let positions = g.constant("patch_positions", &patches)?;

    let ys = g.conv(INPUT, "patch_embed.proj", p, 0, 1)?;
    let shape = g.ints("shape.patches", &[0, d as i64, -1], &[3]);
    let ys = g.op("Reshape", &[&ys, &shape], &[]);
    let ys = g.transpose(&ys, &[0, 2, 1]);
    let ys = g.op("Add", &[&ys, &positions], &[]);
    let batch = g.op("Shape", &[INPUT], &[Attr::Int("start", 0), Attr::Int("end", 1)]);
    let count = 1 + cfg.registers;
    let rest = g.ints("shape.prefix", &[count as i64, d as i64], &[2]);
    let shape = g.op("Concat", &[&batch, &rest], &[Attr::Int("axis", 0)]);
    let prefix = g.op("Expand", &[&prefix, &shape], &[]);
    let mut ys = g.op("Concat", &[&prefix, &ys], &[Attr::Int("axis", 1)]);

    let (heads, per_head) = (cfg.heads as i64, (d / cfg.heads) as i64);
    let split = g.ints("shape.heads", &[0, 0, 3, heads, per_head], &[5]);
    let joined = g.ints("shape.tokens", &[0, 0, d as i64], &[3]);
    let scale = g.scalar("attention.scale", (per_head as f64).sqrt().recip());
    let parts: Vec<Value> = (0..3).map(|i| g.ints(&format!("index.{i}"), &[i], &[])).collect();
    for layer in 0..cfg.depth {
        let block = format!("blocks.{layer}");
        let xs = g.layer_norm(&ys, &format!("{block}.norm1"))?;
        let qkv = g.linear(&xs, &format!("{block}.attn.qkv"))?;
        let qkv = g.op("Reshape", &[&qkv, &split], &[]);
        let qkv = g.transpose(&qkv, &[2, 0, 3, 1, 4]);
        let mut part = |i: usize| g.op("Gather", &[&qkv, &parts[i]], &[Attr::Int("axis", 0)]);
        let (q, k, v) = (part(0), part(1), part(2));
        let k = g.transpose(&k, &[0, 1, 3, 2]);
        let scores = g.op("MatMul", &[&q, &k], &[]);
        let scores = g.op("Mul", &[&scores, &scale], &[]);
        let weights = g.op("Softmax", &[&scores], &[Attr::Int("axis", -1)]);
        let xs = g.op("MatMul", &[&weights, &v], &[]);
        let xs = g.transpose(&xs, &[0, 2, 1, 3]);
        let xs = g.op("Reshape", &[&xs, &joined], &[]);
        let xs = g.linear(&xs, &format!("{block}.attn.proj"))?;
        ys = g.op("Add", &[&ys, &xs], &[]);
        let xs = g.layer_norm(&ys, &format!("{block}.norm2"))?;
        let xs = g.linear(&xs, &format!("{block}.mlp.fc1"))?;
        let xs = g.gelu(&xs);
        let xs = g.linear(&xs, &format!("{block}.mlp.fc2"))?;
        ys = g.op("Add", &[&ys, &xs], &[]);
    }
    let ys = g.layer_norm(&ys, "norm")?;
    Ok(match cfg.pool {
        VitPool::Token => g.op("Gather", &[&ys, &parts[0]], &[Attr::Int("axis", 1)]),
        VitPool::Mean => {
            let start = g.ints("slice.start", &[count as i64], &[1]);
            let end = g.ints("slice.end", &[i64::MAX], &[1]);
            let axis = g.ints("slice.axis", &[1], &[1]);
            let ys = g.op("Slice", &[&ys, &start, &end, &axis], &[]);
            mean(g, &ys, &[1])
        }
    })
}

fn convnext(g: &mut Graph<'_>, cfg: &ConvNextConfig) -> Result<Value> {
    let last = |g: &mut Graph<'_>, xs: &str| g.transpose(xs, &[0, 2, 3, 1]);
    let first = |g: &mut Graph<'_>, xs: &str| g.transpose(xs, &[0, 3, 1, 2]);
    let ys = g.conv(INPUT, "features.0.0", cfg.patch, 0, 1)?;
    let ys = last(g, &ys);
    let mut ys = g.layer_norm(&ys, "features.0.1")?;
    for (i, (&count, &width)) in cfg.blocks.iter().zip(&cfg.widths).enumerate() {
        if i > 0 {
            let xs = g.layer_norm(&ys, &format!("features.{}.0", 2 * i))?;
            let xs = first(g, &xs);
            let xs = g.conv(&xs, &format!("features.{}.1", 2 * i), 2, 0, 1)?;
            ys = last(g, &xs);
        }
        for j in 0..count {
            let name = format!("features.{}.{j}", 2 * i + 1);
            let xs = first(g, &ys);
            let xs = g.conv(&xs, &format!("{name}.block.0"), 1, 3, width)?;
            let xs = last(g, &xs);
            let xs = g.layer_norm(&xs, &format!("{name}.block.2"))?;
            let xs = g.linear(&xs, &format!("{name}.block.3"))?;
            let xs = g.gelu(&xs);
            let xs = g.linear(&xs, &format!("{name}.block.5"))?;
            let scale = g.tensor(&format!("{name}.layer_scale"))?.flatten_all()?;
            let scale = g.constant(&format!("{name}.layer_scale"), &scale)?;
            let xs = g.op("Mul", &[&xs, &scale], &[]);
            ys = g.op("Add", &[&ys, &xs], &[]);
        }
    }
    let ys = mean(g, &ys, &[1, 2]);
    g.layer_norm(&ys, "classifier.0")
}

fn mean(g: &mut Graph<'_>, xs: &str, axes: &[i64]) -> Value {
    g.op("ReduceMean", &[xs], &[Attr::Ints("axes", axes), Attr::Int("keepdims", 0)])
}
