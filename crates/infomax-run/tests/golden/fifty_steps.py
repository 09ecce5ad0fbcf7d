"""Writes fifty_steps.json: the losses of 50 training steps of PyTorch for VICReg, SimCLR and BYOL.

Run with `python fifty_steps.py` in this folder (torch, torchvision; some seconds on a CPU). All in f64. Weights and batches are hashes of
their places, so that the test makes the same ones and the file holds nothing but losses. The network is that of a
ResNet-18 with the stem for small images, two stages of one of torchvision's basic blocks; the losses are written from their
publications (arXiv 2105.04906, 2002.05709, 2006.07733); the optimizer is torch.optim.SGD.
"""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

STEPS, BATCHES, BATCH, SIDE, WIDTH = 50, 5, 16, 12, 8
LR, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
TEMPERATURE, TEACHER = 0.5, 0.9


def uniform(name, count):
    """Numbers in [-1, 1) from the bytes of a name and the index: exact in f64."""
    seed = 0
    for byte in name.encode():
        seed = (seed * 31 + byte) % 2**32
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + seed * 2246822519) % 2**32
    h ^= h >> np.uint64(15)
    h = h * np.uint64(2246822507) % 2**32
    h ^= h >> np.uint64(13)
    return h.astype(np.float64) / 2**31 - 1


def tensor(name, shape, scale):
    return torch.tensor((uniform(name, math.prod(shape)) * scale).reshape(shape), dtype=torch.float64)


def views(batch):
    """Two noisy looks at images of 3x3 flat squares."""
    base = tensor(f"base {batch}", (BATCH, 3, 3, 3), 1.0).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return [base + tensor(f"view {batch} {v}", base.shape, 0.4) for v in range(2)]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layer1 = nn.Sequential(BasicBlock(WIDTH, WIDTH))
        down = nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 1, 2, bias=False), nn.BatchNorm2d(2 * WIDTH))
        self.layer2 = nn.Sequential(BasicBlock(WIDTH, 2 * WIDTH, 2, down))

    def forward(self, x):
        return self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))).mean((2, 3))


def head(widths, last_bias):
    layers = []
    for a, b in zip(widths[:-2], widths[1:-1]):
        layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=last_bias))


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.projector = head([2 * WIDTH, 32, 24], False)

    def forward(self, x):
        return self.projector(self.encoder(x))


def initialize(module):
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() > 1:
                fan = p[0].numel()
                p.copy_(tensor(name, p.shape, math.sqrt(6.0 / fan)))
            else:
                p.fill_(1.0 if name.endswith("weight") else 0.0)


def vicreg(a, b):
    n, d = a.shape
    sim = F.mse_loss(a, b)
    std = sum(F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() for z in (a, b)) / 2
    cov = 0
    for z in (a, b):
        z = z - z.mean(0)
        c = z.T @ z / (n - 1)
        cov = cov + (c.pow(2).sum() - c.diagonal().pow(2).sum()) / d
    return 25 * sim + 25 * std + cov


def nt_xent(a, b):
    z = F.normalize(torch.cat([a, b]), dim=1)
    n = len(z)
    scores = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(n, dtype=torch.bool), -math.inf)
    return F.cross_entropy(scores, (torch.arange(n) + n // 2) % n)


def regression(p, t):
    return (2 - 2 * F.cosine_similarity(p, t)).mean()


def run(method):
    student = nn.ModuleDict({"branch": Branch()})
    if method == "byol":
        student["predictor"] = head([24, 32, 24], True)
    # The names of a joint embedding: encoder, projector, predictor.
    flat = nn.Module()
    flat.encoder, flat.projector = student["branch"].encoder, student["branch"].projector
    if method == "byol":
        flat.predictor = student["predictor"]
    initialize(flat)
    teacher = Branch()
    teacher.load_state_dict(student["branch"].state_dict())
    optimizer = torch.optim.SGD(flat.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    losses = []
    for step in range(STEPS):
        a, b = views(step % BATCHES)
        za, zb = student["branch"](a), student["branch"](b)
        if method == "vicreg":
            loss = vicreg(za, zb)
        elif method == "simclr":
            loss = nt_xent(za, zb)
        else:
            pa, pb = student["predictor"](za), student["predictor"](zb)
            with torch.no_grad():
                ta, tb = teacher(a), teacher(b)
            loss = regression(pa, tb) + regression(pb, ta)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tau = 1 - (1 - TEACHER) * (math.cos(math.pi * step / STEPS) + 1) / 2
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student["branch"].parameters()):
                t.mul_(tau).add_(s, alpha=1 - tau)
    return losses


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    out = {"torch": torch.__version__.split("+")[0]}
    for method in ("vicreg", "simclr", "byol"):
        out[method] = run(method)
    with open("fifty_steps.json", "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")
