"""Times on a CUDA device in PyTorch: the peer of `benches/examples/device_check`, on the same sizes.

One SGD step of ResNet-18 for 32x32 images at batch 512 (f32 with TF32 off and on, bf16 autocast; channels last;
eager, and compiled), matrix products, the VICReg loss, NT-Xent, SIGReg's statistic, squared distances, cross-entropy and the
iterations of Muon. Medians of synchronized calls after a warm-up.
Run: python benches/peers/cuda_step.py [--seconds 120] [--no-compile]
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

DEVICE = "cuda"
START = time.monotonic()


def conv(cin, cout, side, stride):
    return nn.Conv2d(cin, cout, side, stride, side // 2, bias=False)


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout, 3, 1), nn.BatchNorm2d(cout)
        self.short = None
        if stride != 1 or cin != cout:
            self.short = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        way = x if self.short is None else self.short(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + way, inplace=True)


class ResNet18(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 3, 1), nn.BatchNorm2d(width)
        blocks, cin = [], width
        for stage in range(4):
            for j in range(2):
                cout = width << stage
                blocks.append(Block(cin, cout, 2 if stage > 0 and j == 0 else 1))
                cin = cout
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.blocks(y).mean((2, 3))


def median(f, seconds=0.5, most=60):
    times, start = [], time.monotonic()
    for i in range(most):
        torch.cuda.synchronize()
        began = time.perf_counter()
        f()
        torch.cuda.synchronize()
        if i >= 3:
            times.append((time.perf_counter() - began) * 1e3)
        if len(times) >= 3 and time.monotonic() - start > seconds:
            break
    return statistics.median(times)


def row(name, f):
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        print(f"TORCH {name}: {f()}", flush=True)
    except Exception as error:  # a row that fails is reported, the next one runs
        print(f"TORCH FAILED {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)


def peak():
    return f"peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"


def tf32(on):
    torch.backends.cudnn.allow_tf32 = on
    torch.backends.cuda.matmul.allow_tf32 = on


def step_row(mode, channels_last, compiled, benchmark, batch=512):
    def run():
        torch.backends.cudnn.benchmark = benchmark
        tf32(mode != "f32")
        torch.manual_seed(0)
        net = ResNet18().to(DEVICE)
        x = torch.randn(batch, 3, 32, 32, device=DEVICE)
        if channels_last:
            net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
        forward = torch.compile(net) if compiled else net

        def step():
            with torch.autocast(DEVICE, torch.bfloat16, enabled=mode == "bf16"):
                features = forward(x)
            loss = features.float().square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        ms = median(step)
        return f"{ms:.1f} ms a step ({batch / ms * 1e3:.0f} images/s), {peak()}"

    order = "last" if channels_last else "first"
    how = ("compiled" if compiled else "eager") + (" benchmark" if benchmark else "")
    row(f"ResNet-18 step, 32x32, batch {batch}, {mode} {order} {how}", run)


def matmul_row(name, dtype, allow):
    def run():
        n = 8192
        tf32(allow)
        a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
        ms = median(lambda: a @ b)
        return f"{ms:.2f} ms, {2 * n**3 / ms / 1e9:.0f} TFLOP/s"

    row(f"matmul 8192^3 {name}", run)


def vicreg(compiled, allow=False):
    """25 mse + 25 hinge + covariance, as facebookresearch/vicreg computes it."""

    def loss(x, y):
        total = 25 * F.mse_loss(x, y)
        n, d = x.shape
        for z in (x, y):
            z = z - z.mean(0)
            total = total + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
            cov = z.T @ z / (n - 1)
            total = total + (cov.square().sum() - cov.diagonal().square().sum()) / d
        return total

    def run():
        tf32(allow)
        x, y = (torch.randn(4096, 8192, device=DEVICE, requires_grad=True) for _ in range(2))
        f = torch.compile(loss) if compiled else loss

        def step():
            x.grad = y.grad = None
            f(x, y).backward()

        return f"{median(step):.2f} ms, {peak()}"

    row(f"VICReg loss, n 4096, d 8192, {'tf32' if allow else 'f32'}, {'compiled' if compiled else 'eager'}", run)


def nt_xent(compiled):
    def loss(rows):
        z = F.normalize(rows)
        n = len(z)
        scores = z @ z.T / 0.5
        scores = scores.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), float("-inf"))
        target = torch.arange(n, device=z.device).roll(n // 2)
        return F.cross_entropy(scores, target)

    def run():
        tf32(False)
        rows = torch.randn(16384, 128, device=DEVICE, requires_grad=True)
        f = torch.compile(loss) if compiled else loss

        def step():
            rows.grad = None
            f(rows).backward()

        return f"{median(step):.2f} ms, {peak()}"

    row(f"NT-Xent, n 16384, d 128, f32, {'compiled' if compiled else 'eager'}", run)


def small():
    """What is made of few operations: eager only."""
    tf32(False)

    def timed(name, shape, loss):
        def run():
            x = torch.randn(*shape, device=DEVICE, requires_grad=True)

            def step():
                x.grad = None
                loss(x).backward()

            return f"{median(step, 0.3):.3f} ms, {peak()}"

        row(f"{name}, forward and backward, f32 eager", run)

    t = torch.linspace(0, 3, 17, device=DEVICE)
    phi = torch.exp(-t.square() / 2)
    weights = 2 * (3 / 16) * phi
    weights[[0, -1]] /= 2

    def sigreg(y):
        """As LeJEPA computes it (arXiv:2511.08544): all points of the grid at once."""
        angles = y.unsqueeze(-1) * t
        error = (angles.cos().mean(0) - phi).square() + angles.sin().mean(0).square()
        return ((error @ weights) * len(y)).sum()

    timed("characteristic functions, n 4096, 1024 slices, 17 points", (4096, 1024), sigreg)
    timed("squared distances, n 4096, d 512", (4096, 512), lambda x: torch.cdist(x, x).square().sum())
    labels = torch.arange(4096, device=DEVICE)
    timed("cross-entropy, n 4096, 8192 classes", (4096, 8192), lambda x: F.cross_entropy(x, labels))

    def muon(allow):
        def run():
            tf32(allow)
            g = torch.randn(2048, 2048, device=DEVICE)

            def iterations():
                x = g / (g.norm() + 1e-7)
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                return x

            return f"{median(iterations, 0.3):.2f} ms"

        row(f"Muon, 5 iterations on 2048x2048, {'tf32' if allow else 'f32'} eager", run)

    muon(False)
    muon(True)
    tf32(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="start no compiled row after this time")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    print(f"TORCH {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}")
    for name, dtype, allow in [("f32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)]:
        matmul_row(name, dtype, allow)
    a = torch.empty(1 << 28, device=DEVICE).normal_()
    row("copy of 1 GiB", lambda: (lambda ms: f"{ms:.3f} ms, {2 * (1 << 30) / ms / 1e6:.0f} GB/s")(median(a.clone)))
    del a
    for mode in ["f32", "tf32", "bf16"]:
        step_row(mode, True, False, False)
        step_row(mode, True, False, True)
    step_row("tf32", False, False, False)
    vicreg(False)
    vicreg(False, True)
    nt_xent(False)
    small()
    if not args.no_compile:
        for f in (
            lambda: step_row("bf16", True, True, False),
            lambda: step_row("tf32", True, True, False),
            lambda: nt_xent(True),
            lambda: vicreg(True),
        ):
            if time.monotonic() - START > args.seconds:
                print("TORCH SKIPPED: no time left for a compiled row", flush=True)
                continue
            f()


if __name__ == "__main__":
    main()
