"""Writes resnet.json: outputs of torchvision ResNets of small width, in float64.

Run: python make.py  (torch 2.15.0, torchvision 0.29.2).
Weights follow a formula, so that none are stored: element i of the parameter number p in sorted order is
sin(0.37 i + 1.3 p + 0.2) times a scale; see `formula` in ../torchvision.rs.
"""
import json, os
import numpy as np, torch
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

def wave(shape, p):
    n = int(np.prod(shape))
    return torch.from_numpy(np.sin(0.37 * np.arange(n) + 1.3 * p + 0.2).reshape(shape))

def build(block, blocks, width, stem):
    m = ResNet(block, [1, 1, 1, 1])
    m.inplanes = width
    if stem == "cifar":
        m.conv1 = torch.nn.Conv2d(3, width, 3, 1, 1, bias=False)
        m.maxpool = torch.nn.Identity()
    else:
        m.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
    m.bn1 = torch.nn.BatchNorm2d(width)
    for i in range(4):
        layer = m._make_layer(block, width << i, blocks[i], stride=1 if i == 0 else 2)
        setattr(m, f"layer{i + 1}", layer)
    m.fc = torch.nn.Identity()
    m = m.double()
    state = {k: v for k, v in m.state_dict().items() if not k.endswith("num_batches_tracked")}
    for p, name in enumerate(sorted(state)):
        v, w = state[name], wave(state[name].shape, p)
        if name.endswith("running_mean"): v.copy_(0.1 * w)
        elif name.endswith("running_var"): v.copy_(1 + 0.3 * w)
        elif v.dim() == 1: v.copy_((1 if name.endswith("weight") else 0) + 0.2 * w)
        else: v.copy_(w * (2.0 / (v.shape[0] * v.shape[2] * v.shape[3])) ** 0.5)
    return m, sorted(state)

out = {}
for name, block, blocks, width, stem, size in [
    ("resnet18-cifar", BasicBlock, [2, 2, 2, 2], 4, "cifar", 16),
    ("resnet18-imagenet", BasicBlock, [2, 2, 2, 2], 4, "imagenet", 48),
    ("resnet50-imagenet", Bottleneck, [3, 4, 6, 3], 2, "imagenet", 48),
]:
    m, names = build(block, blocks, width, stem)
    xs = wave((3, 3, size, size), 7) + wave((3, 3, size, size), 3) ** 3 * torch.arange(1, 4).reshape(3, 1, 1, 1)
    m.eval()
    ev = m(xs)
    m.train()
    tr = m(xs)
    (tr * wave(tr.shape, 5)).sum().backward()
    grads = {k: p.grad.norm().item() for k, p in m.named_parameters()}
    running = {k: v.norm().item() for k, v in m.state_dict().items() if "running" in k}
    out[name] = {"names": names, "eval": ev.flatten().tolist(), "train": tr.flatten().tolist(),
                 "grad_norms": grads, "running_norms": running}
full = {}
from torchvision.models import resnet18
f = resnet18(); f.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False); f.fc = torch.nn.Identity()
out["resnet18-cifar-64-parameters"] = sum(p.numel() for p in f.parameters())
json.dump(out, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "resnet.json"), "w"), indent=0)
