"""Errors of KSG in scikit-learn, NPEET and infomeasure on the tasks of `infomax mi --selftest`, beside ours.

    infomax mi --selftest --seeds 5 --write tasks
    infomax mi --selftest --seeds 5 --json > ours.json
    python benches/peers/information_tasks.py tasks ours.json

k = 3, columns scaled to deviation 1, one thread. scikit-learn estimates one column of X at a time against one of Y, so that it takes
part in tasks of 1 + 1 columns. NPEET: a checkout of github.com/gregversteeg/NPEET (commit 8b0d948) on PYTHONPATH. A
package that cannot be imported is left out. Prints the mean absolute error of each by family, and in how many tasks the
estimate that ours puts first has the lowest error, or one within the mean error's standard error of it.
"""

import argparse
import collections
import importlib.util
import json
import pathlib
import warnings

import numpy as np

K = 3


def scikit(x, y):
    from sklearn.feature_selection import mutual_info_regression

    if x.shape[1] > 1 or y.shape[1] > 1:
        return None
    return float(mutual_info_regression(x, y[:, 0], n_neighbors=K, random_state=0, n_jobs=1)[0])


def npeet(x, y):
    from npeet import entropy_estimators

    return float(entropy_estimators.mi(x, y, k=K, base=np.e))


def infomeasure(x, y):
    import infomeasure as im

    return float(im.mutual_information(x, y, approach="ksg", k=K, base="e"))


PEERS = {"scikit-learn": ("sklearn", scikit), "NPEET": ("npeet", npeet), "infomeasure": ("infomeasure", infomeasure)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", type=pathlib.Path)
    parser.add_argument("ours")
    parser.add_argument("--json", help="write all errors into this file")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    draws = json.loads((args.tasks / "tasks.json").read_text())["draws"]
    ours = json.loads(pathlib.Path(args.ours).read_text())
    peers = {name: call for name, (module, call) in PEERS.items() if importlib.util.find_spec(module)}
    print("peers:", ", ".join(peers))

    errors = collections.defaultdict(lambda: collections.defaultdict(list))
    families, seeds = {}, collections.Counter()
    for draw in draws:
        task = (draw["task"], draw["n"])
        families[task] = draw["family"]
        seeds[task] += 1
        x, y = (np.load(args.tasks / f"{draw['file']}.{side}.npy") for side in "xy")
        x, y = ((z - z.mean(0)) / z.std(0) for z in (x, y))
        for name, call in peers.items():
            value = call(x, y)
            if value is not None:
                errors[task][name].append(abs(value - draw["truth"]))
    table = {task: {name: (np.mean(e), np.std(e)) for name, e in by.items()} for task, by in errors.items()}
    for cell in ours["cells"]:
        task = (cell["task"], cell["n"])
        if task in table:
            # The deviation of an estimate stands for that of its error.
            table[task]["ours: " + cell["estimator"]] = (cell["error"], cell["deviation"])

    names = sorted({name for by in table.values() for name in by})
    print("\nmean absolute error [nats] by family")
    for family in sorted(set(families.values())):
        rows = [by for task, by in table.items() if families[task] == family]
        means = {n: np.mean([by[n][0] for by in rows if n in by]) for n in names if any(n in by for by in rows)}
        print(f"  {family} ({len(rows)}):", ", ".join(f"{n} {m:.3f}" for n, m in means.items()))
    best = near = total = 0
    for task, by in table.items():
        rivals = [by[name] for name in peers if name in by]
        if "ours: first" not in by or not rivals:
            continue
        total += 1
        error, deviation = by["ours: first"]
        lowest, spread = min(rivals)
        best += error <= lowest
        within = error <= lowest + np.sqrt((deviation**2 + spread**2) / seeds[task])
        near += within
        if not within:
            print(f"  behind: {task[0]}: ours {error:.3f}, best peer {lowest:.3f}")
    print(f"\nours (first) has the lowest error in {best} of {total} tasks; in {near} the lowest or within noise of it")
    if args.json:
        rows = [{"task": t, "n": n, "errors": {k: v[0] for k, v in by.items()}} for (t, n), by in table.items()]
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
