"""Filling a hole from a box around it: quality, by the context that the box shows.

    python benchmarks/quality/boxes.py [--photos FOLDER] [--kinds object strip] [--contexts 0.5:64:9999 0.5:64:128:8]
        [--against whole]

A context is SHARE:LEAST:MOST[:GRID]. The box shows that share of the hole's longer side on each side of the hole,
within the bounds in pixels. With a grid of 8, its edges are multiples of 8 pixels of the photograph, as far as it goes.
Each photograph gets holes at random places: ellipses of 100 to 360 pixels, and strips of 50 to 120 rows and 350 to 600
columns, as far as the photograph goes. Sizes and places vary, because the place of a hole in its box matters to a
network that reduces the picture. PSNR of the missing pixels (dB, mean over holes), and the gain over the first context,
with the standard error of the mean. The reference is the photograph, or the whole photograph as the network fills it.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import glama_deploy
from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io.images import read_image
from glama_deploy.network import next_side
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: The least and greatest height and width of holes in pixels, by their kind.
HOLE_SIDES = {"object": ((100, 360), (100, 360)), "strip": ((50, 120), (350, 600))}

#: The mean square below which a filled hole counts as equal.
LEAST_MEAN_SQUARE = 1e-7


@dataclass(frozen=True)
class Context:
    """What a box shows on each side of a hole.

    Attributes:
        share: share of the hole's longer side.
        least: at least these pixels.
        most: at most these pixels.
        grid: the box's edges are multiples of these pixels.
    """

    share: float
    least: int
    most: int
    grid: int = 1

    @classmethod
    def parse(cls, text: str) -> Context:
        """Parse SHARE:LEAST:MOST[:GRID].

        Args:
            text: the text.

        Returns:
            The context.
        """
        share, *pixels = text.split(":")
        return cls(float(share), *map(int, pixels))

    def find_box(self, hole: Span, shape: tuple[int, int]) -> Span:
        """Return the box of a hole.

        Args:
            hole: the hole.
            shape: height and width of the image in pixels.

        Returns:
            The box. Its sides are multiples of 8, or those of the image. With a grid of 8 its edges are multiples of 8,
            or those of the image.
        """
        need = hole.grown(min(self.most, max(self.least, round(self.share * max(hole.size)))))
        edges = (need.top, need.left, need.bottom, need.right)
        need = Span(*((edge + self.grid // 2) // self.grid * self.grid for edge in edges))
        high, wide = (min(next_side(side), extent) for side, extent in zip(need.size, shape, strict=True))
        top = min(max(0, (need.top + need.bottom - high) // 2), shape[0] - high)
        left = min(max(0, (need.left + need.right - wide) // 2), shape[1] - wide)
        return Span(top, left, top + high, left + wide)


def draw_hole(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, Span]:
    """Draw a hole at a random place.

    Args:
        kind: one of HOLE_SIDES: an ellipse for `object`, a rectangle for `strip`.
        shape: height and width of the mask, in pixels.
        rng: source of the size and the place.

    Returns:
        The mask, bool [H, W], and the hole's bounding box.
    """
    sides = (int(rng.integers(least, most + 1)) for least, most in HOLE_SIDES[kind])
    high, wide = (min(side, 3 * extent // 4) for side, extent in zip(sides, shape, strict=True))
    top, left = int(rng.integers(shape[0] - high + 1)), int(rng.integers(shape[1] - wide + 1))
    mask, hole = np.zeros(shape, bool), Span(top, left, top + high, left + wide)
    mask[hole.slices] = True
    if kind == "object":
        rows, columns = np.ogrid[:high, :wide]
        mask[hole.slices] = ((rows + 0.5) / high * 2 - 1) ** 2 + ((columns + 0.5) / wide * 2 - 1) ** 2 <= 1
    return mask, hole


def measure_error(
    inpainter: Inpainter, image: np.ndarray, missing: np.ndarray, box: Span, reference: np.ndarray
) -> float:
    """Fill the missing pixels of a box from the box alone.

    Args:
        inpainter: the network.
        image: uint8 [H, W, 3].
        missing: bool [H, W].
        box: the part of the image that the network is shown.
        reference: what the missing pixels should be, uint8 [H, W, 3].

    Returns:
        The mean square of the error of the missing pixels, from 0 to 1.
    """
    crop, here = np.ascontiguousarray(image[box.slices]), missing[box.slices]
    return compute_mean_square(inpainter(crop, here, region="full")[here], reference[box.slices][here])


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--holes", type=int, default=1, help="holes of each kind in each photograph")
    parser.add_argument("--kinds", nargs="+", choices=HOLE_SIDES, default=list(HOLE_SIDES))
    contexts = ["0.5:64:9999", "0.5:64:128", "0.33:64:9999", "0:64:64"]
    parser.add_argument("--contexts", type=Context.parse, nargs="+", default=[*map(Context.parse, contexts)])
    parser.add_argument("--against", choices=("photograph", "whole"), default="photograph", help="the reference")
    options = parser.parse_args()
    inpainter = glama_deploy.load(options.model, options.backend, compile_sizes=False)
    rng = np.random.default_rng(0)
    table = Table("holes", "share", "least", "most", "grid", "pixels", "PSNR", "gain", title=inpainter.description)
    errors: dict[tuple[str, Context], list[float]] = {}
    pixels: dict[tuple[str, Context], list[int]] = {}
    for path in list_photos(options.photos):
        image = read_image(path).rgb
        shape = image.shape[0], image.shape[1]
        for kind in options.kinds * options.holes:
            missing, hole = draw_hole(kind, shape, rng)
            reference = image if options.against == "photograph" else inpainter(image, missing, region="full")
            for context in options.contexts:
                box = context.find_box(hole, shape)
                error = measure_error(inpainter, image, missing, box, reference)
                errors.setdefault((kind, context), []).append(max(error, LEAST_MEAN_SQUARE))
                pixels.setdefault((kind, context), []).append(box.size[0] * box.size[1])
    for kind in options.kinds:
        first = [compute_psnr(error) for error in errors[kind, options.contexts[0]]]
        for context in options.contexts:
            found = [compute_psnr(error) for error in errors[kind, context]]
            gains = [mine - its for mine, its in zip(found, first, strict=True)]
            deviation = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            table.add_row(
                f"{len(found)} {kind}",
                f"{context.share:g}",
                str(context.least),
                str(context.most),
                str(context.grid),
                f"{statistics.mean(pixels[kind, context]):,.0f}",
                f"{statistics.mean(found):.2f} dB",
                f"{statistics.mean(gains):+.2f} ± {deviation:.2f} dB",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
