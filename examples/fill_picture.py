"""Fill the holes of one picture.

    python examples/fill_picture.py [--model default] [--image photo.jpg] [--mask mask.png] [--out filled.png]

Without arguments the embedded network fills the sample photo.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import glama_deploy
from glama_deploy.errors import GlamaError
from glama_deploy.io.images import read_image, write_image
from glama_deploy.io.mask_files import read_mask

ASSETS = Path(glama_deploy.__file__).parent / "assets"

parser = argparse.ArgumentParser(description="Fill the holes of one picture.")
parser.add_argument("--model", default="default", help="a bundle, a checkpoint, or 'default'")
parser.add_argument("--image", type=Path, default=ASSETS / "sample.jpg")
parser.add_argument("--mask", type=Path, default=ASSETS / "sample_mask.png", help="white pixels are missing")
parser.add_argument("--out", type=Path, default=Path("filled.png"))
arguments = parser.parse_args()

try:
    picture = read_image(arguments.image)  # .rgb is uint8 [H, W, 3]
    missing = read_mask(arguments.mask)  # bool [H, W]; True where pixels are missing
    inpainter = glama_deploy.load(arguments.model)
    filled = inpainter(picture.rgb, missing)  # uint8 [H, W, 3]; known pixels are unchanged
    write_image(arguments.out, replace(picture, rgb=filled))
except GlamaError as error:  # what is wrong with the input, in one line
    parser.exit(2, f"{error}\n")
print(f"{arguments.out}: {missing.mean():.1%} filled with {inpainter.description}")
