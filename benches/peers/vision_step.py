"""One SGD step of a vision transformer and of ConvNeXts in PyTorch on the CPU: images per second, and peak memory.

The peer of `crates/infomax-models/examples/vision_step.rs`: the same networks, loss and optimizer. f32 rows carry
the name of ours, in the faster of the two memory layouts (memory: the smaller one); bf16 autocast stands in rows of
its own.
Run: python benches/peers/vision_step.py [--threads 2] [--filter vit]
"""
import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from torch import nn
import torch.nn.functional as F
from torchvision.models.convnext import CNBlock, LayerNorm2d, convnext_tiny


class Layer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, 1e-6), nn.LayerNorm(d, 1e-6)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.proj(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(self, image, patch, d, depth, heads):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, d))
        self.pos = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, d) * 0.02)
        self.patches = nn.Conv2d(3, d, patch, patch)
        self.layers = nn.Sequential(*[Layer(d, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(d, 1e-6)
        self.head = nn.Linear(d, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.layers(x))[:, 0])


class Stack(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(width, width, 1), LayerNorm2d(width, eps=1e-6))
        self.blocks = nn.Sequential(*[CNBlock(width, 1e-6, 0.0) for _ in range(count)])
        self.norm = nn.LayerNorm(width, 1e-6)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


def tiny():
    model = convnext_tiny(num_classes=10, stochastic_depth_prob=0.0)
    return model


CASES = {
    "vit-tiny 4/32": (lambda: Vit(32, 4, 192, 12, 3), (128, 3, 32), False),
    "convnext 3 blocks 96 56x56": (lambda: Stack(3, 96), (8, 96, 56), True),
    "convnext 3 blocks 192 28x28": (lambda: Stack(3, 192), (16, 192, 28), True),
    "convnext 9 blocks 384 14x14": (lambda: Stack(9, 384), (16, 384, 14), True),
    "convnext 3 blocks 768 7x7": (lambda: Stack(3, 768), (16, 768, 7), True),
    "convnext-tiny 224": (tiny, (8, 3, 224), True),
}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name, mode, threads, seconds):
    build, shape, _ = CASES[name]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = peak()
    model = build()
    batch, channels, size = shape
    x = torch.randn(batch, channels, size, size)
    if mode != "nchw":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--filter", default="")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--bf16", action="store_true", help="also bf16 autocast (slow without its instructions)")
    args = parser.parse_args()
    for name, (_, shape, layouts) in CASES.items():
        if args.filter not in name:
            continue
        modes = ["nchw", "channels_last"] if layouts else ["nchw"]
        measured = [alone(name, mode, args.threads, args.seconds) for mode in modes]
        print(f"{name} batch {shape[0]}: {max(rate for rate, _ in measured):.2f} images/s", flush=True)
        print(f"{name} batch {shape[0]}, peak memory: {min(memory for _, memory in measured):.0f} MiB", flush=True)
        if args.bf16:
            rate, memory = alone(name, "bf16", args.threads, args.seconds)
            print(f"{name} batch {shape[0]} bf16: {rate:.2f} images/s", flush=True)
            print(f"{name} batch {shape[0]} bf16, peak memory: {memory:.0f} MiB", flush=True)
