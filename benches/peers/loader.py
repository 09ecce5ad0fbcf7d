"""JPEG files to augmented batches: PIL with torchvision or albumentations, and a DataLoader on a folder.

The peer of `crates/infomax-data/examples/loader.rs`: the same recipes, batch and number of workers.
Run: python benches/peers/loader.py --data DIR     (DIR holds one sub-folder a class, or `train/` does)
"""
import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from augment import albumentations_views, picture, rate, torchvision_views
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder


class TwoViews:
    def __init__(self, transform):
        self.transform = transform

    def __call__(self, image):
        return self.transform(image), self.transform(image)


def decode_and_view():
    file = io.BytesIO()
    Image.fromarray(picture(500, 375)).save(file, "JPEG", quality=90)
    data = file.getvalue()
    tv, al = torchvision_views(224, True), albumentations_views(224, True)
    decode = lambda: Image.open(io.BytesIO(data)).convert("RGB")
    print(f"JPEG 500x375 decoded (PIL): {rate(decode):.1f} images/s")
    # PIL has no way to decode a part at full resolution.
    print(f"JPEG 500x375 decoded as far as a VICReg view sees it (PIL): {rate(decode):.1f} images/s")
    name = "JPEG 500x375 decoded, one VICReg view 224x224"
    print(f"{name} (torchvision): {rate(lambda: tv(decode())):.1f} images/s")
    print(f"{name} (albumentations): {rate(lambda: al(image=np.asarray(decode()))):.1f} images/s")


def loader(folder, count, workers):
    data = ImageFolder(folder, TwoViews(torchvision_views(32, False)))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    batches = DataLoader(Subset(data, order), 256, shuffle=True, num_workers=workers, drop_last=True)
    start, samples = time.perf_counter(), 0
    for (first, _), _ in batches:
        samples += len(first)
    rate = samples / (time.perf_counter() - start)
    print(f"folder of JPEG files, two VICReg views 32x32, batch 256, {workers} workers (torchvision): {rate:.1f} images/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    decode_and_view()
    train = args.data / "train"
    loader(train if train.is_dir() else args.data, args.images, args.workers)


if __name__ == "__main__":
    main()
