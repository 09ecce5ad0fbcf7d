"""Writes the tiny networks of torchvision and timm that ../../weights.rs loads, one safetensors file each.

Run: python make_weights.py  (torch 2.15.0, torchvision 0.29.2, timm 1.0.31, safetensors 0.8.0).
Each file holds the state dict under `state.`, as the library names it, with its classifier and its counters; the images
as `input`; and the features, before the classifier, of a pass in evaluation mode (`eval`) and of a pass in training
mode after it (`train`) in f32. Weights are random: kernels and maps by the variance that keeps activations near 1,
scales and shifts of normalizations around 1 and 0, running statistics likewise, layer scales around 0.5.
`counts.json` holds the numbers of parameters of the libraries' own networks, without their classifiers.
"""

import json
import os

import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import ConvNeXt as TimmConvNeXt
from timm.models import VisionTransformer as TimmVit
from timm.models.resnet import BasicBlock as TimmBasic
from timm.models.resnet import Bottleneck as TimmBottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(0)


def resnet(block, blocks, width, stem, **more):
    """torchvision's ResNet, its stages built anew with another width."""
    model = ResNet(block, blocks, num_classes=5, **more)
    model.inplanes, model.bn1 = width, nn.BatchNorm2d(width)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    else:
        model.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    for i, count in enumerate(blocks):
        stage = model._make_layer(block, width << i, count, stride=1 if i == 0 else 2)
        setattr(model, f"layer{i + 1}", stage)
    model.fc = nn.Linear((width << 3) * block.expansion, 5)
    return model


def timm_resnet(block, blocks, width, **more):
    """timm's ResNet with narrow stages: its stem of 64 channels is replaced before they are built."""
    from timm.models import resnet as module

    model = TimmResNet(block, blocks, num_classes=5, **more)
    model.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    stages, _ = module.make_blocks(
        (block,) * 4, [width << i for i in range(4)], blocks, width, base_width=more.get("base_width", 64)
    )
    for name, stage in stages:
        setattr(model, name, stage)
    model.fc = nn.Linear((width << 3) * block.expansion, 5)
    return model


def fill(model):
    with torch.no_grad():
        for name, p in list(model.named_parameters()) + list(model.named_buffers()):
            if name.endswith("num_batches_tracked"):
                p.fill_(7)
            elif name.endswith("running_var"):
                p.copy_(0.5 + torch.rand_like(p))
            elif name.endswith("running_mean"):
                p.copy_(0.2 * torch.randn_like(p))
            elif "gamma" in name or "layer_scale" in name:
                p.copy_(0.5 + 0.2 * torch.randn_like(p))
            elif "token" in name or "pos_embed" in name:
                p.copy_(0.5 * torch.randn_like(p))
            elif p.dim() == 1:
                p.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * (1.5 / p[0].numel()) ** 0.5)
    return model


def write(name, model, head, size, channels=3):
    fill(model)
    state = {f"state.{k}": v.clone().contiguous() for k, v in model.state_dict().items()}
    # The features: what enters the classifier.
    owner, leaf = head
    setattr(owner(model), leaf, nn.Identity()) if isinstance(leaf, str) else owner(model).__setitem__(leaf, nn.Identity())
    images = torch.randn(4, channels, size, size)
    with torch.no_grad():
        features = {"eval": model.eval()(images), "train": model.train()(images)}
    features = {k: v.clone().contiguous() for k, v in features.items()}
    save_file(state | features | {"input": images}, os.path.join(HERE, f"{name}.safetensors"))


