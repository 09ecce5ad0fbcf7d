"""VICReg views per second on one core: torchvision on PIL images and on tensors, and albumentations.

The peer of `crates/infomax-augment/examples/throughput.rs`: the same images, recipes and filter.
Run: python benches/peers/augment.py
"""
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision.transforms as T
import torchvision.transforms.v2 as V2
from albumentations.pytorch import ToTensorV2
from PIL import Image

torch.set_num_threads(1)
cv2.setNumThreads(0)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def picture(width, height):
    """Waves, the same formula as in the Rust example."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 60 * np.sin(0.05 * (c + 1) * x) + 60 * np.cos(0.07 * y + c) for c in range(3)]
    return np.stack(planes, -1).astype(np.uint8)


def torchvision_views(size, blur, lib=T, to_float=T.ToTensor()):
    steps = [
        lib.RandomResizedCrop(size, scale=(0.2, 1.0)),
        lib.RandomApply([lib.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        lib.RandomGrayscale(0.2),
    ]
    if blur:
        steps.append(lib.RandomApply([lib.GaussianBlur(23, (0.1, 2.0))], p=0.5))
    steps += [lib.RandomSolarize(128, 0.1), lib.RandomHorizontalFlip(), to_float, lib.Normalize(MEAN, STD)]
    return lib.Compose(steps)


def albumentations_views(size, blur):
    steps = [
        A.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
        A.ToGray(p=0.2),
    ]
    if blur:
        steps.append(A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=0.5))
    steps += [A.Solarize((128 / 255, 128 / 255), p=0.1), A.HorizontalFlip(), A.Normalize(MEAN, STD), ToTensorV2()]
    return A.Compose(steps)


def rate(work, seconds=1.5, repeats=3):
    """The best of several timings, in calls per second."""
    work()
    best = 0.0
    for _ in range(repeats):
        start, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds / repeats or count < 3:
            work()
            count += 1
        best = max(best, count / (time.perf_counter() - start))
    return best


def main():
    for name, size, shape, blur in [
        ("VICReg 32x32 from 32x32", 32, (32, 32), False),
        ("VICReg 224x224 from 500x375, blur 23", 224, (500, 375), True),
    ]:
        array = picture(*shape)
        image = Image.fromarray(array)
        tv, al = torchvision_views(size, blur), albumentations_views(size, blur)
        print(f"{name} (torchvision): {rate(lambda: tv(image)):.1f} views/s")
        print(f"{name} (albumentations): {rate(lambda: al(image=array)):.1f} views/s")
        tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
        one = torchvision_views(size, blur, T, T.ConvertImageDtype(torch.float32))
        two = torchvision_views(size, blur, V2, V2.ToDtype(torch.float32, scale=True))
        print(f"{name} (torchvision on tensors): {rate(lambda: one(tensor)):.1f} views/s")
        print(f"{name} (torchvision v2 on tensors): {rate(lambda: two(tensor)):.1f} views/s")


if __name__ == "__main__":
    main()
