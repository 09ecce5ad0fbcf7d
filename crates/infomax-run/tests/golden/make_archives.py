"""Writes small archives of PyTorch for the tests of weights/archive.rs: python make_archives.py (torch 2.15.0)."""

import collections
import pathlib

import torch

here = pathlib.Path(__file__).parent
values = torch.arange(48, dtype=torch.float32).reshape(2, 3, 2, 4)
state = collections.OrderedDict(
    plain=values,
    channels_last=values.contiguous(memory_format=torch.channels_last),
    reversed=values.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    part=torch.arange(100, dtype=torch.float64)[10:34:2].reshape(3, 4),
    half=values.to(torch.bfloat16).transpose(0, 1),
    scalar=torch.tensor(7),
)
torch.save(state, here / "strides.pth")
torch.save({"epoch": 3, "student": {"w": values}, "teacher": {"w": -values}}, here / "nested.pth")
torch.save({"state_dict": {"w": values}, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}, here / "checkpoint.pth")
torch.save(torch.nn.Linear(2, 1), here / "module.pth")
torch.save(state, here / "old.pth", _use_new_zipfile_serialization=False)
