"""Writes the golden values of this folder: `python make.py LOSSES`, from anywhere, with torch and numpy.

LOSSES is `losses.py` of github.com/HobbitLong/SupContrast at 66a8fe5, whose loss is executed in f64; its autograd gives
the gradients. Inputs are those of ../losses, scaled to unit rows as the repository's network does; labels are `i % 5`,
and none for the self-supervised form.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
CASE = "a_n32_d16"
torch.set_default_dtype(torch.float64)
spec = importlib.util.spec_from_file_location("losses", sys.argv[1])
losses = importlib.util.module_from_spec(spec)
spec.loader.exec_module(losses)


def load(name):
    return torch.tensor(np.load(HERE.parent / "losses" / name).astype(np.float64), requires_grad=True)


records = {}
for key, labels in [("labels=i%5", torch.arange(32) % 5), ("no_labels", None)]:
    z1, z2 = load(f"{CASE}.z1.npy"), load(f"{CASE}.z2.npy")
    views = torch.stack([F.normalize(z1), F.normalize(z2)], dim=1)
    # Equal temperatures: the factor of the loss is 1.
    value = losses.SupConLoss(temperature=0.1, base_temperature=0.1)(views, labels)
    records[key] = {"value": value.item()}
    for name, grad in zip(["grad_z1", "grad_z2"], torch.autograd.grad(value, [z1, z2])):
        file = f"{CASE}.{key.replace('=', '_').replace('%', '_')}.{name}.npy"
        np.save(HERE / file, np.ascontiguousarray(grad.numpy()))
        records[key][name] = f"supcon/{file}"
out = {"versions": {"torch": torch.__version__, "numpy": np.__version__}, CASE: records}
(HERE / "supcon.json").write_text(json.dumps(out, indent=1) + "\n")
