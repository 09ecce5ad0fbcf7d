"""Writes ops.json: values and gradients of the operations by PyTorch, in float64.

Run: python make.py  (torch 2.15.0, on the CPU).
Inputs follow a formula, so that none are stored: element i of input number p of a case is
sin(0.37 i + 1.3 p + 0.2); the gradients are those of the sum of the output times such a wave with p = 9.
Numbers are written with 15 digits.
"""
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

OUT = {}


def wave(shape, p):
    n = int(np.prod(shape))
    return torch.from_numpy(np.sin(0.37 * np.arange(n) + 1.3 * p + 0.2).reshape(shape))


def numbers(t):
    return [float(f"{x:.15g}") for x in t.detach().flatten().tolist()]


def case(name, shapes, f):
    xs = [wave(s, p).requires_grad_() for p, s in enumerate(shapes)]
    ys = f(*xs)
    (ys * wave(ys.shape, 9)).sum().backward()
    OUT[name] = {
        "shape": list(ys.shape),
        "value": numbers(ys),
        "grads": [numbers(x.grad if x.grad is not None else torch.zeros_like(x)) for x in xs],
    }


for stride, padding, dilation, groups in [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (3, 0, 1, 4), (2, 3, 1, 4)]:
    case(
        f"conv2d {stride} {padding} {dilation} {groups}",
        [(2, 4, 6, 5), (8 if groups == 2 else 4, 4 // groups, 3, 2), (8 if groups == 2 else 4,)],
        lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups),
    )
case("conv2d kernel larger than the image", [(1, 2, 1, 1), (3, 2, 5, 3), (3,)], lambda x, w, b: F.conv2d(x, w, b, 1, 2))

mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
case("batch_norm train", [(4, 3, 3, 2), (3,), (3,)], lambda x, w, b: F.batch_norm(x, mean, var, w, b, True, 0.1, 1e-3))
OUT["running"] = {"mean": numbers(mean), "var": numbers(var)}
case("batch_norm eval", [(4, 3, 3, 2), (3,), (3,)], lambda x, w, b: F.batch_norm(x, wave((3,), 5), wave((3,), 6) ** 2, w, b, False, 0.1, 1e-3))
case("layer_norm", [(4, 7), (7,), (7,)], lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-3))
case("rms_norm", [(4, 7), (7,)], lambda x, w: F.rms_norm(x, (7,), w, 1e-3))
case("group_norm", [(2, 6, 3, 2), (6,), (6,)], lambda x, w, b: F.group_norm(x, 3, w, b, 1e-3))
case("softmax", [(4, 7)], lambda x: F.softmax(3 * x, -1))
case("log_softmax", [(4, 7)], lambda x: F.log_softmax(3 * x, -1))
for causal in [False, True]:
    name = "attention causal" if causal else "attention"
    case(name, [(2, 2, 5, 3)] * 3, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
for name, f in [("gelu", F.gelu), ("silu", F.silu), ("relu", F.relu), ("sigmoid", torch.sigmoid), ("tanh", torch.tanh),
                ("erf", torch.erf), ("exp", torch.exp)]:
    case(name, [(5, 9)], lambda x: f(4 * x))
for kernel, stride, padding in [(3, 2, 1), (2, 1, 0), (2, 3, 1)]:
    case(f"max_pool2d {kernel} {stride} {padding}", [(2, 2, 7, 6)], lambda x: F.max_pool2d(x, kernel, stride, padding))
    case(f"avg_pool2d {kernel} {stride} {padding}", [(2, 2, 7, 6)], lambda x: F.avg_pool2d(x, kernel, stride, padding))
case("global_avg_pool", [(2, 3, 4, 5)], lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1))
case("linear", [(2, 3, 5), (4, 5), (4,)], F.linear)
labels = torch.tensor([2, 0, 5, 1])
for smoothing in [0.0, 0.2]:
    case(f"cross_entropy {smoothing}", [(4, 6)], lambda x: F.cross_entropy(3 * x, labels, label_smoothing=smoothing))
case("cross_entropy soft", [(4, 6), (4, 6)], lambda x, t: F.cross_entropy(3 * x, t))
case("l2_normalize", [(4, 7)], lambda x: F.normalize(x, dim=-1, eps=1e-6))


def positive(x):
    return x @ x.T / x.shape[1] + 0.5 * torch.eye(len(x), dtype=x.dtype)


case("log_det", [(4, 7)], lambda x: torch.logdet(positive(x)))
case("solve", [(4, 7), (4, 3)], lambda x, b: torch.linalg.solve(positive(x), b))
case("eigvalsh", [(4, 7)], lambda x: torch.linalg.eigvalsh(positive(x)))
# The waves alone have rank 2.
case("svdvals", [(4, 6)], lambda x: torch.linalg.svdvals(x**3))

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "ops.json"), "w") as file:
    file.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in OUT.items()) + "\n}\n")