fc = (lambda m: m, "fc")
head = (lambda m: m, "head")
write("torchvision-resnet-basic", resnet(BasicBlock, [1, 2, 1, 1], 2, "imagenet"), fc, 32)
write("torchvision-resnet-cifar", resnet(BasicBlock, [1, 1, 1, 1], 2, "cifar"), fc, 16)
write("torchvision-resnet-wide", resnet(Bottleneck, [1, 1, 1, 2], 2, "imagenet", width_per_group=128), fc, 32)
write("timm-resnet-basic", timm_resnet(TimmBasic, [1, 1, 1, 2], 2), fc, 32)
write("timm-resnet-bottleneck", timm_resnet(TimmBottleneck, [1, 1, 1, 1], 2), fc, 32)
vit = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5)
write("timm-vit", TimmVit(**vit), head, 12)
write("timm-vit-registers", TimmVit(reg_tokens=2, init_values=0.5, **vit), head, 12)
write("timm-vit-mean", TimmVit(global_pool="avg", fc_norm=False, reg_tokens=2, no_embed_class=True, **vit), head, 12)
write(
    "torchvision-vit",
    VisionTransformer(image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5),
    (lambda m: m.heads, "head"),
    12,
)
convnext = dict(depths=(1, 1, 2, 1), dims=(4, 8, 12, 16), num_classes=5)
write("timm-convnext", TimmConvNeXt(**convnext), (lambda m: m.head, "fc"), 32)
write("timm-convnext-pointwise", TimmConvNeXt(conv_mlp=True, **convnext), (lambda m: m.head, "fc"), 32)
blocks = [CNBlockConfig(4, 8, 1), CNBlockConfig(8, 12, 2), CNBlockConfig(12, None, 1)]
write("torchvision-convnext", ConvNeXt(blocks, num_classes=5), (lambda m: m.classifier, 2), 32)

# Positions for a grid of 4x4 as timm resamples them to 3x3: what the model of 12 pixels must hold after them.
from timm.layers import resample_abs_pos_embed

old = torch.randn(1, 17, 16)
save_file({"old": old, "new": resample_abs_pos_embed(old, [3, 3], [4, 4])}, os.path.join(HERE, "positions.safetensors"))

counts = {}
for ours, library, name in [
    ("resnet18", "torchvision", "resnet18"),
    ("resnet34", "torchvision", "resnet34"),
    ("resnet50", "torchvision", "resnet50"),
    ("resnet101", "torchvision", "resnet101"),
    ("resnet152", "torchvision", "resnet152"),
    ("wide-resnet50-2", "torchvision", "wide_resnet50_2"),
    ("wide-resnet101-2", "torchvision", "wide_resnet101_2"),
    ("vit-base", "torchvision", "vit_b_16"),
    ("convnext-tiny", "torchvision", "convnext_tiny"),
    ("resnet18", "timm", "resnet18"),
    ("resnet34", "timm", "resnet34"),
    ("resnet50", "timm", "resnet50"),
    ("resnet101", "timm", "resnet101"),
    ("wide-resnet50-2", "timm", "wide_resnet50_2"),
    ("vit-tiny", "timm", "vit_tiny_patch16_224"),
    ("vit-small", "timm", "vit_small_patch16_224"),
    ("vit-base", "timm", "vit_base_patch16_224"),
    ("convnext-atto", "timm", "convnext_atto"),
    ("convnext-femto", "timm", "convnext_femto"),
    ("convnext-pico", "timm", "convnext_pico"),
    ("convnext-nano", "timm", "convnext_nano"),
    ("convnext-tiny", "timm", "convnext_tiny"),
]:
    with torch.device("meta"):
        if library == "timm":
            model = timm.create_model(name, num_classes=0)
        else:
            model = getattr(torchvision.models, name)()
            for path in ["fc", "heads", "classifier.2"]:
                parent, _, leaf = path.rpartition(".")
                parent = model.get_submodule(parent) if hasattr(model, path.split(".")[0]) else None
                if parent is not None:
                    setattr(parent, leaf, nn.Identity())
    counts[f"{ours} {library}:{name}"] = sum(p.numel() for p in model.parameters())
versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
with open(os.path.join(HERE, "counts.json"), "w") as file:
    json.dump({"versions": versions, "counts": counts}, file, indent=1)
    file.write("\n")
print(json.dumps(counts, indent=1))
