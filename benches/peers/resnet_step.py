"""One SGD step of a residual network in PyTorch on the CPU: images per second, and peak memory.

The peer of `crates/infomax-kernels/examples/resnet_step.rs`: the same networks, loss and optimizer.
The mode bf16 is autocast in channels last here, and feature maps in bf16 there; parameters are f32 in both.
Run: python benches/peers/resnet_step.py [--threads 2] [--depth 18 --width 64 --batch 64 --side 32] [--modes bf16]
"""
import argparse
import multiprocessing
import os
import resource
import statistics
import time

import torch
from torch import nn
import torch.nn.functional as F

CASES = [(18, 64, 64, 32), (18, 16, 512, 32), (50, 64, 8, 224)]


def conv(cin, cout, side, stride):
    return nn.Conv2d(cin, cout, side, stride, side // 2, bias=False)


class Block(nn.Module):
    def __init__(self, cin, planes, stride, expansion):
        super().__init__()
        cout = planes * expansion
        if expansion == 1:
            plan = [(cin, planes, 3, stride), (planes, planes, 3, 1)]
        else:
            plan = [(cin, planes, 1, 1), (planes, planes, 3, stride), (planes, cout, 1, 1)]
        self.convs = nn.ModuleList(conv(*p) for p in plan)
        self.norms = nn.ModuleList(nn.BatchNorm2d(p[1]) for p in plan)
        self.short = None
        if stride != 1 or cin != cout:
            self.short = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = x
        for i, (c, n) in enumerate(zip(self.convs, self.norms)):
            y = n(c(y))
            if i + 1 < len(self.convs):
                y = F.relu(y, inplace=True)
        y += x if self.short is None else self.short(x)
        return F.relu(y, inplace=True)


def resnet(depth, width, side, classes=10):
    expansion, stages = (4, [3, 4, 6, 3]) if depth == 50 else (1, [2, 2, 2, 2])
    large = side > 64
    layers = [conv(3, width, 7 if large else 3, 2 if large else 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    if large:
        layers.append(nn.MaxPool2d(3, 2, 1))
    cin = width
    for i, count in enumerate(stages):
        for j in range(count):
            layers.append(Block(cin, width << i, 2 if i > 0 and j == 0 else 1, expansion))
            cin = (width << i) * expansion
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes)]
    return nn.Sequential(*layers)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case, mode, threads, seconds):
    depth, width, batch, side = case
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = peak()
    model = resnet(depth, width, side)
    x = torch.randn(batch, 3, side, side)
    if mode != "nchw":
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    # Where there are no bf16 instructions, one step in bf16 takes minutes.
    step()
    least = 1 if mode == "bf16" else 5
    times, start = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - start < (0 if mode == "bf16" else seconds):
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    return batch / statistics.median(times), peak() - before


def child(queue, *args):
    queue.put(measure(*args))


def alone(*args):
    """Measures in a process of its own, so that the peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, *args))
    process.start()
    result = queue.get()
    process.join()
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 2)))
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--width", type=int)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--modes", default="nchw,channels_last,bf16")
    args = parser.parse_args()
    cases = [(args.depth, args.width, args.batch, args.side)] if args.width else CASES
    for case in cases:
        depth, width, batch, side = case
        name = f"resnet{depth} width {width} batch {batch} {side}x{side}"
        single = []
        for mode in args.modes.split(","):
            # Of all cases the first alone: without its instructions bf16 takes minutes.
            if mode == "bf16" and case != CASES[0] and not args.width:
                continue
            rate, memory = alone(case, mode, args.threads, args.seconds)
            if mode == "bf16":
                print(f"{name}, bf16: {rate:.1f} images/s", flush=True)
                print(f"{name}, peak memory bf16: {memory:.0f} MiB", flush=True)
            else:
                print(f"{name}, {mode}: {rate:.1f} images/s", flush=True)
                single.append((rate, memory))
        if single:
            print(f"{name}, best f32: {max(single)[0]:.1f} images/s", flush=True)
            print(f"{name}, peak memory: {min(m for _, m in single):.0f} MiB", flush=True)
