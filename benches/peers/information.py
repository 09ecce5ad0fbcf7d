"""Times and errors of KSG in scikit-learn, NPEET and infomeasure, on the arrays of our example.

    python benches/peers/information.py [--repeats N]

The same cases and lines as `cargo run --release -p infomax-eval --example information`: k = 3, pairs of normal columns
of the correlation 0.6, drawn from the same splitmix64 numbers, so that the arrays are equal. One thread each. NPEET is
not on the registry: put a checkout of github.com/gregversteeg/NPEET (commit 8b0d948) on PYTHONPATH; a package that
cannot be imported is left out.
"""

import argparse
import time

import numpy as np
from scipy.special import ndtri

CASES = [(4000, 1), (4000, 3), (2000, 8)]


def normals(n, d, seed):
    """Normal quantiles of splitmix64 numbers, row by row."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(n * d, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ndtri(((z >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53).reshape(n, d)


def pair(n, d):
    x, e = normals(n, d, 1), normals(n, d, 2)
    return x, 0.6 * x + 0.8 * e


def scikit(x, y):
    from sklearn.feature_selection import mutual_info_regression

    if x.shape[1] > 1:
        return None
    return mutual_info_regression(x, y[:, 0], n_neighbors=3, random_state=0, n_jobs=1)[0]


def npeet(x, y):
    from npeet import entropy_estimators

    return entropy_estimators.mi(x, y, k=3, base=np.e)


def infomeasure(x, y):
    import infomeasure as im

    return im.mutual_information(x, y, approach="ksg", k=3, base="e")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for n, d in CASES:
        x, y = pair(n, d)
        truth = -0.5 * d * np.log(1 - 0.36)
        best = None
        for name, call in (("scikit-learn", scikit), ("NPEET", npeet), ("infomeasure", infomeasure)):
            try:
                times = []
                for _ in range(repeats):
                    start = time.perf_counter()
                    value = call(x, y)
                    times.append(time.perf_counter() - start)
            except ImportError as error:
                print(f"# {name}: {error}")
                continue
            if value is None:
                continue
            print(f"# {name} {n} x {d}+{d}: {1e3 * min(times):.1f} ms, {float(value):.4f} of {truth:.4f} nats")
            if name == "NPEET":
                best = min(times)
        if best is not None:
            print(f"ksg1 n={n} {d}+{d}: {1e3 * best:.2f} ms")


if __name__ == "__main__":
    main()
