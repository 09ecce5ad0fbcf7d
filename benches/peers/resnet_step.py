"""One SGD step of a ResNet-18 (CIFAR stem, 32x32) in PyTorch on the CPU, in images per second.

The peer of `crates/infomax-kernels/examples/resnet_step.rs`: the same network, loss and optimiser.
Run: python benches/peers/resnet_step.py [--threads 2] [--width 16 --batch 256]
"""
import argparse
import statistics
import time

import torch
from torch import nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.short = None
        if stride != 1 or cin != cout:
            self.short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.short is None else self.short(x)), inplace=True)


def resnet18(width, classes=10):
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    cin = width
    for i in range(4):
        cout = width << i
        layers += [Block(cin, cout, 1 if i == 0 else 2), Block(cout, cout, 1)]
        cin = cout
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes)]
    return nn.Sequential(*layers)


def measure(width, batch, mode, seconds):
    torch.manual_seed(0)
    model = resnet18(width)
    x = torch.randn(batch, 3, 32, 32)
    if mode != "nchw":
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    return batch / statistics.median(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--modes", default="nchw,channels_last,bf16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = [(args.width, args.batch)] if args.width else [(16, 256), (64, 64)]
    for width, batch in cases:
        for mode in args.modes.split(","):
            rate = measure(width, batch, mode, args.seconds)
            print(f"resnet18 width {width} batch {batch} {mode}: {rate:.1f} images/s", flush=True)
