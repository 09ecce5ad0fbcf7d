//! The Python code that builds a network of torchvision or timm with the shapes of ours.

use super::Naming;
use crate::{ConvNextConfig, EncoderConfig, Error, ResNetConfig, Result, Stem, VitConfig, VitPool};

/// How the network is built there.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    /// Python: `model` is the network.
    pub(super) text: String,
    /// Where it differs from the network that the library has under a name.
    pub(super) notes: Vec<String>,
    /// The maps in the blocks of this ConvNeXt are convolutions with a kernel of one pixel.
    pub(super) pointwise: bool,
}

/// The code for an encoder.
///
/// # Errors
/// A network that the library does not have, with the reason.
pub(super) fn code(encoder: &EncoderConfig, naming: Naming) -> Result<Code> {
    match (naming, encoder) {
        (Naming::Own, _) => Ok(Code::default()),
        (_, EncoderConfig::ResNet9(_)) => {
            Err(refuse(naming, "has no network of nine layers; write it with `--names own`".to_owned()))
        }
        (_, EncoderConfig::Patches(_)) => {
            Err(refuse(naming, "has no layer of whitened patches; write it with `--names own`".to_owned()))
        }
        (_, EncoderConfig::ResNet(cfg)) => resnet(cfg, naming),
        (Naming::Torchvision, EncoderConfig::Vit(cfg)) => torchvision_vit(cfg),
        (Naming::Timm, EncoderConfig::Vit(cfg)) => Ok(timm_vit(cfg)),
        (Naming::Torchvision, EncoderConfig::ConvNext(cfg)) => torchvision_convnext(cfg),
        (Naming::Timm, EncoderConfig::ConvNext(cfg)) => timm_convnext(cfg),
    }
}

fn refuse(naming: Naming, reason: String) -> Error {
    Error::config("names", naming, format!("{naming} {reason}"))
}

fn resnet(cfg: &ResNetConfig, naming: Naming) -> Result<Code> {
    let stages = cfg.stages()?;
    if stages.len() > 4 {
        let reason = format!("has residual networks of four stages, this one has {}", stages.len());
        return Err(refuse(naming, reason));
    }
    if cfg.stem.whitens().is_some() {
        return Err(refuse(
            naming,
            "has no stem that whitens patches; write it with `--names own`".to_owned(),
        ));
    }
    let block = if cfg.depth >= 50 { "Bottleneck" } else { "BasicBlock" };
    let (width, channels) = (cfg.width, cfg.in_channels);
    let standard = ResNetConfig { blocks: vec![], ..cfg.clone() }.stages()? == stages && width == 64;
    let name = match (cfg.depth, cfg.inner_multiplier) {
        (depth, 1) => Some(format!("resnet{depth}")),
        (depth @ (50 | 101), 2) => Some(format!("wide_resnet{depth}_2")),
        _ => None,
    };
    // timm's constructor has a stem of 64 channels only; torchvision's can be rebuilt stage by stage.
    let timm = naming == Naming::Timm && width == 64;
    let (mut lines, mut notes) = (vec!["from torch import nn".to_owned()], Vec::new());
    let mut filled = stages.clone();
    filled.resize(4, 1);
    match (name.filter(|_| standard), timm) {
        (Some(name), true) => {
            lines.push("import timm".to_owned());
            lines.push(format!("model = timm.create_model(\"{name}\", num_classes=0)"));
        }
        (Some(name), false) => {
            lines.push("import torchvision".to_owned());
            lines.push(format!("model = torchvision.models.{name}()"));
        }
        (None, true) => {
            lines.push(format!("from timm.models.resnet import {block}, ResNet"));
            let base = 64 * cfg.inner_multiplier;
            lines.push(format!("model = ResNet({block}, {filled:?}, num_classes=0, base_width={base})"));
        }
        (None, false) => {
            lines.push(format!("from torchvision.models.resnet import {block}, ResNet"));
            let base = 64 * cfg.inner_multiplier;
            lines.push(format!("model = ResNet({block}, {filled:?}, width_per_group={base})"));
        }
    }
    if width != 64 {
        lines.push(format!("model.inplanes, model.bn1 = {width}, nn.BatchNorm2d({width})"));
        lines.push(format!("for i, blocks in enumerate({filled:?}):"));
        lines.push(format!(
            "    setattr(model, f\"layer{{i + 1}}\", model._make_layer({block}, {width} << i, blocks, stride=1 if i == 0 else 2))"
        ));
        notes.push(format!("the stages are of {width} channels upwards, not 64: they are built anew"));
        if naming == Naming::Timm {
            notes.push(
                "timm's ResNet has stems of 64 channels only; its names are those of torchvision, whose module takes \
                 these weights"
                    .to_owned(),
            );
        }
    }
    match cfg.stem {
        Stem::Cifar => {
            lines.push(format!("model.conv1 = nn.Conv2d({channels}, {width}, 3, 1, 1, bias=False)"));
            lines.push("model.maxpool = nn.Identity()".to_owned());
            notes.push(
                "the stem is that for small images: `conv1` is a 3x3 convolution of stride 1 and `maxpool` the identity"
                    .to_owned(),
            );
        }
        Stem::Imagenet if width != 64 || channels != 3 => {
            lines.push(format!("model.conv1 = nn.Conv2d({channels}, {width}, 7, 2, 3, bias=False)"));
            if channels != 3 {
                notes.push(format!("`conv1` takes images of {channels} channels"));
            }
        }
        Stem::Imagenet | Stem::Whitened | Stem::WhitenedTrained => {}
    }
    for missing in stages.len()..4 {
        lines.push(format!("model.layer{} = nn.Identity()", missing + 1));
        notes.push(format!("there is no `layer{}`: it is the identity", missing + 1));
    }
    if !timm {
        lines.push("model.fc = nn.Identity()".to_owned());
    }
    Ok(Code { text: lines.join("\n"), notes, pointwise: false })
}

