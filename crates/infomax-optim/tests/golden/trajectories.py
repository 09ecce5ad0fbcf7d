"""Writes trajectories.json: 20 steps of every optimizer, written out in numpy (float64) from its publication.

Run with `python trajectories.py` in this folder (numpy 2.x, no PyTorch). The loss is, summed over all elements,
    1/2 a (p - c)^2 + 1/4 p^4, so that the gradient of p is a (p - c) + p^3,
with `start`, `a` and `c` of every parameter in the file. What each formula follows stands beside it.
"""

import json
import math

import numpy as np

STEPS = 20
SHAPES = {
    "bias": (3,),
    "embed.weight": (2, 2),
    "kernel.weight": (2, 2, 2, 2),
    "norm.weight": (2,),
    "up.weight": (4, 2),
    "wide.weight": (2, 3),
}


def wave(shape, phase, scale):
    count = int(np.prod(shape))
    return scale * np.sin(0.9 * np.arange(count) + phase).reshape(shape)


START = {name: wave(shape, 0.3 + k, 0.8) for k, (name, shape) in enumerate(SHAPES.items())}
A = {name: 1 + wave(shape, 1.1 + 2 * k, 0.5) for k, (name, shape) in enumerate(SHAPES.items())}
C = {name: wave(shape, 2.3 + 3 * k, 0.6) for k, (name, shape) in enumerate(SHAPES.items())}


def lr_at(step, base):
    return base * (0.2 + 0.8 * (1 + math.cos(math.pi * step / STEPS)) / 2)


def regular(name):
    """What weight decay and adaptation are for: neither biases nor normalizations."""
    return len(SHAPES[name]) > 1


class Sgd:
    """torch.optim.SGD without dampening (Sutskever et al. 2013 for Nesterov's form)."""

    def __init__(self, momentum=0.9, weight_decay=0.0, nesterov=False):
        self.mu, self.wd, self.nesterov, self.m = momentum, weight_decay, nesterov, {}

    def step(self, name, p, g, lr):
        d = g + (self.wd if regular(name) else 0) * p
        m = self.m[name] = self.mu * self.m.get(name, 0) + d
        return p - lr * (d + self.mu * m if self.nesterov else m)


