"""Writes JPEG files of every common kind, and beside each a PNG of what Pillow decodes it to.

Run here: python make_jpegs.py   (versions are written into manifest.json)
"""
import json

import numpy as np
import PIL
from PIL import Image, features

rng = np.random.default_rng(0)
width, height = 83, 61
frequencies = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None] ** 2
frequencies[0, 0] = 1
planes = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequencies**0.5).real for _ in range(3)]
image = np.stack([planes[0] + 0.5 * p for p in planes], -1)
image = ((image - image.mean()) / image.std() * 50 + 128).clip(0, 255).astype(np.uint8)

kinds = {
    "420": dict(quality=85, subsampling=2),
    "422": dict(quality=85, subsampling=1),
    "444": dict(quality=85, subsampling=0),
    "progressive": dict(quality=85, progressive=True),
    "gray": dict(quality=85),
    "restart": dict(quality=85, restart_marker_rows=1),
    "low": dict(quality=10),
}
for name, options in kinds.items():
    source = Image.fromarray(image)
    (source.convert("L") if name == "gray" else source).save(f"{name}.jpg", **options)
    Image.open(f"{name}.jpg").convert("RGB").save(f"{name}.png", optimize=True)
versions = {"Pillow": PIL.__version__, "libjpeg-turbo": features.version_feature("libjpeg_turbo"), "numpy": np.__version__}
with open("manifest.json", "w") as file:
    json.dump({"script": "make_jpegs.py", "versions": versions, "size": [width, height], "kinds": list(kinds)}, file, indent=2)
    file.write("\n")
