"""Writes the golden values of this folder: `python make.py`, from anywhere.

Needs torch, numpy, scipy and lightly (the versions are written to methods.json). Losses of lightly are executed;
the rest is typed from the formulas in torch f64, whose autograd gives the gradients. Inputs are those of ../losses.
"""

import json
import math
import pathlib

import lightly
import numpy as np
import scipy
import scipy.stats
import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, FroSSLLoss, NTXentLoss, VICRegLoss
from lightly.loss import DCLLoss, DCLWLoss, MMCRLoss, SwaVLoss, TiCoLoss, VICRegLLoss, WMSELoss

HERE = pathlib.Path(__file__).parent
CASE = "a_n32_d16"
torch.set_default_dtype(torch.float64)


def load(name):
    return torch.tensor(np.load(HERE.parent / "losses" / name).astype(np.float64), requires_grad=True)


records = {}


def record(key, value, **inputs):
    entry = {"value": float(value)}
    grads = torch.autograd.grad(value, list(inputs.values()), allow_unused=True, retain_graph=True)
    for name, grad in zip(inputs, grads):
        if grad is not None:
            file = f"{CASE}.{key}.grad_{name}.npy"
            np.save(HERE / file, np.ascontiguousarray(grad.numpy()))
            entry[f"grad_{name}"] = f"methods/{file}"
    records[key] = entry


def inputs():
    return load(f"{CASE}.z1.npy"), load(f"{CASE}.z2.npy")


z1, z2 = inputs()
record("dcl_lightly", DCLLoss(temperature=0.1)(z1, z2), z1=z1, z2=z2)
z1, z2 = inputs()
# The package weights with unit rows, which it makes itself before it calls the weight function.
record("dclw_lightly", DCLWLoss(temperature=0.1, sigma=0.5)(z1, z2), z1=z1, z2=z2)

z1, z2 = inputs()
views = torch.stack([z1, z2], dim=1)
record("mmcr_lightly", MMCRLoss(lmda=5e-3)(views, views), z1=z1, z2=z2)
z1, z2 = inputs()
unit = torch.stack([F.normalize(z1), F.normalize(z2)], dim=1)
c = unit.mean(1)
norm = lambda x: torch.linalg.matrix_norm(x, ord="nuc")
record("mmcr_unit_rows", -norm(c) + 5e-3 * torch.stack([norm(x) for x in unit]).mean(), z1=z1, z2=z2)

z1, z2 = inputs()
whiten = WMSELoss(embedding_dim=16, w_size=32, num_samples=2)
# One group that is the whole batch: its order does not matter.
record("wmse_lightly", whiten(torch.cat([z1, z2])), z1=z1, z2=z2)

z1, z2 = inputs()
tico = TiCoLoss(beta=0.9, rho=8.0)
record("tico_lightly_first_step", tico(z1, z2), z1=z1, z2=z2)

z1, z2 = inputs()
correlation = lambda z: F.normalize(z - z.mean(0), p=2, dim=0)


def vibcreg(z):
    r = correlation(z).T @ correlation(z)
    off = (r - torch.diag(torch.diag(r))).pow(2).mean()
    return torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean(), off


parts = [vibcreg(z) for z in (z1, z2)]
total = 25 * F.mse_loss(z1, z2) + 25 * (parts[0][0] + parts[1][0]) + 200 * (parts[0][1] + parts[1][1])
record("vibcreg_solo_learn", total, z1=z1, z2=z2)

rng = np.random.default_rng(20231)
prototypes = F.normalize(torch.tensor(rng.standard_normal((7, 16))), dim=1)
np.save(HERE / "prototypes.npy", prototypes.numpy())
z1, z2 = inputs()
scores = [F.normalize(z1) @ prototypes.T, F.normalize(z2) @ prototypes.T]
record("swav_lightly", SwaVLoss()(scores, []).sum(), z1=z1, z2=z2)

# Local maps (batch 6, 3 x 3 patches, dimension 5) with places, two global views; a third small one of 2 x 2.
maps, places = [], []
for v, side in enumerate([3, 3, 2]):
    maps.append(torch.tensor(rng.standard_normal((6, side, side, 5)), requires_grad=True))
    places.append(torch.tensor(rng.uniform(0, 1, (6, side, side, 2))))
    np.save(HERE / f"map{v}.npy", maps[v].detach().numpy().reshape(6, side * side, 5))
    np.save(HERE / f"places{v}.npy", places[v].numpy().reshape(6, side * side, 2))
pooled = [torch.tensor(rng.standard_normal((6, 5)), requires_grad=True) for _ in range(3)]
for v, p in enumerate(pooled):
    np.save(HERE / f"pooled{v}.npy", p.detach().numpy())
loss = VICRegLLoss(num_matches=(4, 2))
for key, local in [("vicregl_lightly_2", []), ("vicregl_lightly_3", [2])]:
    extra = {}
    if local:
        extra = {
            "local_view_features": [(pooled[v], maps[v]) for v in local],
            "local_view_grids": [places[v] for v in local],
        }
    value = loss([(pooled[v], maps[v]) for v in (0, 1)], [places[v] for v in (0, 1)], **extra)
    names = {f"map{v}": maps[v] for v in [0, 1] + local} | {f"pooled{v}": pooled[v] for v in [0, 1] + local}
    record(key, value.sum(), **names)

