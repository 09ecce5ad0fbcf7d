"""Exports of every kind of encoder, loaded by PyTorch with strict=True and run by onnxruntime.

Run: python exports.py PROGRAM  (torch, numpy and safetensors; torchvision, timm and onnxruntime where they are there).
`cargo xtask ci --full --only weights` does. In an empty folder it trains each network for two steps, embeds images by
`infomax embed`, exports, runs the Python code that the export prints, and compares the features of both (1e-4 of
the largest). Then the weights go back by `--init` from the file that PyTorch writes of the loaded module.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

PROGRAM = os.path.abspath(sys.argv[1])
SIZE = 32
CASES = {
    "resnet": ["kind=\"resnet\"", "blocks=[1, 1, 1]", "width=8"],
    "resnet-wide": ["kind=\"resnet\"", "depth=50", "blocks=[1, 1, 1, 1]", "width=4", "inner_multiplier=2", "stem=\"imagenet\""],
    "resnet18": ["kind=\"resnet\"", "depth=18", "width=64", "stem=\"imagenet\""],
    "resnet-64": ["kind=\"resnet\"", "depth=50", "width=64", "blocks=[1, 1, 1, 1]"],
    "whitened": ["kind=\"resnet\"", "blocks=[1, 1]", "width=8", "stem=\"whitened\""],
    "resnet9-whitened": ["kind=\"resnet9\"", "width=4", "stem=\"whitened-trained\""],
    "resnet9": ["kind=\"resnet9\"", "width=8"],
    "vit": ["kind=\"vit\"", "image=32", "patch=8", "width=32", "depth=2", "heads=2"],
    "vit-mean": ["kind=\"vit\"", "image=32", "patch=8", "width=32", "depth=2", "heads=2", "pool=\"mean\"", "registers=2"],
    "convnext": ["kind=\"convnext\"", "blocks=[1, 1, 2, 1]", "widths=[8, 16, 24, 32]", "patch=2"],
    "convnext-atto": ["kind=\"convnext\"", "blocks=[2, 2, 6, 2]", "widths=[40, 80, 160, 320]", "patch=4"],
}
# What a library has not, by the words of the refusal.
REFUSED = {
    ("whitened", "torchvision"): "whitens patches",
    ("whitened", "timm"): "whitens patches",
    ("resnet9-whitened", "torchvision"): "nine layers",
    ("resnet9-whitened", "timm"): "nine layers",
    ("resnet9", "torchvision"): "nine layers",
    ("resnet9", "timm"): "nine layers",
    ("vit-mean", "torchvision"): "register",
}


def there(module):
    try:
        importlib.import_module(module)
        return True
    except ImportError:
        print(f"skipped: {module} is not installed")
        return False


def infomax(*args, fails=False):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(args)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stderr if fails else done.stdout


def settings(case):
    return [part for text in CASES[case] for part in ("--set", f"model.encoder.{text}")]


def train(case, steps, *more):
    infomax(
        "pretrain", "--quiet", "--no-eval", "--run", f"run-{case}", "--data", "images.npy", *settings(case),
        "--set", f"augment.size={SIZE}", "--set", "augment.preset=vicreg-cifar", "--set", "train.batch=16",
        "--set", f"train.max_steps={steps}", "--set", "model.projector=[12, 6]", *more,
    )  # fmt: skip


def embed(run, *more):
    infomax("embed", run, "--quiet", "-o", f"{run}.npy", "--data", "images.npy", *more)
    return np.load(f"{run}.npy")


def same(what, got, expected, tolerance=1e-4):
    worst = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-6)
    print(f"{what}: {expected.shape}, largest difference {worst:.1e}")
    if got.shape != expected.shape or not worst < tolerance:
        sys.exit(f"{what}: the features differ")


def main():
    libraries = [name for name in ("torchvision", "timm") if there(name)]
    onnx = there("onnxruntime")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8)
    np.save("images.npy", pixels)
    for case in CASES:
        train(case, 2)
        ours, heads = embed(f"run-{case}"), embed(f"run-{case}", "--projections")
        for library in libraries:
            file = f"{case}-{library}.safetensors"
            args = ["export", f"run-{case}", "-o", file, "--names", library, "--head", "--json", "--quiet"]
            if (case, library) in REFUSED:
                message = infomax(*args, fails=True)
                assert REFUSED[case, library] in message, message
                print(f"{case} {library}: refused, as it has to be")
                continue
            report = json.loads(infomax(*args))
            mean, std = (np.array(report[key], np.float32) for key in ("mean", "std"))
            images = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy())
            scope = {}
            exec(report["python"], scope)  # The code that we print: it loads with strict=True.
            with torch.no_grad():
                found = scope["model"].eval()(images)
                same(f"{case} {library}", found.numpy(), ours)
                same(f"{case} {library} head", scope["projector"].eval()(found).numpy(), heads)
            # And back, as PyTorch itself saves it: the same features from that file.
            state = {f"module.{key}": value for key, value in scope["model"].state_dict().items()}
            torch.save({"state_dict": state, "epoch": 1}, f"{case}.pth")
            same(f"{case} {library} back", embed(f"run-{case}", "--init", f"{case}.pth"), ours, 1e-6)
        if onnx:
            import onnxruntime

            report = json.loads(infomax("export", f"run-{case}", "-o", f"{case}.onnx", "--head", "--json", "--quiet"))
            mean, std = (np.array(report[key], np.float32) for key in ("mean", "std"))
            xs = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy()
            if there("onnx"):
                import onnx as checker

                checker.checker.check_model(f"{case}.onnx", full_check=True)
            session = onnxruntime.InferenceSession(f"{case}.onnx", providers=["CPUExecutionProvider"])
            got = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": xs}), strict=True))
            same(f"{case} onnx", got["features"], ours)
            same(f"{case} onnx head", got["projections"], heads)


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
print("all exports load")
