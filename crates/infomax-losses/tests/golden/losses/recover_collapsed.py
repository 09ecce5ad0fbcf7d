"""The inputs of the case `c_n8_d4_collapsed`, whose record holds values and gradients only.

Both views are one batch of 8 rows whose first feature is constant (the record says so: its alignment is 0 and
VICReg's gradient of that feature is 0). The gradients of VICReg and of uniformity determine it: this script solves
for it, rounds to f32, as all inputs of these files are, and then holds it against records that it did not use.

    python recover_collapsed.py     # needs numpy, scipy, torch; writes c_n8_d4_collapsed.z1.npy and .z2.npy
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import least_squares

HERE = Path(__file__).parent
CASE = "c_n8_d4_collapsed"
N, D = 8, 4
torch.set_default_dtype(torch.float64)
RECORD = json.loads((HERE / "losses.json").read_text())[CASE]


def gradient_file(name):
    return torch.tensor(np.load(HERE / f"{CASE}.{name}.grad_z1.npy"))


def vicreg_parts(z):
    """Hinge on the deviations and covariance of one view, without weights."""
    x = z - z.mean(0)
    hinge = torch.relu(1 - torch.sqrt(x.var(0) + 1e-4)).mean()
    c = x.T @ x / (N - 1)
    return hinge, (c - torch.diag(torch.diag(c))).pow(2).sum() / D


def uniformity(z):
    z = torch.nn.functional.normalize(z, dim=1)
    return torch.pdist(z).pow(2).mul(-2).exp().mean().log()


def nt_xent(a, b, temperature):
    z = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    s = (z @ z.T / temperature).masked_fill(torch.eye(2 * N, dtype=bool), -torch.inf)
    return torch.nn.functional.cross_entropy(s, (torch.arange(2 * N) + N) % (2 * N))


def gradient(f, z):
    z = z.clone().requires_grad_(True)
    value = f(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


def residuals(z, vicreg_only):
    """Differences to the record: of VICReg alone, which does not see the means, or of uniformity too."""
    hinge, covariance = vicreg_parts(z)
    _, g = gradient(lambda z: 25 / 2 * vicreg_parts(z)[0] + vicreg_parts(z)[1], z)
    parts = [
        (g - VICREG)[:, 1:].reshape(-1),
        torch.stack([hinge - RECORD["vicreg_official"]["std"], covariance - RECORD["vicreg_official"]["cov"] / 2]),
    ]
    if vicreg_only:
        parts.append(z.mean(0)[1:])
    else:
        value, g = gradient(uniformity, z)
        parts += [(g - UNIFORMITY).reshape(-1), value.reshape(1) - RECORD["uniform_wang_isola_t2(z1)"]["value"]]
    return torch.cat(parts).numpy()


def batch(v):
    """Three free features, and the constant one."""
    z = torch.empty(N, D)
    z[:, 0] = v[-1]
    z[:, 1:] = torch.tensor(v[:-1].reshape(N, D - 1))
    return z


def solve():
    rng = np.random.default_rng(1)
    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 400}
    while True:
        start = rng.normal(size=N * (D - 1)) * 1.2
        centered = least_squares(lambda v: residuals(batch(np.append(v, 0.0)), True), start, max_nfev=300)
        if centered.cost > 1e-14:
            continue
        for _ in range(40):
            start = (centered.x.reshape(N, D - 1) + rng.normal(size=D - 1) / 2).ravel()
            found = least_squares(lambda v: residuals(batch(v), False), np.append(start, rng.normal()), **tight)
            if found.cost < 1e-24:
                return batch(found.x).numpy()


VICREG = gradient_file("vicreg_official")
UNIFORMITY = gradient_file("uniform_wang_isola_t2_z1_")
z = solve()
rounded = z.astype(np.float32)
print(f"largest distance to f32 values: {np.abs(z - rounded).max():.1e}")
z = torch.tensor(rounded.astype(np.float64))
for t in (0.5, 0.1):
    value, g = gradient(lambda first: nt_xent(first, z, t), z)
    error = (g - gradient_file(f"ntxent_lightly_t{t}")).abs().max()
    assert error < 1e-12 and abs(value - RECORD[f"ntxent_lightly_t{t}"]["value"]) < 1e-12, (t, value, error)
    print(f"NT-Xent at {t}, not used to solve: gradient within {error:.1e}")
for view in ("z1", "z2"):
    np.save(HERE / f"{CASE}.{view}.npy", rounded)
