"""Writes positions.json: bicubic interpolation with anti-aliasing of position embeddings, in numpy (float64).

Run with `python make_positions.py` in this folder (numpy 2.x). The definition is that of
torch.nn.functional.interpolate(mode="bicubic", antialias=True, align_corners=False), which timm's
resample_abs_pos_embed calls: along each axis a place i of the new grid lies at scale (i + 1/2), scale = old / new, and
is the weighted mean of the old places j + 1/2 within twice max(scale, 1), with Keys' cubic (a = -1/2) of their distance
over max(scale, 1). The weights are written here as a loop over all pairs, without cut windows.
"""

import json

import numpy as np

GRID, DIM = 4, 2


def cubic(x, a=-0.5):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def along(values, new):
    """Interpolates the first axis."""
    old = len(values)
    scale = old / new
    out = []
    for i in range(new):
        w = np.array([cubic(((j + 0.5) - scale * (i + 0.5)) / max(scale, 1)) for j in range(old)])
        out.append(np.tensordot(w / w.sum(), values, 1))
    return np.array(out)


positions = np.sin(0.7 * np.arange(GRID * GRID * DIM) ** 1.3).reshape(GRID, GRID, DIM)
cases = []
for size in [(4, 4), (2, 2), (3, 5), (7, 6), (1, 8), (12, 12)]:
    ys = along(positions, size[0])
    ys = along(ys.transpose(1, 0, 2), size[1]).transpose(1, 0, 2)
    cases.append({"size": size, "values": ys.ravel().tolist()})
document = {"generator": "make_positions.py", "numpy": np.__version__, "grid": GRID, "dim": DIM}
with open("positions.json", "w") as file:
    json.dump(document | {"positions": positions.ravel().tolist(), "cases": cases}, file)
    file.write("\n")