fn torchvision_vit(cfg: &VitConfig) -> Result<Code> {
    if cfg.registers > 0 {
        let reason = "has no register tokens; use timm's names".to_owned();
        return Err(refuse(Naming::Torchvision, reason));
    }
    if cfg.in_channels != 3 {
        let reason =
            format!("takes images of 3 channels, this network {}; use timm's names", cfg.in_channels);
        return Err(refuse(Naming::Torchvision, reason));
    }
    let VitConfig { image, patch, width, depth, heads, mlp_ratio, .. } = cfg;
    let mut lines = vec![
        "from torch import nn".to_owned(),
        "from torchvision.models import VisionTransformer".to_owned(),
        format!(
            "model = VisionTransformer(image_size={image}, patch_size={patch}, num_layers={depth}, num_heads={heads}, \
             hidden_dim={width}, mlp_dim={})",
            width * mlp_ratio
        ),
        "model.heads = nn.Identity()".to_owned(),
    ];
    let mut notes = vec![
        "queries, keys and values are one fused map (`in_proj_weight`), in this order, as in timm".to_owned(),
    ];
    if cfg.pool == VitPool::Mean {
        lines.push(
            "# The features are the mean of the patch tokens, not the class token that forward() gives."
                .to_owned(),
        );
        notes.push(
            "the features are the mean of the patch tokens; torchvision's forward() gives the class token: take the mean \
             of `model.encoder(..)[:, 1:]`, or use timm's names"
                .to_owned(),
        );
    }
    Ok(Code { text: lines.join("\n"), notes, pointwise: false })
}

