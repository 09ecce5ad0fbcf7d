"""Writes vision.json: outputs and gradients of torchvision's vision transformer and ConvNeXt, small, in float64.

Run: python make_vision.py  (torch 2.15.0, torchvision 0.29.2).
Weights follow a formula, so that none are stored: element i of the parameter number p in sorted order of our
names is 0.3 sin(0.37 i + 1.3 p + 0.2), plus 1 for the scale of a normalization; see ../vision.rs.
torchvision's names of the vision transformer are turned into timm's, which are ours.
"""
import json
import os
import re

import numpy as np
import torch
from torchvision.models import VisionTransformer, vit_b_16
from torchvision.models.convnext import CNBlockConfig, ConvNeXt, convnext_tiny


def wave(shape, p):
    n = int(np.prod(shape))
    return torch.from_numpy(np.sin(0.37 * np.arange(n) + 1.3 * p + 0.2).reshape(shape))


def timm(name):
    for a, b in [
        ("class_token", "cls_token"), ("encoder.pos_embedding", "pos_embed"), ("conv_proj", "patch_embed.proj"),
        ("encoder.ln", "norm"), ("self_attention.in_proj_", "attn.qkv."), ("self_attention.out_proj", "attn.proj"),
        ("ln_1", "norm1"), ("ln_2", "norm2"), ("mlp.0", "mlp.fc1"), ("mlp.3", "mlp.fc2"),
    ]:
        name = name.replace(a, b)
    return re.sub(r"encoder\.layers\.encoder_layer_(\d+)", r"blocks.\1", name)


def run(model, rename, size):
    model = model.double().eval()
    params = {rename(k): v for k, v in model.named_parameters()}
    with torch.no_grad():
        for p, name in enumerate(sorted(params)):
            v = params[name]
            norm = v.dim() == 1 and name.endswith("weight")
            v.copy_(0.3 * wave(v.shape, p) + (1 if norm else 0))
    ys = model(wave((2, 3, size, size), 7) * torch.arange(1, 3).reshape(2, 1, 1, 1))
    (ys * wave(ys.shape, 5)).sum().backward()
    return {
        "names": sorted(params),
        "values": ys.flatten().tolist(),
        "grad_norms": {k: v.grad.norm().item() for k, v in params.items()},
    }


vit = VisionTransformer(image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=32)
vit.heads = torch.nn.Identity()
convnext = ConvNeXt([CNBlockConfig(6, 10, 2), CNBlockConfig(10, None, 1)], stochastic_depth_prob=0.0)
convnext.classifier[2] = torch.nn.Identity()


def count(model, head):
    return sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in head.parameters())


base, tiny = vit_b_16(), convnext_tiny()
out = {
    "vit": run(vit, timm, 12),
    "convnext": run(convnext, lambda name: name, 21),
    "vit-base parameters": count(base, base.heads),
    "convnext-tiny parameters": count(tiny, tiny.classifier[2]),
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vision.json"), "w") as file:
    json.dump(out, file, indent=0)
    file.write("\n")
