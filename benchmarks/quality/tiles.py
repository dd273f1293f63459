"""Filling a hole by tiles against filling it at once: quality and time, with the draft under the tiles and without.

    python benchmarks/quality/tiles.py [--model default] [--photos benchmarks/photos] [--tiles 128 256] [--out FOLDER]

Each photograph has one square hole in the middle, 0.6 of its side wide. PSNR (dB, mean over photographs) of the missing
pixels against what was there, and against the same hole filled at once. `--out` writes sheet.png.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import glama_deploy
from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.bundle import SizeRange
from glama_deploy.evaluation.protocol import Item
from glama_deploy.evaluation.report.pictures import Shown, draw_sheet, make_strip
from glama_deploy.inpainting import tiles
from glama_deploy.io.files import atomic_file
from glama_deploy.io.images import read_image
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: Side of the hole, as a share of the smaller side; photographs on the sheet.
HOLE, SHOWN = 0.6, 5


@contextmanager
def without_draft() -> Iterator[None]:
    """Disable the draft under the tiles: a tile sees only known pixels and other tiles.

    Yields:
        Nothing.
    """
    draft, far = tiles._make_draft, tiles._find_drafted
    tiles._make_draft = lambda image, missing, size, run: np.where(missing[..., None], np.uint8(0), image)
    tiles._find_drafted = lambda missing, side: np.zeros_like(missing)
    try:
        yield
    finally:
        tiles._make_draft, tiles._find_drafted = draft, far


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--tiles", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logging.getLogger("glama_deploy").setLevel(logging.ERROR)  # a note for each hole
    inpainter = glama_deploy.load(options.model, options.backend)
    ways: dict[str, SizeRange] = {"at once": inpainter._runner.sizes}
    for side in options.tiles:
        ways[f"tiles of {side}"] = ways[f"tiles of {side}, no draft"] = SizeRange(
            min=(side, side), opt=(side, side), max=(side, side)
        )
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    rows: list[Shown] = []
    for path in list_photos(options.photos):
        truth = read_image(path).rgb
        missing = np.zeros(truth.shape[:2], bool)
        half = int(min(missing.shape) * HOLE / 2)
        middle = tuple(slice(side // 2 - half, side // 2 + half) for side in truth.shape[:2])
        missing[middle] = True
        results: dict[str, np.ndarray] = {}
        for name, sizes in ways.items():
            inpainter._runner.sizes = sizes
            start = time.perf_counter()
            if "no draft" in name:
                with without_draft():
                    results[name] = inpainter(truth, missing)
            else:
                results[name] = inpainter(truth, missing, region="full" if name == "at once" else "auto")
            took = time.perf_counter() - start
            here = results[name][missing]
            against = (truth[missing], results["at once"][missing])
            quality, nearness = (compute_psnr(compute_mean_square(here, there)) for there in against)
            found[name].append((quality, nearness, took))
        if len(rows) < SHOWN:
            item = Item(dataset="photos", folder=options.photos, image=path.name, shown="a square hole")
            known = np.where(missing[..., None], np.uint8(128), truth)
            rows.append(Shown(item, {"known": known, **results, "truth": truth}))
    table = Table("way", "PSNR", "PSNR against at once", "time")
    base = statistics.median(took for _, _, took in found["at once"])
    for name, values in found.items():
        qualities, nearnesses, times = (list(column) for column in zip(*values, strict=True))
        ratio = statistics.median(times) / base
        table.add_row(name, f"{statistics.fmean(qualities):.2f}", f"{statistics.fmean(nearnesses):.1f}", f"{ratio:.2f}")
    Console(width=110).print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        with atomic_file(options.out / "sheet.png") as temporary:
            draw_sheet([make_strip(row) for row in rows], list(ways)).save(temporary, format="PNG")


if __name__ == "__main__":
    main()
