"""VICReg on a folder of small images with PyTorch and torchvision: what one would run instead of `infomax pretrain`.

The job is that of configs/cifar10-vicreg.toml, written the usual way: torchvision transforms in DataLoader workers, a
ResNet-18 with the CIFAR stem, the official loss, AdamW with linear warm-up and a cosine, then kNN and a linear probe of
the frozen encoder, and of the same encoder at random initialization.

    python vicreg_cifar.py --train TRAIN_DIR --test TEST_DIR --json pytorch.json

TRAIN_DIR and TEST_DIR hold one sub-folder a class. `--data DIR` stands for DIR/train and DIR/test. The last line on
stdout is one JSON object. Needs torch, torchvision, numpy and scipy; runs on the CPU.
"""

import argparse
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from scipy.optimize import minimize
from torch import nn
from torchvision import transforms as T

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
EXTENSIONS = (".jpg", ".jpeg", ".png")


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", help="folder with train/ and test/")
    p.add_argument("--train", help="folder of class sub-folders to train on (default: DATA/train)")
    p.add_argument("--test", help="folder of class sub-folders to test on (default: DATA/test)")
    p.add_argument("--train-images", type=int, default=10_000, help="the first N / classes files of each class")
    p.add_argument("--test-images", type=int, default=10_000)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--width", type=int, default=16, help="channels of the first stage; the standard ResNet-18 has 64")
    p.add_argument("--projector", default="512-512-512")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--weight-decay", type=float, default=1e-4)
    p.add_argument("--warmup-epochs", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    p.add_argument("--bf16", action="store_true", help="train under torch.autocast in bfloat16, the loss in f32")
    p.add_argument("--json", help="also write the result here")
    args = p.parse_args()
    if not args.data and not (args.train and args.test):
        p.error("name the images: --data DIR, or --train DIR and --test DIR")
    args.train = args.train or os.path.join(args.data, "train")
    args.test = args.test or os.path.join(args.data, "test")
    return args


# Data


def list_files(root, total):
    """The first total / classes files of each class, in sorted order: (paths, labels)."""
    classes = sorted(d for d in os.listdir(root) if os.path.isdir(os.path.join(root, d)))
    if not classes:
        sys.exit(f"{root} has no class sub-folder")
    paths, labels = [], []
    for label, name in enumerate(classes):
        folder = os.path.join(root, name)
        files = sorted(f for f in os.listdir(folder) if f.lower().endswith(EXTENSIONS))[: total // len(classes)]
        paths += [os.path.join(folder, f) for f in files]
        labels += [label] * len(files)
    return paths, np.array(labels)


class Files(torch.utils.data.Dataset):
    """Decodes a file at every access, as an ImageFolder does, and gives `views` transforms of it."""

    def __init__(self, paths, transform, views):
        self.paths, self.transform, self.views = paths, transform, views

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = Image.open(self.paths[i]).convert("RGB")
        return [self.transform(image) for _ in range(self.views)]


def augmentation():
    """The CIFAR preset of solo-learn's VICReg, the same for both views (no blur)."""
    jitter = T.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return T.Compose(
        [
            T.RandomResizedCrop(32, scale=(0.2, 1.0), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomApply([jitter], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomSolarize(threshold=128, p=0.1),
            T.RandomHorizontalFlip(p=0.5),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )


def plain():
    return T.Compose([T.Resize(32), T.CenterCrop(32), T.ToTensor(), T.Normalize(MEAN, STD)])


# Model


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem (3x3 stride 1, no pooling) and `width` channels in the first stage."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers, c_in = [], width
        for stage in range(4):
            c_out = width << stage
            layers += [BasicBlock(c_in, c_out, 1 if stage == 0 else 2), BasicBlock(c_out, c_out, 1)]
            c_in = c_out
        self.layers = nn.Sequential(*layers)
        self.features = c_in
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layers(x).mean(dim=(2, 3))  # (B, 8 * width)


def projector(features, sizes):
    """Linear + BN + ReLU for all sizes but the last, which is a bare Linear."""
    layers, c_in = [], features
    for c in sizes[:-1]:
        layers += [nn.Linear(c_in, c, bias=False), nn.BatchNorm1d(c), nn.ReLU(inplace=True)]
        c_in = c
    return nn.Sequential(*layers, nn.Linear(c_in, sizes[-1], bias=False))


def vicreg_loss(a, b):
    """25 invariance + 25 variance + 1 covariance as in the official code (arXiv:2105.04906)."""
    n, d = a.shape
    invariance = F.mse_loss(a, b)
    variance, covariance = 0.0, 0.0
    for z in (a, b):
        z = z - z.mean(dim=0)
        variance = variance + F.relu(1.0 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() / 2
        c = z.T @ z / (n - 1)
        covariance = covariance + (c.pow(2).sum() - c.diagonal().pow(2).sum()) / d
    return 25.0 * invariance + 25.0 * variance + 1.0 * covariance


# Training


def parameter_groups(modules, weight_decay):
    """Biases and the parameters of norms (all of one dimension) are not decayed."""
    params = [p for m in modules for p in m.parameters()]
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def lr_at(step, total, warmup, base):
    """Linear from base / warmup to base, then half a cosine to 0."""
    if step < warmup:
        return base * (step + 1) / warmup
    return base * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def seed_worker(_):
    # torchvision draws from torch's generator, which DataLoader seeds per worker; one thread each.
    torch.set_num_threads(1)


def train(encoder, head, paths, args):
    data = Files(paths, augmentation(), views=2)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(args.seed),
    )
    if len(loader) == 0:
        sys.exit(f"{len(paths)} images are fewer than one batch of {args.batch}")
    optimizer = torch.optim.AdamW(parameter_groups([encoder, head], args.weight_decay), lr=args.lr)
    total, warmup = args.epochs * len(loader), max(1, round(args.warmup_epochs * len(loader)))
    seconds, step = [], 0
    for epoch in range(args.epochs):
        encoder.train(), head.train()
        start, losses = time.perf_counter(), []
        for a, b in loader:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, total, warmup, args.lr)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                za, zb = head(encoder(a)), head(encoder(b))
            loss = vicreg_loss(za.float(), zb.float())
            if not torch.isfinite(loss):
                sys.exit(f"the loss is {loss.item()} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
        seconds.append(time.perf_counter() - start)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds, len(loader) * args.batch, float(np.mean(losses)) if args.epochs else None


# Evaluation


@torch.no_grad()
def features(encoder, paths, args):
    loader = torch.utils.data.DataLoader(
        Files(paths, plain(), views=1), batch_size=500, num_workers=args.workers, worker_init_fn=seed_worker
    )
    encoder.eval()
    return torch.cat([encoder(x) for (x,) in loader])


def knn_accuracy(train_x, train_y, test_x, test_y, k=200, temperature=0.1):
    """Cosine similarity, votes weighted by exp(similarity / temperature)."""
    train_x, test_x = F.normalize(train_x, dim=1), F.normalize(test_x, dim=1)
    train_y, classes = torch.as_tensor(train_y), int(train_y.max()) + 1
    k, right = min(k, len(train_y)), 0
    for i in range(0, len(test_x), 1000):
        similarity, index = (test_x[i : i + 1000] @ train_x.T).topk(k, dim=1)
        votes = torch.zeros(len(similarity), classes)
        votes.scatter_add_(1, train_y[index], (similarity / temperature).exp())
        right += (votes.argmax(dim=1).numpy() == test_y[i : i + 1000]).sum()
    return float(right) / len(test_y)


def fit_logistic(x, y, classes, l2, iterations=100):
    """Multinomial logistic regression by L-BFGS: mean cross-entropy + l2 / 2 * |W|^2; the bias is not penalized."""
    n, d = x.shape
    one_hot = np.eye(classes)[y]

    def objective(flat):
        w, b = flat[: d * classes].reshape(d, classes), flat[d * classes :]
        logits = x @ w + b
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(log_p) - one_hot) / n
        value = -(one_hot * log_p).sum() / n + 0.5 * l2 * (w**2).sum()
        return value, np.concatenate([(x.T @ error + l2 * w).ravel(), error.sum(axis=0)])

    options = {"maxiter": iterations, "maxcor": 10, "gtol": 1e-4}
    flat = minimize(objective, np.zeros((d + 1) * classes), jac=True, method="L-BFGS-B", options=options).x
    return flat[: d * classes].reshape(d, classes), flat[d * classes :]


def linear_accuracy(train_x, train_y, test_x, test_y, grid=(1e-1, 1e-2, 1e-3, 1e-4)):
    """The linear probe on standardized features; the penalty is chosen on a fifth of the training set."""
    train_x, test_x = train_x.double().numpy(), test_x.double().numpy()
    mean, std = train_x.mean(axis=0), train_x.std(axis=0)
    std[std < 1e-12] = 1.0  # A constant feature says nothing; leave it at zero.
    train_x, test_x = (train_x - mean) / std, (test_x - mean) / std
    classes = int(train_y.max()) + 1
    held = np.random.default_rng(0).random(len(train_y)) < 0.2

    def accuracy(weights, x, y):
        return float(((x @ weights[0] + weights[1]).argmax(axis=1) == y).mean())

    def held_out(l2):
        return accuracy(fit_logistic(train_x[~held], train_y[~held], classes, l2), train_x[held], train_y[held])

    best = max(grid, key=held_out)  # Of equals the largest, as the grid descends.
    return accuracy(fit_logistic(train_x, train_y, classes, best), test_x, test_y)


def evaluate(encoder, train_files, test_files, args):
    train_x, test_x = features(encoder, train_files[0], args), features(encoder, test_files[0], args)
    sets = (train_x, train_files[1], test_x, test_files[1])
    return knn_accuracy(*sets), linear_accuracy(*sets)


def main():
    args = parse()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    train_files, test_files = list_files(args.train, args.train_images), list_files(args.test, args.test_images)
    encoder = ResNet18(args.width)
    head = projector(encoder.features, [int(s) for s in args.projector.split("-")])
    random_knn, random_linear = evaluate(encoder, train_files, test_files, args)
    seconds, images, loss = train(encoder, head, train_files[0], args)
    start = time.perf_counter()
    knn, linear = evaluate(encoder, train_files, test_files, args)
    per_epoch = float(np.median(seconds)) if seconds else None
    result = {
        "seconds_per_epoch": per_epoch,
        "images_per_second": images * len(seconds) / sum(seconds) if seconds else None,
        "train_seconds": float(sum(seconds)),
        "eval_seconds": time.perf_counter() - start,
        "final_loss": loss,
        "knn": knn,
        "linear": linear,
        "random_knn": random_knn,
        "random_linear": random_linear,
        "train_images": len(train_files[0]),
        "test_images": len(test_files[0]),
        "epochs": args.epochs,
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "workers": args.workers,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
    line = json.dumps(result)
    if args.json:
        with open(args.json, "w") as f:
            f.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