class AdamW:
    """Algorithm 2 of arXiv 1711.05101, decay times the learning rate as in torch.optim.AdamW."""

    def __init__(self, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        self.b1, self.b2, self.eps, self.wd = beta1, beta2, eps, weight_decay
        self.m, self.v, self.t = {}, {}, {}

    def moments(self, name, g):
        t = self.t[name] = self.t.get(name, 0) + 1
        m = self.m[name] = self.b1 * self.m.get(name, 0) + (1 - self.b1) * g
        v = self.v[name] = self.b2 * self.v.get(name, 0) + (1 - self.b2) * g**2
        return m / (1 - self.b1**t) / (np.sqrt(v / (1 - self.b2**t)) + self.eps)

    def step(self, name, p, g, lr):
        wd = self.wd if regular(name) else 0
        return p - lr * wd * p - lr * self.moments(name, g)


class Lars:
    """`official`: the published code of VICReg and Barlow Twins; `solo-learn`: that library (arXiv 1708.03888)."""

    def __init__(self, momentum=0.9, weight_decay=1e-6, eta=0.001, form="official", clip_lr=False, trust=None, decay=None):
        self.mu, self.wd, self.eta, self.form, self.clip = momentum, weight_decay, eta, form, clip_lr
        self.trust, self.decay, self.m = trust or {}, decay or {}, {}

    def step(self, name, p, g, lr):
        wd = self.decay.get(name, self.wd if regular(name) else 0)
        d = g + wd * p
        if self.trust.get(name, regular(name)):
            if self.form == "official":
                q = self.eta * np.linalg.norm(p) / np.linalg.norm(d)
            else:
                q = self.eta * np.linalg.norm(p) / (np.linalg.norm(g) + wd * np.linalg.norm(p) + 1e-8)
            d = d * (min(q / lr, 1) if self.clip else q)
        m = self.m[name] = self.mu * self.m.get(name, 0) + d
        return p - lr * m


class Lamb(AdamW):
    """Algorithm 2 of arXiv 1904.00962 with phi(z) = z; `max_trust` as timm's `trust_clip`."""

    def __init__(self, eps=1e-6, max_trust=math.inf, **kw):
        super().__init__(eps=eps, **kw)
        self.max_trust = max_trust

    def step(self, name, p, g, lr):
        r = self.moments(name, g) + (self.wd if regular(name) else 0) * p
        q = min(np.linalg.norm(p) / np.linalg.norm(r), self.max_trust) if regular(name) else 1
        return p - lr * q * r


class Muon:
    """Keller Jordan's Muon with AdamW for what is no hidden matrix (github.com/KellerJordan/Muon, commit 00ba60d),
    in float64 instead of bf16."""

    def __init__(self, momentum=0.95, nesterov=True, ns_steps=5, scale="original", weight_decay=0.0, adamw_lr_factor=0.015, factors=None):
        self.mu, self.nesterov, self.steps, self.scale, self.wd = momentum, nesterov, ns_steps, scale, weight_decay
        self.rest = AdamW(beta1=0.9, beta2=0.95, eps=1e-10, weight_decay=weight_decay)
        self.factor, self.factors, self.m = adamw_lr_factor, factors or {}, {}

    def step(self, name, p, g, lr):
        lr = lr * self.factors.get(name, 1)
        if not regular(name) or "embed" in name:
            return self.rest.step(name, p, g, lr * self.factor)
        m = self.m[name] = self.mu * self.m.get(name, 0) + (1 - self.mu) * g
        u = (1 - self.mu) * g + self.mu * m if self.nesterov else m
        u = u.reshape(len(u), -1)
        x = (u.T if u.shape[0] > u.shape[1] else u) / (np.sqrt((u**2).sum()) + 1e-7)
        for _ in range(self.steps):
            gram = x @ x.T
            x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
        o = (x.T if u.shape[0] > u.shape[1] else x).reshape(p.shape)
        if self.scale == "original":
            scale = max(1, p.shape[-2] / p.shape[-1]) ** 0.5
        else:
            scale = 0.2 * max(u.shape) ** 0.5
        return (1 - lr * self.wd) * p - lr * scale * o


def run(optimizer, base):
    params, trajectory = dict(START), []
    for step in range(STEPS):
        for name, p in params.items():
            g = A[name] * (p - C[name]) + p**3
            params[name] = optimizer.step(name, p, g, lr_at(step, base))
        trajectory.append({name: p.ravel().tolist() for name, p in params.items()})
    return trajectory


CASES = [
    ({"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, Sgd(0.9, 0.1), 0.05),
    ({"name": "sgd", "momentum": 0.8, "weight_decay": 0.1, "nesterov": True}, Sgd(0.8, 0.1, True), 0.05),
    ({"name": "adamw", "weight_decay": 0.1}, AdamW(weight_decay=0.1), 0.05),
    ({"name": "lars", "weight_decay": 0.05, "eta": 0.1}, Lars(weight_decay=0.05, eta=0.1), 0.5),
    (
        {"name": "lars", "weight_decay": 0.05, "eta": 0.02, "form": "solo-learn", "clip_lr": True},
        Lars(weight_decay=0.05, eta=0.02, form="solo-learn", clip_lr=True),
        0.3,
    ),
    (
        {
            "name": "lars", "weight_decay": 0.05, "eta": 0.1,
            "groups": [{"match": "*.weight", "trust": False}, {"match": "up.*", "trust": True, "weight_decay": 0.2}],
        },
        Lars(
            weight_decay=0.05, eta=0.1, decay={"up.weight": 0.2},
            trust={name: name == "up.weight" for name in SHAPES},
        ),
        0.1,
    ),
    ({"name": "lamb"}, Lamb(), 0.05),
    ({"name": "lamb", "weight_decay": 0.1, "max_trust": 0.6}, Lamb(weight_decay=0.1, max_trust=0.6), 0.1),
    ({"name": "muon", "weight_decay": 0.1}, Muon(weight_decay=0.1), 0.05),
    (
        {"name": "muon", "nesterov": False, "ns_steps": 3, "scale": "match-rms", "adamw_lr_factor": 0.5,
         "groups": [{"match": "up.*", "lr_factor": 0.25}]},
        Muon(nesterov=False, ns_steps=3, scale="match-rms", adamw_lr_factor=0.5, factors={"up.weight": 0.25}),
        0.05,
    ),
]

if __name__ == "__main__":
    document = {
        "generator": "trajectories.py",
        "numpy": np.__version__,
        "params": {
            name: {"shape": SHAPES[name], "start": START[name].ravel().tolist(), "a": A[name].ravel().tolist(), "c": C[name].ravel().tolist()}
            for name in SHAPES
        },
        "cases": [
            {"config": config, "lr": [lr_at(step, base) for step in range(STEPS)], "trajectory": run(optimizer, base)}
            for config, optimizer, base in CASES
        ],
    }
    with open("trajectories.json", "w") as file:
        json.dump(document, file)
        file.write("\n")
