"""Times forward and backward of the objectives' published formulas in PyTorch, and the memory they take.

    python benches/peers/losses.py [--filter TEXT] [--repeats N]

The same cases and lines as `cargo run --release -p infomax-losses --example timing`; f32, two threads unless
OMP_NUM_THREADS says otherwise. SIGReg is lightly's own. The extra memory is the peak of one forward and backward
pass in a fresh process above what it held with its inputs (Linux only).
"""

import argparse
import math
import os
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


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


def coding_rate(z, _, eps=0.2):
    n, d = z.shape
    z = F.normalize(z, dim=1)
    return -0.5 * torch.logdet(torch.eye(d) + d / (n * eps) * z.T @ z)


def pairdist(z, _, s2=100.0):
    z = z - z.mean(0)
    squares = (z * z).sum(1)
    r2 = squares[:, None] + squares - 2 * z @ z.T
    return -torch.logsumexp(-r2 / (2 * s2), dim=1).mean()


def uniformity(z, _, t=2.0):
    z = F.normalize(z, dim=1)
    s = t * (2 * z @ z.T - 2)
    return torch.logsumexp(s.masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf")).flatten(), dim=0)


def koleo(z, _, eps=1e-8):
    z = F.normalize(z, dim=1, eps=eps)
    with torch.no_grad():
        s = z @ z.T
        nearest = s.fill_diagonal_(-1).argmax(1)
    return -(F.pairwise_distance(z, z[nearest], 2, eps) + eps).log().mean()


def kozachenko_leonenko(z, _, k=3):
    n, d = z.shape
    with torch.no_grad():
        nearest = torch.cdist(z, z).topk(k + 1, largest=False).indices[:, k]
    volume = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)
    constant = torch.digamma(torch.tensor(float(n))) - torch.digamma(torch.tensor(float(k))) + volume
    return constant + d * (z - z[nearest]).norm(dim=1).log().mean()


def sigreg(a, b):
    from lightly.loss import SIGReg

    loss = sigreg.__dict__.setdefault("loss", SIGReg())
    return loss(a) + loss(b)


CASES = [
    ("vicreg", vicreg, 256, 512),
    ("vicreg", vicreg, 256, 2048),
    ("vicreg", vicreg, 256, 8192),
    ("vicreg", vicreg, 2048, 8192),
    ("vicreg", vicreg, 4096, 256),
    ("barlow-twins", barlow, 256, 4096),
    ("vicreg-logdet", logdet, 256, 4096),
    ("coding-rate", coding_rate, 256, 4096),
    ("frossl", frossl, 256, 4096),
    ("nt-xent", nt_xent, 4096, 256),
    ("pairdist", pairdist, 8192, 256),
    ("uniformity", uniformity, 8192, 256),
    ("koleo", koleo, 8192, 256),
    ("kozachenko-leonenko", kozachenko_leonenko, 8192, 256),
    ("sigreg", sigreg, 512, 512),
]

MEMORY = ["vicreg n=256 d=8192", "pairdist n=8192 d=256", "nt-xent n=4096 d=256"]


def step(loss, views):
    for z in views:
        z.grad = None
    loss(*views).backward()


def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def memory(loss, n, d):
    step(loss, [torch.randn(64, 96, requires_grad=True) for _ in range(2)])
    views = [torch.randn(n, d, requires_grad=True) for _ in range(2)]
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS:")
    step(loss, views)
    return (status("VmHWM:") - before) / 1024


def median_time(loss, n, d, repeats):
    torch.manual_seed(0)
    views = [torch.randn(n, d, requires_grad=True) for _ in range(2)]
    step(loss, views)
    times, begin = [], time.perf_counter()
    while len(times) < max(repeats, 3) or (not repeats and len(times) < 200 and time.perf_counter() - begin < 2):
        start = time.perf_counter()
        step(loss, views)
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[len(times) // 2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--filter", default="")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--memory")
    args = parser.parse_args()
    for name, loss, n, d in CASES:
        label = f"{name} n={n} d={d}"
        if args.memory == label:
            print(f"{memory(loss, n, d):.1f}")
        if args.memory or args.filter not in label:
            continue
        print(f"{label}: {median_time(loss, n, d, args.repeats):.3f} ms", flush=True)
        if label in MEMORY and sys.platform == "linux":
            own = [sys.executable, os.path.abspath(__file__), "--memory", label]
            peak = subprocess.run(own, capture_output=True, text=True, check=True).stdout.strip()
            print(f"{label} extra memory: {peak} MB", flush=True)


if __name__ == "__main__":
    main()
