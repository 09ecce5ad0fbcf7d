"""Reads back what a run wrote for TensorBoard and MLflow, by their own packages.

python logs.py PROGRAM, with the built program `infomax`. Needs tensorboard; MLflow (or mlflow-skinny) is tried where it is
there. Every value is held against metrics.jsonl.
"""

import importlib.util
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

SMALL = [
    "model.encoder.blocks=[1, 1]",
    "model.encoder.width=8",
    "model.projector=[32, 32]",
    "data.train_images=200",
    "data.test_images=100",
    "data.shapes.size=16",
    "augment.size=16",
    "train.batch=40",
    "train.log_every=1",
    "train.log=['tensorboard', 'mlflow']",
]


def infomax(program, *args):
    subprocess.run([program, *args], check=True)


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def tensorboard(folder, lines):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    for tag, of in [
        ("train/total", lambda line: line["total"]),
        ("train/lr", lambda line: line["lr"]),
        ("embedding/std_mean", lambda line: line.get("embedding", {}).get("std_mean")),
        ("parts/variance", lambda line: next(p["value"] for p in line["parts"] if p["name"] == "variance")),
    ]:
        expected = [(line["step"], single(of(line))) for line in lines if of(line) is not None]
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert expected == found, (folder, tag, expected, found)


def mlflow(folder, lines):
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.resolve().as_uri())
    experiments = client.search_experiments()
    runs = client.search_runs([experiment.experiment_id for experiment in experiments])
    assert len(runs) == 1, runs
    run = runs[0]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run"), run.info
    assert run.data.params["train.batch"] == "40", run.data.params
    found = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "total")]
    assert found == [(line["step"], line["total"]) for line in lines], found
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["config.toml"]


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        sets = [word for value in SMALL for word in ("--set", value)]
        infomax(program, "pretrain", "--quiet", "--no-eval", "--epochs", "2", "--run", "run", *sets)
        infomax(program, "pretrain", "--quiet", "--no-eval", "--epochs", "3", "--resume", "run")
        run = pathlib.Path("run")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 16))
        infomax(program, "runs", "export", "run", "--format", "tensorboard", "-o", "tb")
        infomax(program, "runs", "export", "run", "--format", "mlflow", "-o", "mlruns")
        for folder in [run / "tensorboard", pathlib.Path("tb")]:
            tensorboard(folder, lines)
        print("TensorBoard reads them")
        if importlib.util.find_spec("mlflow") is None:
            print("MLflow: not here")
        else:
            for folder in [run / "mlruns", pathlib.Path("mlruns")]:
                mlflow(folder, lines)
            print("MLflow reads them")


main()
