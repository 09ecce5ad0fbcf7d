"""Writes cases.json and pixels.bin: what torchvision makes of given parameters, on PIL images and on tensors,
the latter by both of its interfaces; and checksums over all colors.

python generate.py   (torch, torchvision, Pillow, NumPy; the versions are recorded in cases.json)
"""

import json
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
import torchvision.transforms.functional as F
import torchvision.transforms.v2.functional as V2
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


def on_pil(out, size, filter, params):
    channels = len(out.getbands())
    if "resize" in params:
        out = F.center_crop(F.resize(out, params["resize"], FILTERS[filter]), [size, size])
    else:
        x, y, w, h = params["crop"]
        out = F.resized_crop(out, y, x, h, w, [size, size], FILTERS[filter])
    if "affine" in params:
        a = params["affine"]
        nearest = params["sampling"] == "nearest"
        out = F.affine(out, a["degrees"], a["translate"], a["scale"], [a["shear"], 0.0], InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR, fill=params["fill"])
    for kind, value in params.get("jitter", []):
        adjust = {"brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation, "hue": F.adjust_hue}
        out = adjust[kind](out, value)
    if params.get("grayscale"):
        out = F.rgb_to_grayscale(out, num_output_channels=channels)
    if "posterize" in params:
        out = F.posterize(out, params["posterize"])
    if params.get("equalize"):
        out = F.equalize(out)
    if "sigma" in params:
        out = F.gaussian_blur(out, params["kernel"], params["sigma"])
    if "solarize" in params:
        out = ImageOps.solarize(out, params["solarize"])
    if params.get("flip"):
        out = F.hflip(out)
    if params.get("vertical_flip"):
        out = F.vflip(out)
    return np.asarray(out).reshape(size, size, channels)


def on_tensor(array, size, filter, params):
    out = torch.from_numpy(array.transpose(2, 0, 1).copy())
    x, y, w, h = params["crop"]
    out = F.resized_crop(out, y, x, h, w, [size, size], FILTERS[filter], antialias=True)
    for kind, value in params.get("jitter", []):
        adjust = {"brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation, "hue": F.adjust_hue}
        out = adjust[kind](out, value)
    if params.get("grayscale"):
        out = F.rgb_to_grayscale(out, num_output_channels=3)
    if "posterize" in params:
        out = F.posterize(out, params["posterize"])
    if params.get("equalize"):
        out = F.equalize(out)
    if "sigma" in params:
        out = F.gaussian_blur(out, params["kernel"], params["sigma"])
    if "solarize" in params:
        out = F.solarize(out, params["solarize"])
    if params.get("flip"):
        out = F.hflip(out)
    if params.get("vertical_flip"):
        out = F.vflip(out)
    if "erase" in params:
        x, y, w, h = params["erase"]
        out = F.erase(out, y, x, h, w, torch.tensor(params["level"], dtype=torch.uint8))
    return out.numpy().transpose(1, 2, 0)


def case(name, image, size, crop=None, filter="bilinear", tolerance=0, tensor=False, **params):
    height, width, channels = image.shape
    params["crop"] = crop or [0, 0, width, height]
    if tensor:
        name = "tensor: " + name
        result = on_tensor(image, size, filter, params)
    else:
        result = on_pil(Image.fromarray(image if channels == 3 else image[..., 0]), size, filter, params)
    cases.append(dict(name=name, width=width, height=height, channels=channels, input=store(image), size=size, filter=filter,
                      tolerance=tolerance, expected=store(result), **params))


for filter in FILTERS:
    for w, h, size in [(32, 32, 32), (40, 31, 16), (53, 90, 24), (9, 7, 32), (1, 1, 8), (1, 17, 5), (200, 3, 20), (24, 50, 24), (50, 24, 24)]:
        case(f"resize {w}x{h} to {size}, {filter}", picture(w, h), size, filter=filter)
    for crop, size in [([3, 2, 20, 15], 16), ([0, 5, 31, 7], 33), ([11, 0, 2, 30], 20), ([4, 1, 25, 32], 20), ([4, 1, 25, 30], 20), ([4, 1, 25, 31], 20), ([20, 3, 17, 30], 16)]:
        case(f"crop {crop} to {size}, {filter}", picture(37, 33), size, crop=crop, filter=filter)
case("gray, resized", picture(30, 20, 1), 17)

square = picture(24, 24)
for kind, values in {"brightness": [0.0, 0.35, 0.6, 1.0, 1.4, 1.8], "contrast": [0.0, 0.2, 0.73, 1.2, 1.8], "saturation": [0.0, 0.2, 0.87, 1.2, 1.8]}.items():
    for value in values:
        case(f"{kind} {value}", square, 24, jitter=[[kind, value]])
case("gray, brightness and contrast", picture(24, 24, 1), 24, jitter=[["contrast", 1.3], ["brightness", 0.8], ["saturation", 0.5], ["hue", 0.1]])
colors = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
for value in [-0.5, -0.21, -0.1, -0.004, 0.003, 0.05, 0.1, 0.2, 0.5]:
    case(f"hue {value}", colors, 64, jitter=[["hue", value]])
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

for filter in FILTERS:
    for w, h, resize, size in [(40, 31, 30, 24), (31, 47, 24, 24), (31, 90, 29, 24), (60, 20, 21, 16), (20, 20, 40, 33)]:
        case(f"{w}x{h} resized to {resize}, center {size}, {filter}", picture(w, h), size, filter=filter, resize=resize)

steps = {
    "rotation": dict(degrees=23.0, translate=[0, 0], scale=1.0, shear=0.0),
    "rotation back": dict(degrees=-131.5, translate=[0, 0], scale=1.0, shear=0.0),
    "quarter turn": dict(degrees=90.0, translate=[0, 0], scale=1.0, shear=0.0),
    "shift": dict(degrees=0.0, translate=[5, -3], scale=1.0, shear=0.0),
    "smaller": dict(degrees=0.0, translate=[0, 0], scale=0.7, shear=0.0),
    "larger": dict(degrees=0.0, translate=[2, 1], scale=1.9, shear=0.0),
    "shear": dict(degrees=0.0, translate=[0, 0], scale=1.0, shear=17.0),
    "all": dict(degrees=-12.0, translate=[-4, 6], scale=1.13, shear=-9.5),
}
for sampling in ["nearest", "bilinear"]:
    for name, step in steps.items():
        case(f"affine, {name}, {sampling}", picture(24, 24), 24, affine=step, sampling=sampling, fill=0)
    case(f"affine, filled, {sampling}", picture(31, 31), 31, affine=steps["all"], sampling=sampling, fill=77)
case("affine, gray", picture(17, 17, 1), 17, affine=steps["all"], sampling="bilinear", fill=0)
for bits in [1, 3, 4, 8]:
    case(f"posterize to {bits}", square, 24, posterize=bits)
for image in [square, picture(64, 64), picture(5, 5), np.full((16, 16, 3), 9, np.uint8), picture(40, 40) // 3 + 90, picture(32, 32, 1)]:
    case(f"equalize {image.shape}", image, image.shape[0], equalize=True)

# Tensors have another arithmetic than PIL images. The tolerance is what the difference comes to.
for filter in FILTERS:
    for w, h, size in [(53, 90, 24), (9, 7, 32), (50, 24, 24)]:
        # Pillow rounds and clamps between rows and columns, which tells where a cubic overshoots.
        tolerance = {"bilinear": 1, "bicubic": 16}[filter]
        case(f"resize {w}x{h} to {size}, {filter}", picture(w, h), size, filter=filter, tolerance=tolerance, tensor=True)
    case(f"five bands, resized, {filter}", picture(37, 29, 5), 20, filter=filter, tolerance=tolerance, tensor=True)
for kind, values, tolerance in [("brightness", [0.35, 0.6, 1.4, 1.8], 0), ("contrast", [0.2, 0.73, 1.2, 1.8], 1), ("saturation", [0.2, 0.87, 1.2, 1.8], 1)]:
    for value in values:
        case(f"{kind} {value}", square, 24, jitter=[[kind, value]], tolerance=tolerance, tensor=True)
for value in [-0.1, 0.05, 0.2]:
    case(f"hue {value}", picture(40, 40), 40, jitter=[["hue", value]], tolerance=16, tensor=True)  # Pillow's hue has 8 bits.
case("grayscale", square, 24, grayscale=True, tolerance=1, tensor=True)
case("posterize", square, 24, posterize=3, tensor=True)
case("equalize", picture(40, 40), 40, equalize=True, tensor=True)
case("solarize", square, 24, solarize=128, tensor=True)
case("flips", square, 24, flip=True, vertical_flip=True, tensor=True)
case("blur", picture(24, 24), 24, sigma=1.1, kernel=9, tolerance=1, tensor=True)
case("five bands, blurred", picture(24, 24, 5), 24, sigma=0.8, kernel=5, tolerance=1, tensor=True)
case("erase", square, 24, erase=[3, 5, 9, 12], level=51, tensor=True)
case("erase to the edge", square, 24, erase=[0, 20, 24, 4], level=255, tensor=True)

# The semantics of tensors, by both interfaces, on waves with noise and on noise alone. Factors are numbers of
# single precision, as the parameters of a view (and what torchvision draws) are.
noise_rng = np.random.default_rng(1)
stored = {}


def noise(width, height, channels=3):
    return noise_rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def store_once(array):
    key = np.ascontiguousarray(array, dtype=np.uint8).tobytes()
    if key not in stored:
        stored[key] = store(array)
    return stored[key]


def by_tensor(lib, array, size, filter, params):
    out = torch.from_numpy(array.transpose(2, 0, 1).copy())
    if "resize" in params:
        out = lib.center_crop(lib.resize(out, [params["resize"]], FILTERS[filter], antialias=True), [size, size])
    else:
        x, y, w, h = params["crop"]
        out = lib.resized_crop(out, y, x, h, w, [size, size], FILTERS[filter], antialias=True)
    if "affine" in params:
        a = params["affine"]
        mode = InterpolationMode.NEAREST if params["sampling"] == "nearest" else InterpolationMode.BILINEAR
        # `RandomAffine` hands on its fill for every channel.
        out = lib.affine(out, a["degrees"], a["translate"], a["scale"], [a["shear"], 0.0], mode, fill=[float(params["fill"])] * out.shape[0])
    for kind, value in params.get("jitter", []):
        out = getattr(lib, f"adjust_{kind}")(out, value)
    if params.get("grayscale"):
        out = lib.rgb_to_grayscale(out, num_output_channels=3)
    if "posterize" in params:
        out = lib.posterize(out, params["posterize"])
    if params.get("equalize"):
        out = lib.equalize(out)
    if "sigma" in params:
        out = lib.gaussian_blur(out, params["kernel"], params["sigma"])
    if "solarize" in params:
        out = lib.solarize(out, params["solarize"])
    if params.get("flip"):
        out = lib.hflip(out)
    if params.get("vertical_flip"):
        out = lib.vflip(out)
    return out.numpy().transpose(1, 2, 0)


INTERFACES = {"tensor": F, "tensor-v2": V2}


def both(name, image, size, crop=None, filter="bilinear", tolerance=0, **params):
    height, width, channels = image.shape
    params["crop"] = crop or [0, 0, width, height]
    params["jitter"] = [[kind, float(np.float32(value))] for kind, value in params.get("jitter", [])]
    for semantics, lib in INTERFACES.items():
        result = by_tensor(lib, image, size, filter, params)
        cases.append(dict(name=f"{semantics}: {name}", width=width, height=height, channels=channels, input=store_once(image),
                          size=size, filter=filter, tolerance=tolerance, expected=store_once(result), semantics=semantics, **params))


torch.set_num_threads(1)
for what, make in {"waves": picture, "noise": noise}.items():
    for w, h, size in [(32, 32, 32), (53, 90, 24), (9, 7, 32), (24, 50, 24), (50, 24, 24), (1, 1, 8), (1, 17, 5), (200, 3, 20), (77, 61, 40)]:
        image = make(w, h)
        for filter in FILTERS:
            both(f"resize {w}x{h} to {size}, {filter}, {what}", image, size, filter=filter)
    image = make(37, 33)
    for crop, size in [([3, 2, 20, 15], 16), ([0, 5, 31, 7], 33), ([11, 0, 2, 30], 20), ([4, 1, 25, 32], 20), ([20, 3, 17, 30], 17)]:
        for filter in FILTERS:
            both(f"crop {crop} to {size}, {filter}, {what}", image, size, crop=crop, filter=filter)
    for channels in [1, 4, 5]:
        image = make(30, 41, channels)
        for filter in FILTERS:
            both(f"{channels} channels, resized, {filter}, {what}", image, 17, filter=filter)
    for w, h, resize, size in [(40, 31, 30, 24), (31, 90, 29, 24), (20, 20, 40, 33), (120, 90, 24, 16)]:
        image = make(w, h)
        for filter in FILTERS:
            both(f"{w}x{h} resized to {resize}, center {size}, {filter}, {what}", image, size, filter=filter, resize=resize)
    small, odd = make(24, 24), make(31, 31)
    for sampling in ["nearest", "bilinear"]:
        for name, step in steps.items():
            both(f"affine, {name}, {sampling}, {what}", small, 24, affine=step, sampling=sampling, fill=0)
        both(f"affine, filled, {sampling}, {what}", odd, 31, affine=steps["all"], sampling=sampling, fill=77)
        both(f"affine, gray, {sampling}, {what}", make(17, 17, 1), 17, affine=steps["all"], sampling=sampling, fill=9)
    for kind, values in {"brightness": [0.0, 0.35, 1.4, 1.8], "contrast": [0.0, 0.2, 0.73, 1.2, 1.8], "saturation": [0.0, 0.2, 0.87, 1.2, 1.8]}.items():
        for value in values:
            both(f"{kind} {value}, {what}", small, 24, jitter=[[kind, value]])
            both(f"{kind} {value}, odd, {what}", odd, 31, jitter=[[kind, value]])
    for value in [-0.5, -0.21, -0.1, -0.004, 0.003, 0.05, 0.1, 0.2, 0.5]:
        both(f"hue {value}, {what}", odd, 31, jitter=[["hue", value]])
    both(f"gray, all changes of color, {what}", make(19, 19, 1), 19, jitter=[["contrast", 1.3], ["brightness", 0.8], ["saturation", 0.5], ["hue", 0.1]])
    both(f"grayscale, {what}", odd, 31, grayscale=True)
    both(f"solarize, {what}", odd, 31, solarize=128)
    for bits in [1, 3, 8]:
        both(f"posterize to {bits}, {what}", odd, 31, posterize=bits)
    for image in [small, make(64, 64), make(5, 5), make(40, 40) // 3 + 90, make(32, 32, 1)]:
        both(f"equalize {image.shape}, {what}", image, image.shape[0], equalize=True)
    both(f"flips, {what}", odd, 31, flip=True, vertical_flip=True)
    for sigma in [0.1, 0.5, 1.0, 1.37, 2.0]:
        both(f"blur {sigma}, {what}", small, 24, sigma=sigma, kernel=23, tolerance=1)
        both(f"blur {sigma} on 31 pixels, {what}", odd, 31, sigma=sigma, kernel=7, tolerance=1)
    image = make(50, 37)
    both(f"all, one after the other, {what}", image, 32, crop=[5, 3, 30, 28], filter="bicubic", flip=True, solarize=128,
         jitter=[["saturation", 1.15], ["hue", -0.07], ["brightness", 0.7], ["contrast", 1.31]], affine=steps["all"], sampling="bilinear", fill=5)
    both(f"all with grayscale, {what}", image, 32, crop=[5, 3, 30, 28], grayscale=True,
         jitter=[["hue", 0.09], ["contrast", 0.66], ["brightness", 1.37], ["saturation", 0.9]])

# All colors, 256 x 256 of one red at a time: the sum of every value times an odd number of its place, modulo 2^64.
shades = np.arange(256, dtype=np.uint8)
colors = np.stack(np.meshgrid(shades, shades, shades, indexing="ij"), 0)
places = np.arange(3 * 65536, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C16) + np.uint64(1)
checksums = []
for semantics, lib in INTERFACES.items():
    changes = {"grayscale": [0.0], "brightness": [1.37], "saturation": [0.63, 1.37], "contrast": [0.73], "hue": [-0.37, -0.1, 0.0013, 0.2]}
    for kind, values in changes.items():
        for value in [float(np.float32(v)) for v in values]:
            total = 0
            for red in range(256):
                image = torch.from_numpy(colors[:, red].copy())
                out = lib.rgb_to_grayscale(image, num_output_channels=3) if kind == "grayscale" else getattr(lib, f"adjust_{kind}")(image, value)
                values64 = out.numpy().reshape(-1).astype(np.uint64)
                total = (total * 31 + int((values64 * places).sum())) % 2**64
            checksums.append(dict(semantics=semantics, kind=kind, value=value, sum=total))

normalize = []
for mean, std in [((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.0, 0.1307), (0.5, 1.0, 0.3081))]:
    ramp = F.to_tensor(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2))
    values = F.normalize(ramp, mean, std).numpy().astype("<f4")
    at = len(pixels)
    pixels.extend(values.tobytes())
    normalize.append(dict(mean=mean, std=std, expected=at))

versions = dict(torch=torch.__version__, torchvision=torchvision.__version__, pillow=PIL.__version__, numpy=np.__version__)
lines = ",\n".join(json.dumps(c) for c in cases)
sums = ",\n".join(json.dumps(c) for c in checksums)
head = f'{{"versions": {json.dumps(versions)},\n"normalize": {json.dumps(normalize)},\n"all_colors": [\n{sums}],\n"cases": [\n'
(here / "cases.json").write_text(head + lines + "\n]}\n")
(here / "pixels.bin").write_bytes(pixels)
print(len(cases), "cases", len(pixels), "bytes")