fn timm_vit(cfg: &VitConfig) -> Code {
    let VitConfig { image, patch, width, depth, heads, mlp_ratio, in_channels, registers, .. } = cfg;
    let mut more = String::new();
    let mut notes = Vec::new();
    if cfg.pool == VitPool::Mean {
        more += ", global_pool=\"avg\", fc_norm=False";
        notes.push("the last normalization comes before the mean: `fc_norm=False`".to_owned());
    }
    if *registers > 0 {
        more += &format!(", reg_tokens={registers}");
        notes.push("the registers have no positions: `pos_embed` is zero there".to_owned());
    }
    let lines = [
        "from timm.models import VisionTransformer".to_owned(),
        format!(
            "model = VisionTransformer(img_size={image}, patch_size={patch}, in_chans={in_channels}, embed_dim={width}, \
             depth={depth}, num_heads={heads}, mlp_ratio={mlp_ratio}, num_classes=0{more})"
        ),
    ];
    Code { text: lines.join("\n"), notes, pointwise: false }
}

fn torchvision_convnext(cfg: &ConvNextConfig) -> Result<Code> {
    if cfg.blocks.iter().sum::<usize>() < 2 {
        // Its constructor divides by the number of blocks less one.
        return Err(refuse(Naming::Torchvision, "has no ConvNeXt of one block".to_owned()));
    }
    let settings: Vec<String> = cfg
        .blocks
        .iter()
        .enumerate()
        .map(|(i, count)| {
            let next = cfg.widths.get(i + 1).map_or("None".to_owned(), usize::to_string);
            format!("CNBlockConfig({}, {next}, {count})", cfg.widths[i])
        })
        .collect();
    let mut lines = vec![
        "from torch import nn".to_owned(),
        "from torchvision.models.convnext import CNBlockConfig, ConvNeXt".to_owned(),
        format!("model = ConvNeXt([{}])", settings.join(", ")),
    ];
    let mut notes = Vec::new();
    stem("features[0][0]", cfg, &mut lines, &mut notes);
    lines.push("model.classifier[2] = nn.Identity()".to_owned());
    Ok(Code { text: lines.join("\n"), notes, pointwise: false })
}

fn timm_convnext(cfg: &ConvNextConfig) -> Result<Code> {
    if cfg.blocks.len() != 4 {
        let reason = format!(
            "has ConvNeXts of four stages, this one has {}; use torchvision's names",
            cfg.blocks.len()
        );
        return Err(refuse(Naming::Timm, reason));
    }
    let named = [
        ("convnext_atto", ConvNextConfig::atto(), true),
        ("convnext_femto", ConvNextConfig::femto(), true),
        ("convnext_pico", ConvNextConfig::pico(), true),
        ("convnext_nano", ConvNextConfig::nano(), true),
        ("convnext_tiny", ConvNextConfig::tiny(), false),
    ];
    let same = |other: &ConvNextConfig| other.blocks == cfg.blocks && other.widths == cfg.widths;
    let (mut lines, mut notes) = (vec!["from torch import nn".to_owned()], Vec::new());
    let pointwise = match named.into_iter().find(|(_, other, _)| same(other)) {
        Some((name, _, pointwise)) => {
            lines.push("import timm".to_owned());
            lines.push(format!("model = timm.create_model(\"{name}\", num_classes=0)"));
            pointwise
        }
        None => {
            lines.push("from timm.models import ConvNeXt".to_owned());
            lines.push(format!(
                "model = ConvNeXt(depths={:?}, dims={:?}, num_classes=0)",
                cfg.blocks, cfg.widths
            ));
            false
        }
    };
    if pointwise {
        notes.push(
            "the maps of its blocks are 1x1 convolutions in timm: their weights have four dimensions"
                .to_owned(),
        );
    }
    stem("stem[0]", cfg, &mut lines, &mut notes);
    Ok(Code { text: lines.join("\n"), notes, pointwise })
}

/// The stem of other patches than those of 4 pixels.
fn stem(module: &str, cfg: &ConvNextConfig, lines: &mut Vec<String>, notes: &mut Vec<String>) {
    if cfg.patch == 4 && cfg.in_channels == 3 {
        return;
    }
    let (patch, channels) = (cfg.patch, cfg.in_channels);
    lines.push(format!("model.{module} = nn.Conv2d({channels}, {}, {patch}, {patch})", cfg.widths[0]));
    notes.push(format!(
        "`{module}` is a convolution of {channels} channels with a kernel and stride of {patch} pixels"
    ));
}