# A batch whose rows are nearly equal.
near = [0.6 + 1e-3 * rng.standard_normal((8, 4)) for _ in range(2)]
for v, z in enumerate(near):
    np.save(HERE / f"near{v + 1}.npy", z)
for key, loss in [
    ("near_vicreg_lightly", VICRegLoss()),
    ("near_barlow_lightly", BarlowTwinsLoss()),
    ("near_ntxent_lightly", NTXentLoss(temperature=0.5)),
    ("near_frossl_lightly", lambda a, b: FroSSLLoss()([a, b])),
]:
    a, b = (torch.tensor(z, requires_grad=True) for z in near)
    record(key, loss(a, b), z1=a, z2=b)

# Sliced tests of normality on one column each.
y = torch.tensor(rng.standard_normal(40) * 1.3 + 0.2, requires_grad=True)
np.save(HERE / "y.npy", y.detach().numpy())
n = len(y)
ordered, ranks = torch.sort(y)[0], torch.arange(1, n + 1, dtype=torch.float64)
phi = torch.special.ndtr(ordered)
log_phi = torch.special.log_ndtr
record("cramer_von_mises", 1 / (12 * n) + ((phi - (2 * ranks - 1) / (2 * n)) ** 2).sum(), y=y)
assert abs(scipy.stats.cramervonmises(y.detach().numpy(), "norm").statistic - records["cramer_von_mises"]["value"]) < 1e-12
record("anderson_darling", -n - ((2 * ranks - 1) * (log_phi(ordered) + log_phi(-ordered.flip(0)))).sum() / n, y=y)
he = [y, y**2 - 1, y**3 - 3 * y, y**4 - 6 * y**2 + 3]
record("moments", sum(n * h.mean() ** 2 / math.factorial(k + 1) for k, h in enumerate(he)), y=y)
d2 = (y[:, None] - y[None, :]) ** 2
record(
    "epps_pulley",
    n
    * (
        math.sqrt(2 * math.pi) * torch.exp(-d2 / 2).mean()
        - 2 * math.sqrt(math.pi) * torch.exp(-(y**2) / 4).mean()
        + math.sqrt(2 * math.pi / 3)
    ),
    y=y,
)

# Mixtures with full covariances.
m = torch.tensor(rng.standard_normal((9, 3)) * 1.5, requires_grad=True)
a = torch.tensor(rng.standard_normal((9, 3, 3)) * 0.6)
s = (a @ a.transpose(1, 2) + 0.3 * torch.eye(3)).detach().requires_grad_(True)
np.save(HERE / "means.npy", m.detach().numpy())
np.save(HERE / "covariances.npy", s.detach().numpy())


def mixture(kind, alpha=0.5):
    s_i, s_j = s[:, None], s[None, :]
    dm = (m[:, None] - m[None, :])[..., None]
    quad = lambda inv: (dm.transpose(-1, -2) @ inv @ dm).squeeze(-1).squeeze(-1)
    logdet = torch.logdet
    own = 1.5 * math.log(2 * math.pi * math.e) + 0.5 * logdet(s).mean()
    if kind == "kl":
        inv = torch.linalg.inv(s_j)
        trace = torch.einsum("abij,abji->ab", inv.expand(9, 9, 3, 3), s_i.expand(9, 9, 3, 3))
        div = 0.5 * (trace - 3 + quad(inv) + logdet(s_j) - logdet(s_i))
    elif kind == "chernoff":
        mix = (1 - alpha) * s_i + alpha * s_j
        div = alpha * (1 - alpha) / 2 * quad(torch.linalg.inv(mix))
        div = div + 0.5 * (logdet(mix) - (1 - alpha) * logdet(s_i) - alpha * logdet(s_j))
    else:
        both = s_i + s_j
        div = 0.5 * (3 * math.log(2 * math.pi) + logdet(both) + quad(torch.linalg.inv(both)))
        own = 0.0
    return own - (torch.logsumexp(-div, dim=1) - math.log(9)).mean()


for kind, alpha in [("kl", 0.5), ("chernoff", 0.3), ("chernoff", 0.5), ("elk", 0.5)]:
    record(f"mixture_{kind}_{alpha}", mixture(kind, alpha), m=m, s=s)
# Chernoff's coefficient of N(0, 1) and N(1, 4) at 0.3, by quadrature.
from scipy.integrate import quad as integrate

p = lambda x: scipy.stats.norm.pdf(x, 0, 1) ** 0.3 * scipy.stats.norm.pdf(x, 1, 2) ** 0.7
records["chernoff_quadrature_0.3"] = {"value": -math.log(integrate(p, -30, 30)[0])}

out = {
    "versions": {"torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__, "lightly": lightly.__version__},
    CASE: records,
}
(HERE / "methods.json").write_text(json.dumps(out, indent=1) + "\n")
