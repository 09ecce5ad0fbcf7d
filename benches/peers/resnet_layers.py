"""The layers of a ResNet-18 (CIFAR stem) one by one in PyTorch on the CPU.

The peer of `crates/infomax-kernels/examples/conv_layers.rs`; each layer in PyTorch's faster f32 layout.
Run: python benches/peers/resnet_layers.py [--threads 2] [--width 64 --batch 64]
"""
import argparse
import os
import statistics
import time

import torch
import torch.nn.functional as F

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def median(f):
    f()
    times, begin = [], time.perf_counter()
    while len(times) < 7 or time.perf_counter() - begin < 0.3:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def best(make):
    return min(median(make(layout)) for layout in LAYOUTS)


def conv(c, k, side, stride, batch):
    out = side // stride
    gflop = 2e-9 * batch * c * k * out * out * 9
    name = f"conv 3x3/{stride} {c} to {k}, {side}x{side}, batch {batch}"

    def tensors(layout):
        to = dict(memory_format=layout)
        return (torch.randn(batch, c, side, side).to(**to), torch.randn(k, c, 3, 3).to(**to),
                torch.randn(batch, k, out, out).to(**to))

    def forward(layout):
        x, w, _ = tensors(layout)
        return lambda: F.conv2d(x, w, None, stride, 1)

    def gradient(mask):
        def make(layout):
            x, w, g = tensors(layout)
            return lambda: torch.ops.aten.convolution_backward(
                g, x, w, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, mask)
        return make

    print(f"{name}, forward: {gflop / best(forward):.1f} GFLOP/s", flush=True)
    if c > 3:
        print(f"{name}, input gradient: {gflop / best(gradient([True, False, False])):.1f} GFLOP/s", flush=True)
    print(f"{name}, weight gradient: {gflop / best(gradient([False, True, False])):.1f} GFLOP/s", flush=True)


def norm(c, side, batch):
    name = f"batch norm + add + relu {c}, {side}x{side}, batch {batch}"

    def make(backward):
        def layout_of(layout):
            x, r = (torch.randn(batch, c, side, side).to(memory_format=layout).requires_grad_() for _ in range(2))
            scale, shift = (torch.randn(c, requires_grad=True) for _ in range(2))

            def run():
                y = F.relu(F.batch_norm(x, None, None, scale, shift, True) + r, inplace=True)
                if backward:
                    y.sum().backward()
                    for t in (x, r, scale, shift):
                        t.grad = None
            return run
        return layout_of

    print(f"{name}, forward: {1e3 * best(make(False)):.3f} ms", flush=True)
    print(f"{name}, forward and backward: {1e3 * best(make(True)):.3f} ms", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 2)))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    w = args.width
    with torch.no_grad():
        for c, k, side, stride in [(3, w, 32, 1), (w, w, 32, 1), (w, 2 * w, 32, 2), (2 * w, 2 * w, 16, 1),
                                   (2 * w, 4 * w, 16, 2), (4 * w, 4 * w, 8, 1), (4 * w, 8 * w, 8, 2),
                                   (8 * w, 8 * w, 4, 1)]:
            conv(c, k, side, stride, args.batch)
    for c, side in [(w, 32), (2 * w, 16), (4 * w, 8), (8 * w, 4)]:
        norm(c, side, args.batch)
