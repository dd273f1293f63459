"""Filling a hole from a box around it against filling it from the whole image: quality and time, by context.

    python benchmarks/quality/boxes.py [--model default] [--photos benchmarks/photos] [--contexts 0.5 1 2]

Each photograph gets one hole of strokes somewhere, in a square of a quarter of its side (about 3 % of its pixels).
`context` is what a box shows on each side of the hole, as a share of the hole's longer side. PSNR of the missing pixels
(dB, mean over photographs) against the whole image's in the same run, and how much less time it takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import glama_deploy
from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.inpainting.boxes import Rule, Span
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io.images import read_image
from glama_deploy.masks import by_name
from glama_deploy.psnr import compute_mean_square, compute_psnr

HOLES_PER_PHOTO = 4


def draw_hole(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a hole of strokes in a square of a quarter of the shorter side.

    Args:
        height: height of the mask, in pixels.
        width: width of the mask, in pixels.
        rng: source of the position and the strokes.

    Returns:
        The mask, bool [H, W].
    """
    side = min(height, width) // 4
    mask = np.zeros((height, width), bool)
    top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
    mask[top : top + side, left : left + side] = by_name("ThickStrokes")(side, side, rng)
    return mask


def fill_spans(inpainter: Inpainter, image: np.ndarray, missing: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """Fill the hole in each span from that span alone.

    Args:
        inpainter: the network.
        image: uint8 [H, W, 3].
        missing: bool [H, W].
        spans: the parts of the image.

    Returns:
        The filled image, uint8 [H, W, 3].
    """
    result = image.copy()
    for span in spans:
        crop = np.ascontiguousarray(image[span.slices])
        here = missing[span.slices]
        result[span.slices][here] = inpainter(crop, here, region="full")[here]
    return result


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--contexts", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    options = parser.parse_args()
    inpainter = glama_deploy.load(options.model, options.backend)
    ways: list[str | float] = ["whole image", *options.contexts]
    psnr, seconds, shares = ({way: list[float]() for way in ways} for _ in range(3))
    rng = np.random.default_rng(0)
    for path in list_photos(options.photos):
        image = read_image(path).rgb
        for _ in range(HOLES_PER_PHOTO):
            missing = draw_hole(image.shape[0], image.shape[1], rng)
            for way in ways:
                spans = [Span(0, 0, *missing.shape)]
                if isinstance(way, float):
                    rule = Rule(ANY_SIZE, way)
                    boxes, _ = rule.find_boxes(missing)  # none is too large for such an engine
                    spans = [box.span for box in rule.merge_boxes(boxes, missing.shape)]
                fill_spans(inpainter, image, missing, spans)  # a size that is new warms up
                start = time.perf_counter()
                filled = fill_spans(inpainter, image, missing, spans)
                seconds[way].append(time.perf_counter() - start)
                shares[way].append(sum(h * w for h, w in (span.size for span in spans)) / missing.size)
                mean_square = compute_mean_square(filled[missing], image[missing])
                psnr[way].append(compute_psnr(max(mean_square, 1e-10)))
    table = Table("context", "pixels", "PSNR", "against the whole", "times as fast", title=inpainter.description)
    for way in ways:
        gains = [mine - whole for mine, whole in zip(psnr[way], psnr["whole image"], strict=True)]
        faster = [whole / mine for mine, whole in zip(seconds[way], seconds["whole image"], strict=True)]
        table.add_row(
            str(way),
            f"{statistics.mean(shares[way]):.0%}",
            f"{statistics.mean(psnr[way]):.2f} dB",
            f"{statistics.mean(gains):+.2f} dB",
            f"{statistics.median(faster):.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
