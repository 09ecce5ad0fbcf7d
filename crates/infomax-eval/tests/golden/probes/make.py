"""Golden values of the probes: scikit-learn on two drawn sets, whose .npy files are written beside this script.

python make.py            (numpy, scikit-learn; versions go to manifest.json)
"""

import json
import pathlib
import sys

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.neighbors import KNeighborsClassifier

HERE = pathlib.Path(__file__).parent


def draw(name, seed, train, test, dim, classes, spread):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, dim)) * np.linspace(2.0, 0.2, dim)
    parts = {}
    for part, n in [("train", train), ("test", test)]:
        y = rng.integers(0, classes, n)
        # Columns of unequal scale: the probes standardize by the training rows.
        x = ((centers[y] + spread * rng.normal(size=(n, dim))) * np.linspace(0.1, 5.0, dim)).astype("f4")
        np.save(HERE / f"{name}.{part}.x.npy", x)
        np.save(HERE / f"{name}.{part}.y.npy", y.astype("i8"))
        parts[part] = (x.astype("f8"), y)
    return parts


def standardized(train, test):
    mean, deviation = train.mean(0), train.std(0)
    return (train - mean) / deviation, (test - mean) / deviation


def logistic(x, y, t, u, l2):
    # mean cross-entropy + l2 / 2 |W|^2 is scikit-learn's C sum + 1/2 |W|^2 with C = 1 / (n l2). Of two classes scikit-learn has
    # one vector w, which is the difference of two opposite ones: |W|^2 = |w|^2 / 2.
    penalty = l2 if y.max() > 1 else 0.5 * l2
    model = LogisticRegression(C=1.0 / (len(y) * penalty), tol=1e-10, max_iter=100_000).fit(x, y)
    probabilities = model.predict_proba(t)
    return {
        "l2": l2,
        "accuracy": model.score(t, u),
        "train_accuracy": model.score(x, y),
        "cross_entropy": log_loss(u, probabilities, labels=model.classes_),
        "confusion": confusion_matrix(u, model.predict(t), labels=model.classes_).tolist(),
    }


def ridge(x, y, t, u, l2):
    hot = np.eye(y.max() + 1)[y]
    # 1/n |X W - Y|^2 + l2 |W|^2 is scikit-learn's |X W - Y|^2 + alpha |W|^2 with alpha = n l2.
    alpha = len(y) * l2
    predicted = Ridge(alpha=alpha).fit(x, hot).predict(t).argmax(1)
    left_out = RidgeCV(alphas=[alpha], store_cv_results=True).fit(x, hot).cv_results_.mean()
    return {"l2": l2, "accuracy": float((predicted == u).mean()), "leave_one_out": float(left_out)}


def nearest(x, y, t, u, k, metric, vote):
    if vote == "uniform":
        weights = "uniform"
    elif vote == "inverse":
        weights = "distance"
    else:
        weights = lambda d: np.exp((1.0 - d) / vote)  # noqa: E731 (cosine only: the similarity is 1 - d)
    model = KNeighborsClassifier(k, weights=weights, metric=metric, algorithm="brute").fit(x, y)
    return {"k": k, "metric": metric, "vote": vote, "accuracy": model.score(t, u)}


def main():
    values = {}
    for name, args in {
        "five": (1, 240, 200, 6, 5, 1.5),
        "two": (2, 60, 150, 12, 2, 3.0),
    }.items():
        parts = draw(name, *args)
        (raw, y), (raw_test, u) = parts["train"], parts["test"]
        x, t = standardized(raw, raw_test)
        own = {"logistic": [logistic(x, y, t, u, l2) for l2 in [1.0, 0.1, 0.01, 0.001]]}
        own["ridge"] = [ridge(x, y, t, u, l2) for l2 in [1.0, 0.1, 0.01, 1e-3, 1e-5]]
        own["knn"] = [
            nearest(raw, y, raw_test, u, k, metric, vote)
            for k in [1, 5, 20]
            for metric, vote in [
                ("cosine", "uniform"), ("cosine", 0.1), ("cosine", 0.07),
                ("euclidean", "uniform"), ("euclidean", "inverse"),
            ]
        ]
        values[name] = own
    (HERE / "probes.json").write_text(json.dumps(values, indent=1) + "\n")
    versions = {
        "python": sys.version.split()[0], "numpy": np.__version__, "scikit-learn": sklearn.__version__,
    }
    (HERE / "manifest.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
