"""Times forward and backward of the objectives' published formulas in PyTorch, one line of JSON each.

    python benches/peers/losses.py [REPEATS]

The same cases as `cargo run --release -p infomax-losses --example timing`; f32, two threads.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(2)


def off_diagonal(m):
    return m - torch.diag(torch.diagonal(m))


def vicreg(a, b):
    n, d = a.shape
    loss = 25 * F.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        loss = loss + 12.5 * F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
        loss = loss + off_diagonal(z.T @ z / (n - 1)).pow(2).sum() / d
    return loss


def barlow(a, b):
    n, d = a.shape
    standard = [(z - z.mean(0)) / torch.sqrt(z.var(0, unbiased=False) + 1e-5) for z in (a, b)]
    c = standard[0].T @ standard[1] / n
    return (torch.diagonal(c) - 1).pow(2).sum() + 0.0051 * off_diagonal(c).pow(2).sum()


def logdet(a, b):
    n, d = a.shape
    loss = 25 * F.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        loss = loss - 0.25 * torch.logdet(torch.eye(d) + z.T @ z / n)
    return loss


def frossl(a, b):
    unit = [F.normalize(z, dim=0) for z in (a, b)]
    mean, loss = (unit[0] + unit[1]) / 2, 0
    for z in unit:
        c = z.T @ z
        loss = loss + 2 * torch.log(torch.linalg.norm(c / torch.trace(c)))
        loss = loss + 2 * z.shape[1] * F.mse_loss(z, mean)
    return loss


def nt_xent(a, b, t=0.5):
    z = F.normalize(torch.cat([a, b]), dim=1)
    s = z @ z.T / t
    s.fill_diagonal_(float("-inf"))
    n = len(a)
    return F.cross_entropy(s, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))


def lejepa(a, b, slices=1024):
    centre, loss = (a + b) / 2, 0
    t = torch.linspace(0, 3, 17)
    phi = torch.exp(-t * t / 2)
    w = torch.full((17,), 2 * 3 / 16)
    w[[0, -1]] = 3 / 16
    for z in (a, b):
        p = torch.randn(z.shape[1], slices)
        y = (z @ (p / p.norm(dim=0)))[:, :, None] * t
        error = (y.cos().mean(0) - phi) ** 2 + y.sin().mean(0) ** 2
        loss = loss + 0.98 * (z - centre).pow(2).mean() / 2 + 0.01 * len(z) * (error @ (w * phi)).mean()
    return loss


CASES = [
    ("vicreg", vicreg, 256, 512),
    ("vicreg", vicreg, 256, 2048),
    ("vicreg", vicreg, 256, 8192),
    ("vicreg", vicreg, 2048, 8192),
    ("vicreg", vicreg, 4096, 256),
    ("barlow-twins", barlow, 256, 4096),
    ("vicreg-logdet", logdet, 256, 4096),
    ("frossl", frossl, 256, 4096),
    ("simclr", nt_xent, 4096, 256),
    ("lejepa", lejepa, 512, 512),
]

repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
for name, loss, n, d in CASES:
    torch.manual_seed(0)
    a, b = (torch.randn(n, d, requires_grad=True) for _ in range(2))
    times = []
    for _ in range(repeats):
        a.grad = b.grad = None
        start = time.perf_counter()
        loss(a, b).backward()
        times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    record = {"objective": name, "n": n, "d": d, "min_ms": round(times[0], 2), "median_ms": round(times[len(times) // 2], 2)}
    print(json.dumps(record), flush=True)
