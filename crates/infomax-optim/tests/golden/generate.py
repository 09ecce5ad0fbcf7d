"""Writes optimizers.json: trajectories of PyTorch's optimizers, in float64.

Run with `python generate.py` in this folder (PyTorch 2.x). The problem is
    loss(w, b, s) = 1/2 sum_i a_i (w_i - c_i)^2 + 1/4 sum_i w_i^4 + 1/2 sum_j (b_j - 0.3)^2 + sum_k cos(s_k)
with the numbers below, so any framework can repeat it. `w` is a weight, `b` a bias, `s` a normalization.
SGD and AdamW are PyTorch's own; LARS is written out here from its published formulas.
"""

import json
import math

import torch

torch.set_default_dtype(torch.float64)
W0 = [[0.5, -1.2, 0.8], [1.5, 0.1, -0.4]]
A = [[1.0, 0.5, 2.0], [0.25, 3.0, 1.5]]
C = [[0.2, -0.7, 0.1], [0.9, -0.3, 0.4]]
B0, S0 = [0.7, -0.2, 0.05], [1.0, 2.0]
STEPS = 8


def lr_at(step):
    return 0.05 * (1 + math.cos(math.pi * step / STEPS)) / 2 + 0.01


def loss_of(w, b, s):
    a, c = torch.tensor(A), torch.tensor(C)
    quadratic = 0.5 * (a * (w - c) ** 2).sum() + 0.25 * (w**4).sum()
    return quadratic + 0.5 * ((b - 0.3) ** 2).sum() + torch.cos(s).sum()


class Lars:
    def __init__(self, params, wd, momentum, eta, form, clip):
        self.params, self.wd, self.momentum, self.eta = params, wd, momentum, eta
        self.form, self.clip = form, clip
        self.buffers = [torch.zeros_like(p) for p in params]

    def step(self, lr):
        for p, m in zip(self.params, self.buffers):
            d = p.grad
            if p.ndim > 1:
                if self.form == "official":
                    d = d + self.wd * p
                    q = self.eta * p.norm() / d.norm()
                else:
                    q = self.eta * p.norm() / (d.norm() + self.wd * p.norm() + 1e-8)
                    d = d + self.wd * p
                if self.clip:
                    q = min(q / lr, 1.0)
                d = q * d
            m.mul_(self.momentum).add_(d)
            p.data.sub_(lr * m)


def run(make):
    w, b, s = (torch.tensor(x, requires_grad=True) for x in (W0, B0, S0))
    optimizer = make(w, b, s)
    trajectory = []
    for step in range(STEPS):
        for p in (w, b, s):
            p.grad = None
        loss_of(w, b, s).backward()
        if isinstance(optimizer, Lars):
            optimizer.step(lr_at(step))
        else:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step)
            optimizer.step()
        trajectory.append({"w": w.tolist(), "b": b.tolist(), "s": s.tolist()})
    return trajectory


def groups(w, b, s, wd):
    return [{"params": [w], "weight_decay": wd}, {"params": [b, s], "weight_decay": 0.0}]


def sgd(wd, excluded=True, **kw):
    return lambda w, b, s: torch.optim.SGD(
        groups(w, b, s, wd) if excluded else [w, b, s], lr=1.0, weight_decay=wd, **kw
    )


def adamw(wd, excluded=True, **kw):
    return lambda w, b, s: torch.optim.AdamW(
        groups(w, b, s, wd) if excluded else [w, b, s], lr=1.0, weight_decay=wd, foreach=False, **kw
    )


def lars(wd, momentum, eta, form, clip):
    return lambda w, b, s: Lars([w, b, s], wd, momentum, eta, form, clip)


CASES = [
    ({"name": "sgd", "momentum": 0.0}, sgd(0.0)),
    ({"name": "sgd", "momentum": 0.0, "weight_decay": 0.1}, sgd(0.1)),
    ({"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, sgd(0.1, momentum=0.9)),
    ({"name": "sgd", "momentum": 0.8, "weight_decay": 0.1, "nesterov": True}, sgd(0.1, momentum=0.8, nesterov=True)),
    ({"name": "sgd", "momentum": 0.9, "weight_decay": 0.1, "exclude_bias_and_norm": False}, sgd(0.1, False, momentum=0.9)),
    ({"name": "adamw"}, adamw(0.01)),
    ({"name": "adamw", "weight_decay": 0.3, "exclude_bias_and_norm": False}, adamw(0.3, False)),
    ({"name": "adamw", "beta1": 0.3, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.0}, adamw(0.0, betas=(0.3, 0.95), eps=1e-3)),
    ({"name": "lars"}, lars(1e-6, 0.9, 0.001, "official", False)),
    ({"name": "lars", "weight_decay": 0.05, "eta": 0.2}, lars(0.05, 0.9, 0.2, "official", False)),
    ({"name": "lars", "weight_decay": 0.05, "eta": 0.02, "form": "solo-learn", "clip_lr": True}, lars(0.05, 0.9, 0.02, "solo-learn", True)),
    ({"name": "lars", "weight_decay": 0.05, "eta": 0.2, "form": "solo-learn", "momentum": 0.0}, lars(0.05, 0.0, 0.2, "solo-learn", False)),
]

if __name__ == "__main__":
    document = {
        "generator": "generate.py",
        "torch": torch.__version__,
        "start": {"w": W0, "a": A, "c": C, "b": B0, "s": S0},
        "lr": [lr_at(step) for step in range(STEPS)],
        "cases": [{"config": config, "trajectory": run(make)} for config, make in CASES],
    }
    with open("optimizers.json", "w") as file:
        json.dump(document, file)
        file.write("\n")
