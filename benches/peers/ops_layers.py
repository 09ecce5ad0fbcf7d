"""Single layers in PyTorch on the CPU, in milliseconds, forward and with all gradients.

The peer of `crates/infomax-kernels/examples/ops_layers.rs`.
Run: python benches/peers/ops_layers.py [--threads 2]
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F


def median(f, seconds):
    times, begin = [], time.perf_counter()
    while len(times) < 7 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def report(name, f, inputs, seconds):
    with torch.no_grad():
        f(*inputs)
        forward = median(lambda: f(*inputs), seconds)
    inputs = [x.detach().requires_grad_() for x in inputs]
    ones = torch.ones_like(f(*inputs))
    both = median(lambda: torch.autograd.grad(f(*inputs), inputs, ones), seconds)
    print(f"{name} forward: {forward:.3f} ms")
    print(f"{name} forward + backward: {both:.3f} ms", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rand = torch.randn
    d = 192
    layer_norm = lambda x, w, b: F.layer_norm(x, (d,), w, b, 1e-6)
    report("layer norm 8320x192", layer_norm, [rand(8320, d), rand(d), rand(d)], args.seconds)
    report("gelu 8320x768", F.gelu, [rand(8320, 768)], args.seconds)
    report("copy 8320x768", torch.clone, [rand(8320, 768)], args.seconds)
    report("softmax 4096x1024", lambda x: F.softmax(x, -1), [rand(4096, 1024)], args.seconds)
    pool = lambda x: F.max_pool2d(x, 3, 2, 1)
    report("max pool 3x3/2 8x64x112x112", pool, [rand(8, 64, 112, 112)], args.seconds)
    for shape in [(128, 3, 65, 64), (8, 12, 197, 64)]:
        name = "attention " + "x".join(map(str, shape))
        report(name, F.scaled_dot_product_attention, [rand(*shape) for _ in range(3)], args.seconds)
    for n, c, size in [(8, 96, 56), (16, 384, 14)]:
        conv = lambda x, w, b: F.conv2d(x, w, b, padding=3, groups=c)
        for layout, form in [("last", torch.channels_last), ("first", torch.contiguous_format)]:
            x, w = rand(n, c, size, size).to(memory_format=form), rand(c, 1, 7, 7).to(memory_format=form)
            report(f"depthwise 7x7 {n}x{c}x{size}x{size} channels {layout}", conv, [x, w, rand(c)], args.seconds)
