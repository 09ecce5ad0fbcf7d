"""Truths of the mixtures of the self-test by Monte Carlo: mean of ln p(x,y) - ln p(x) - ln p(y) over N draws, with its standard error.

    python mixtures.py [N]

Components have independent columns but for pairs (x_j, y_j) of a given correlation, as in `selftest/mixtures.rs`.
"""

import sys

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

N = int(float(sys.argv[1])) if len(sys.argv) > 1 else 4_000_000
CHUNK = 100_000


def part(weight, mean_x, mean_y, var_x, var_y, rho=()):
    mean = np.concatenate([mean_x, mean_y]).astype(float)
    cov = np.diag(np.concatenate([var_x, var_y]).astype(float))
    dx = len(mean_x)
    for j, r in enumerate(rho):
        cov[j, dx + j] = cov[dx + j, j] = r * np.sqrt(cov[j, j] * cov[dx + j, dx + j])
    return weight, mean, cov, dx


def information(parts, seed=0):
    rng = np.random.default_rng(seed)
    weights = np.array([p[0] for p in parts])
    dx = parts[0][3]
    total = square = 0.0
    for _ in range(0, N, CHUNK):
        which = rng.choice(len(parts), size=CHUNK, p=weights / weights.sum())
        rows = np.empty((CHUNK, len(parts[0][1])))
        for k, (_, mean, cov, _) in enumerate(parts):
            rows[which == k] = rng.multivariate_normal(mean, cov, size=int((which == k).sum()), method="cholesky")
        logs = []
        for at in (slice(None), slice(0, dx), slice(dx, None)):
            logs.append(
                logsumexp(
                    [np.log(w) + multivariate_normal(m[at], c[at, at]).logpdf(rows[:, at]) for w, m, c, _ in parts], axis=0
                )
            )
        pointwise = logs[0] - logs[1] - logs[2]
        total += pointwise.sum()
        square += (pointwise**2).sum()
    mean = total / N
    return mean, np.sqrt((square / N - mean**2) / N)


def main():
    tasks = {
        "1v1-X-0.9": [part(0.5, [0], [0], [1], [1], [r]) for r in (-0.9, 0.9)],
        "1v1-AI": [
            part(1 / 6, [a], [b], [c], [d], [r])
            for a, b, c, d, r in (
                (1, 0, 0.01, 0.2, 0),
                (1, 1, 0.05, 0.001, 0),
                (1, -1, 0.05, 0.001, 0),
                (-0.8, -0.2, 0.03, 0.001, 0),
                (-1.2, 0, 0.04, 0.2, 0.95),
                (-0.4, 0, 0.04, 0.2, -0.95),
            )
        ],
        "2v1-waves": [part(1 / 12, [1.5 * i, 0], [1.5 * (i % 4)], [0.1, 1], [0.1]) for i in range(12)],
        "2v1-galaxy": [part(0.5, [m, m], [m], [1, 1], [1]) for m in (-1.5, 1.5)],
    }
    for d, n in ((3, 5), (5, 5), (3, 10), (5, 10), (25, 5)):
        tasks[f"{d}v1-concentric-{n}"] = [part(1 / n, [0] * d, [i], [i * i] * d, [1e-4]) for i in range(1, n + 1)]
    for share in (0.2, 0.5):
        # The columns beyond the two pairs are noise: 2 + 2 columns tell all.
        tasks[f"inliers-{share}"] = [part(1 - share, [0] * 2, [0] * 2, [1] * 2, [1] * 2, [0.8, 0.8]), part(share, [0] * 2, [0] * 2, [1] * 2, [1] * 2)]
    for name, parts in tasks.items():
        mean, error = information(parts)
        print(f"{name}: {mean:.5f} +- {error:.5f}", flush=True)


if __name__ == "__main__":
    main()
