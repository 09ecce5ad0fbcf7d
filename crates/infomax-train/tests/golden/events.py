"""Writes an event file by the Python package of TensorBoard: what `src/logs/tensorboard.rs` has to write.

Needs the package tensorboard; see manifest.json.
"""

import importlib.metadata
import json
import pathlib
import platform

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

HERE = pathlib.Path(__file__).parent
STEPS = [
    (1, 1_700_000_001.5, [("train/lr", 0.004), ("parts/variance", -1.5), ("train/total", 0.1)]),
    (
        1_000_000_007,
        1_700_000_002.0,
        [("embedding/std_mean", 1e-30), ("time/step_s", 12345.678), ("train/total", 3e38)],
    ),
]


def main():
    with open(HERE / "events.tfevents", "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1_700_000_000.25, file_version="brain.Event:2").SerializeToString())
        for step, time, values in STEPS:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
            writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())
        writer.flush()
    versions = {name: importlib.metadata.version(name) for name in ["tensorboard", "protobuf"]}
    manifest = {"generated_with": {"python": platform.python_version(), **versions}}
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


main()
