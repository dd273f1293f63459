"""Draw holes.jpg: kinds of holes in photographs, filled by Telea's method and by the embedded network.

python docs/images/holes.py

The photographs are those of benchmarks/photos that are in the public domain. The masks are those of
benchmarks/quality/gains.py. No network was trained on these photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from glama_deploy.benchmarks.quality.gains import KINDS
from glama_deploy.benchmarks.quality.photos import PHOTOS
from glama_deploy.evaluation.methods import open_method, parse_methods
from glama_deploy.evaluation.protocol import cut_middle
from glama_deploy.io.images import read_image

#: The rows: a kind of hole, and a photograph.
ROWS = (
    ("even lines", "citrus-fruits"),
    ("ThinStrokes", "european-honey-bee"),
    ("ThickStrokes", "koala"),
    ("Expand", "machu-picchu"),
)

#: Side of the pictures in pixels.
SIDE = 256

#: Pixels between the pictures.
GAP = 8


def main() -> None:
    """Draw the picture."""
    methods = [open_method(spec, threads=1) for spec in parse_methods(["telea", "default"], ["auto"], ["fp32"])]
    rows = []
    for kind, name in ROWS:
        truth = cut_middle(read_image(PHOTOS / f"{name}.jpg").rgb, (SIDE, SIDE))
        missing = KINDS[kind][0](SIDE, SIDE, np.random.default_rng([0, 0]))
        row = [np.where(missing[..., None], np.uint8(128), truth)]
        for method in methods:
            assert method.fill is not None  # only results of other programs have none
            black = np.where(missing[..., None], np.uint8(0), truth)  # Telea's method reads missing pixels
            row.append(np.where(missing[..., None], method.fill(black, missing), truth))
        gap_column = np.full((SIDE, GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([part for picture in [*row, truth] for part in (picture, gap_column)][:-1], axis=1))
    gap_row = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for row in rows for part in (row, gap_row)][:-1])
    Image.fromarray(sheet).save(Path(__file__).with_name("holes.jpg"), quality=88)


if __name__ == "__main__":
    main()
