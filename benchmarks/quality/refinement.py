"""Whether refined features (`--refine`) continue repeated structure in large images better than the network alone.

Three structures are drawn, a square in the middle is filled with and without refinement, and the filled pixels are
compared with the drawing. Usage: `python -m glama_deploy.benchmarks.quality.refinement [SIDE] [CHECKPOINT]`.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

import glama_deploy
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.refinement import Refiner

#: Side of the image in pixels.
DEFAULT_SIDE = 1024

#: Side of the hole as a share of the image's.
HOLE_SHARE = 1 / 4

#: Standard deviation of the noise on each structure, in levels of 255.
NOISE = 3


def draw_bricks(side: int) -> np.ndarray:
    """Draw a wall of bricks of 48×96 pixels.

    Args:
        side: height and width in pixels.

    Returns:
        float H×W×3, 0…255.
    """
    rows, columns = np.mgrid[:side, :side]
    course = rows // 48
    mortar = (rows % 48 < 5) | ((columns + course % 2 * 48) % 96 < 5)
    brick = np.stack([150 + 20 * np.sin(course), np.full(rows.shape, 70.0), np.full(rows.shape, 55.0)], axis=2)
    return np.where(mortar[..., None], [200.0, 195.0, 185.0], brick)


def draw_tiles(side: int) -> np.ndarray:
    """Draw a checkerboard of tiles of 64×64 pixels.

    Args:
        side: height and width in pixels.

    Returns:
        float H×W×3, 0…255.
    """
    rows, columns = np.mgrid[:side, :side]
    bright = (rows // 64 + columns // 64) % 2 == 1
    return np.where(bright[..., None], [220.0, 220.0, 215.0], [60.0, 65.0, 80.0])


def draw_waves(side: int) -> np.ndarray:
    """Draw slanting waves with a period of 126 pixels.

    Args:
        side: height and width in pixels.

    Returns:
        float H×W×3, 0…255.
    """
    rows, columns = np.mgrid[:side, :side]
    return np.repeat((128 + 90 * np.sin((columns + 0.4 * rows) / 20))[..., None], 3, axis=2)


def main(side: int = DEFAULT_SIDE, model: str = "default") -> None:
    """Print a line for each structure.

    Args:
        side: height and width of the images in pixels.
        model: the checkpoint.
    """
    plain, refiner = glama_deploy.load(model, "torch"), Refiner.open(model)
    first = round(side * (1 - HOLE_SHARE) / 2)
    mask = np.zeros((side, side), bool)
    mask[first : side - first, first : side - first] = True
    print(f"{side}x{side}, hole {side - 2 * first}x{side - 2 * first}, {model}, {refiner.description}")
    for draw in (draw_bricks, draw_tiles, draw_waves):
        noise = np.random.default_rng(0).normal(0, NOISE, (side, side, 3))
        image = (draw(side) + noise).clip(0, 255).astype(np.uint8)
        found = []
        for fill in (lambda *case: plain(*case, region="full"), refiner):
            start = time.perf_counter()
            filled = fill(image, mask)
            squares = np.square((filled[mask].astype(float) - image[mask]) / 255).mean()
            found.append((compute_psnr(float(squares)), time.perf_counter() - start))
        (before, plain_seconds), (after, seconds) = found
        print(
            f"{draw.__name__}: {before:.2f} dB in {plain_seconds:.1f} s, refined {after:.2f} dB in {seconds:.0f} s",
            flush=True,
        )
    if sys.platform != "win32":
        print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else DEFAULT_SIDE, given[1] if given[1:] else "default")
