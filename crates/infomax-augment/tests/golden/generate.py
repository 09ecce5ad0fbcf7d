"""Writes cases.json and pixels.bin: what torchvision on PIL images makes of given parameters.

python generate.py   (torch, torchvision, Pillow, NumPy; the versions are recorded in cases.json)
"""

import json
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
import torchvision.transforms.functional as F
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode

here = Path(__file__).parent
rng = np.random.default_rng(0)
pixels = bytearray()
FILTERS = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def store(array):
    at = len(pixels)
    pixels.extend(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
    return at


def picture(width, height, channels=3):
    """Smooth waves with noise and saturated corners, so that all ranges occur."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(0.37 * (c + 1) * x / 3 + 0.23 * y + c) for c in range(channels)]
    image = np.stack(planes, -1) + rng.normal(0, 25, (height, width, channels))
    image[:2, :2] = 0
    image[-2:, -2:] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


cases = []


def case(name, image, size, crop=None, filter="bilinear", tolerance=0, **params):
    height, width, channels = image.shape
    crop = crop or [0, 0, width, height]
    pil = Image.fromarray(image if channels == 3 else image[..., 0])
    x, y, w, h = crop
    # Rows first, then columns, as Pillow did up to version 12. Later versions choose the order by the sizes,
    # which moves bilinear values by at most one level.
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[filter]
    out = pil.crop((x, y, x + w, y + h)).resize((size, h), resample).resize((size, size), resample)
    chosen = F.resized_crop(pil, y, x, h, w, [size, size], FILTERS[filter], antialias=True)
    assert filter == "bicubic" or np.abs(np.asarray(chosen).astype(int) - np.asarray(out)).max() <= 1
    for kind, value in params.get("jitter", []):
        adjust = {"brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation, "hue": F.adjust_hue}
        out = adjust[kind](out, value)
    if params.get("grayscale"):
        out = F.rgb_to_grayscale(out, num_output_channels=channels)
    if "sigma" in params:
        out = F.gaussian_blur(out, params["kernel"], params["sigma"])
    if "solarize" in params:
        out = ImageOps.solarize(out, params["solarize"])
    if params.get("flip"):
        out = F.hflip(out)
    if params.get("vertical_flip"):
        out = F.vflip(out)
    result = np.asarray(out).reshape(size, size, channels)
    cases.append(dict(name=name, width=width, height=height, channels=channels, input=store(image), size=size, crop=crop, filter=filter,
                      tolerance=tolerance, expected=store(result), **params))


for filter in FILTERS:
    for w, h, size in [(32, 32, 32), (40, 31, 16), (53, 90, 24), (9, 7, 32), (1, 1, 8), (1, 17, 5), (200, 3, 20), (24, 50, 24), (50, 24, 24)]:
        case(f"resize {w}x{h} to {size}, {filter}", picture(w, h), size, filter=filter)
    for crop, size in [([3, 2, 20, 15], 16), ([0, 5, 31, 7], 33), ([11, 0, 2, 30], 20)]:
        case(f"crop {crop} to {size}, {filter}", picture(37, 33), size, crop=crop, filter=filter)
case("grey, resized", picture(30, 20, 1), 17)

square = picture(24, 24)
for kind, values in {"brightness": [0.0, 0.35, 0.6, 1.0, 1.4, 1.8], "contrast": [0.0, 0.2, 0.73, 1.2, 1.8], "saturation": [0.0, 0.2, 0.87, 1.2, 1.8]}.items():
    for value in values:
        case(f"{kind} {value}", square, 24, jitter=[[kind, value]])
case("grey, brightness and contrast", picture(24, 24, 1), 24, jitter=[["contrast", 1.3], ["brightness", 0.8], ["saturation", 0.5], ["hue", 0.1]])
colours = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
for value in [-0.5, -0.21, -0.1, -0.004, 0.003, 0.05, 0.1, 0.2, 0.5]:
    case(f"hue {value}", colours, 64, jitter=[["hue", value]])
case("grayscale", square, 24, grayscale=True)
for threshold in [128, 1, 200]:
    case(f"solarize {threshold}", square, 24, solarize=threshold)
case("flips", square, 24, flip=True, vertical_flip=True)
for sigma in [0.1, 0.5, 1.0, 1.37, 2.0]:
    case(f"blur {sigma}", picture(24, 24), 24, sigma=sigma, kernel=23, tolerance=1)
    case(f"blur {sigma} on 41 pixels", picture(41, 41), 41, sigma=sigma, kernel=7, tolerance=1)
case("all, one after the other", picture(50, 37), 32, crop=[5, 3, 30, 28], filter="bicubic", flip=True, solarize=128,
     jitter=[["saturation", 1.15], ["hue", -0.07], ["brightness", 0.7], ["contrast", 1.31]])
case("all with grayscale", picture(50, 37), 32, crop=[5, 3, 30, 28], grayscale=True,
     jitter=[["hue", 0.09], ["contrast", 0.66], ["brightness", 1.37], ["saturation", 0.9]])

versions = dict(torch=torch.__version__, torchvision=torchvision.__version__, pillow=PIL.__version__, numpy=np.__version__)
lines = ",\n".join(json.dumps(c) for c in cases)
(here / "cases.json").write_text('{"versions": ' + json.dumps(versions) + ',\n"cases": [\n' + lines + "\n]}\n")
(here / "pixels.bin").write_bytes(pixels)
print(len(cases), "cases", len(pixels), "bytes")
