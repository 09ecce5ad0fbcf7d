"""Writes information.json: reference values of estimators of information, on inputs of this folder and of ../mi.

Brute force in NumPy (f64) with SciPy's digamma; where a package holds the same estimator, it is run, too, and the
difference is asserted: NPEET (`cmi`), scikit-learn (`LedoitWolf`), SciPy (`spearmanr` is not needed).
"""

import json
import os
import platform
from importlib.metadata import version

import numpy as np
import scipy
from scipy.special import digamma, gammaln, ndtri
from scipy.stats import rankdata

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    x = np.load(os.path.join(HERE, name + ".npy")).astype(np.float64)
    return x[:, None] if x.ndim == 1 else x


def far(x):
    return np.abs(x[:, None, :] - x[None, :, :]).max(-1)


def frenzel_pompe(x, y, z, k):
    n = len(x)
    dx, dy, dz = far(x), far(y), far(z)
    joint = np.maximum(np.maximum(dx, dy), dz)
    np.fill_diagonal(joint, np.inf)
    eps = np.sort(joint, axis=1)[:, k - 1 : k]
    count = lambda d: digamma((d < eps).sum(1))  # the row itself is the + 1
    return float(digamma(k) + np.mean(count(dz) - count(np.maximum(dx, dz)) - count(np.maximum(dy, dz))))


def gao(x, y, k):
    n = len(x)
    dx, dy = far(x), far(y)
    joint = np.maximum(dx, dy)
    other = joint.copy()
    np.fill_diagonal(other, np.inf)
    rho = np.sort(other, axis=1)[:, k - 1]
    total = 0.0
    for i in range(n):
        if rho[i] == 0:
            kp, nx, ny = (joint[i] == 0).sum(), (dx[i] == 0).sum(), (dy[i] == 0).sum()
        else:
            kp, nx, ny = k, (dx[i] < rho[i]).sum(), (dy[i] < rho[i]).sum()
        total += digamma(kp) + np.log(n) - digamma(nx) - digamma(ny)
    return float(total / n)


def scores(x):
    return ndtri((np.apply_along_axis(rankdata, 0, x) - 0.5) / len(x))


def half_log_det(x):
    """1/2 ln det of the covariance, without its bias for normal rows."""
    n, d = x.shape
    bias = sum(digamma((n - j) / 2) for j in range(1, d + 1)) + d * np.log(2 / (n - 1))
    return 0.5 * np.linalg.slogdet(np.atleast_2d(np.cov(x.T)))[1] - 0.5 * bias


def normal(x, y):
    return float(half_log_det(x) + half_log_det(y) - half_log_det(np.hstack([x, y])))


def normal_conditional(x, y, z):
    part = lambda *v: half_log_det(np.hstack(v))
    return float(part(x, z) + part(y, z) - part(z) - part(x, y, z))


def shrunk(x, y):
    from sklearn.covariance import LedoitWolf

    def part(v):
        v = (v - v.mean(0)) / v.std(0, ddof=1)
        return 0.5 * np.linalg.slogdet(LedoitWolf().fit(v).covariance_)[1]

    return float(part(x) + part(y) - part(np.hstack([x, y])))


def weights(k, d):
    conditions = d // 4
    if conditions == 0:
        return np.eye(k)[k - 1]
    j = np.arange(1, k + 1)
    g = np.vstack([np.exp(gammaln(j + 2 * l / d) - gammaln(j)) for l in range(conditions + 1)])
    return np.linalg.lstsq(g, np.eye(conditions + 1)[0], rcond=None)[0]


def weighted(x, k):
    n, d = x.shape
    r = np.sqrt(((x[:, None, :] - x[None, :, :]) ** 2).sum(-1))
    np.fill_diagonal(r, np.inf)
    r = np.sort(r, axis=1)[:, :k]
    ball = d / 2 * np.log(np.pi) - gammaln(d / 2 + 1)
    return float((weights(k, d) * (np.log(n - 1) - digamma(np.arange(1, k + 1)) + ball + d * np.log(r).mean(0))).sum())


dense = load("../mi/multinormal-dense-5-5-0.5.x"), load("../mi/multinormal-dense-5-5-0.5.y")
student = load("../mi/asinh-student-identity-2-2-2.x"), load("../mi/asinh-student-identity-2-2-2.y")
uniform = load("gao2017-discrete-uniform-m5.x"), load("gao2017-discrete-uniform-m5.y")
x, y, z = dense[0][:, :1], dense[1][:, :2], dense[0][:, 1:3]
out = {
    "conditional": {f"k{k}": frenzel_pompe(x, y, z, k) for k in (3, 5)},
    "normal_conditional": normal_conditional(x, y, z),
    "gao": {name: {f"k{k}": gao(*v, k) for k in (3, 5)} for name, v in [("uniform", uniform), ("student", student)]},
    "normal": normal(*dense),
    "copula": normal(scores(student[0]), scores(student[1])),
    "shrunk": shrunk(*dense),
    "weights": {"k8_d5": list(weights(8, 5)), "k12_d10": list(weights(12, 10))},
    "weighted": {"k8": weighted(np.hstack(dense), 8), "k3": weighted(student[0], 3)},
}
try:
    from npeet import entropy_estimators as npeet

    for k in (3, 5):
        theirs = npeet.cmi(x, y, z, k=k, base=np.e) if hasattr(npeet, "cmi") else npeet.mi(x, y, z=z, k=k, base=np.e)
        assert abs(theirs - out["conditional"][f"k{k}"]) < 1e-6, (theirs, out["conditional"])
    out["conditional"]["npeet"] = "equal within 1e-6 (it adds noise of 1e-10)"
except ImportError:
    pass
json.dump(out, open(os.path.join(HERE, "information.json"), "w"), indent=1)
versions = {p: version(p) for p in ("numpy", "scipy", "scikit-learn")}
versions["npeet"] = "github.com/gregversteeg/NPEET at commit 8b0d948542, on PYTHONPATH"
json.dump({"python": platform.python_version(), **versions}, open(os.path.join(HERE, "manifest.json"), "w"), indent=1)
