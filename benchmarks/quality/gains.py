"""What networks gain over classical inpainting by the kind of hole, on photographs that they were not trained on.

    python benchmarks/quality/gains.py [--model default]... [--photos FOLDER] [--side 256] [--out FOLDER]

Each photograph's middle square is scaled to the side. Lines and grids have every phase: an even and an odd first
column, an even and an odd first row, all first pixels of the grid. PSNR of the missing pixels is compared with the
better of OpenCV's Telea and Navier–Stokes, each with the mean of its photographs. `wins` is the number of photographs
on which the network is above both.

Inside wide holes, farther than WIDE_DISTANCE pixels from any known pixel, the texture counts: the metric `lpips-proxy`
and the spectrum error of these pixels. `--out` writes a sheet of pictures for each kind of hole.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.evaluation.methods import Method, open_method, parse_methods
from glama_deploy.evaluation.metrics.proxy import measure_lpips_proxy
from glama_deploy.evaluation.metrics.spectrum import compute_errors_within
from glama_deploy.evaluation.protocol import cut_middle
from glama_deploy.io.files import atomic_file
from glama_deploy.io.images import read_image
from glama_deploy.masks import Mask, by_name
from glama_deploy.masks.fixed import EveryNLines, NearestNeighbor
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: The methods that networks are compared with.
CLASSICAL = ("telea", "navier-stokes")

#: Distance in pixels from the nearest known pixel, beyond which a missing pixel is inside a wide hole.
WIDE_DISTANCE = 6

#: Masks by the kind of hole. The columns, rows and first pixels of a kind are averaged.
KINDS: dict[str, tuple[Mask, ...]] = {
    "even lines": (EveryNLines(2, "vertical", 0), EveryNLines(2, "horizontal", 0)),
    "odd lines": (EveryNLines(2, "vertical", 1), EveryNLines(2, "horizontal", 1)),
    "grid, first pixel": (NearestNeighbor(4),),
    "grid, any pixel": tuple(NearestNeighbor(4, (row, column)) for row in range(4) for column in range(4)),
    **{name: (by_name(name),) for name in ("ThinStrokes", "MediumStrokes", "ThickStrokes", "Completion", "Expand")},
}

#: Kinds with wide holes.
WIDE = ("MediumStrokes", "ThickStrokes", "Completion", "Expand")


@dataclass(frozen=True)
class Figures:
    """Figures of one picture, or means.

    Attributes:
        psnr: PSNR of the missing pixels in dB.
        proxy: `lpips-proxy` inside wide holes; NaN without one.
        spectrum: spectrum error inside wide holes; NaN without one.
    """

    psnr: float
    proxy: float = float("nan")
    spectrum: float = float("nan")


def find_deep(missing: np.ndarray) -> np.ndarray:
    """Find the pixels inside wide holes.

    Args:
        missing: bool H×W.

    Returns:
        bool H×W, the missing pixels farther than WIDE_DISTANCE from any known pixel.
    """
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(missing) > WIDE_DISTANCE


def measure(found: np.ndarray, truth: np.ndarray, missing: np.ndarray, *, wide: bool) -> Figures:
    """Measure a filled picture.

    Args:
        found: uint8 H×W×3.
        truth: uint8 H×W×3.
        missing: bool H×W.
        wide: measure the texture inside wide holes, too.

    Returns:
        The figures.
    """
    psnr = compute_psnr(compute_mean_square(found[missing], truth[missing]))
    deep = find_deep(missing) if wide else np.zeros_like(missing)
    if not deep.any():
        return Figures(psnr)
    inside = np.where(deep[..., None], found, truth)  # only the texture inside the hole differs
    proxy = measure_lpips_proxy(inside, truth, deep).missing
    return Figures(psnr, proxy, float(compute_errors_within(inside, truth, deep).mean()))


def average(figures: list[Figures]) -> Figures:
    """Average figures, each over the pictures that have the figure.

    Args:
        figures: figures of pictures.

    Returns:
        The means; NaN where no picture has the figure.
    """
    proxies = [each.proxy for each in figures if each.proxy == each.proxy]
    spectra = [each.spectrum for each in figures if each.spectrum == each.spectrum]
    return Figures(
        float(np.mean([each.psnr for each in figures])),
        float(np.mean(proxies)) if proxies else float("nan"),
        float(np.mean(spectra)) if spectra else float("nan"),
    )


def measure_kind(
    kind: str, methods: list[Method], squares: list[np.ndarray], seed: int, sheet: Path | None
) -> dict[str, list[Figures]]:
    """Measure all methods on one kind of hole.

    Args:
        kind: a key of KINDS.
        methods: the methods.
        squares: the photographs, uint8 side×side×3.
        seed: seed of the masks.
        sheet: gets a sheet of pictures: hole, each method, truth. None writes no sheet.

    Returns:
        For each method a mean for each photograph.
    """
    found: dict[str, list[Figures]] = defaultdict(list)
    rows: list[np.ndarray] = []
    for index, truth in enumerate(squares):
        of_photo: dict[str, list[Figures]] = defaultdict(list)
        height, width = truth.shape[:2]
        for number, mask in enumerate(KINDS[kind]):
            missing = mask(height, width, np.random.default_rng([seed, index]))
            # OpenCV's methods let missing pixels through, so these are black, as in glama-eval
            given = np.where(missing[..., None], np.uint8(0), truth)
            row = [np.where(missing[..., None], np.uint8(128), truth)]
            for method in methods:
                assert method.fill is not None  # only results of other programs have none
                filled = np.where(missing[..., None], method.fill(given, missing), truth)
                of_photo[method.spec.label].append(measure(filled, truth, missing, wide=kind in WIDE))
                row.append(filled)
            if number == 0:
                rows.append(np.concatenate([*row, truth], axis=1))
        for label, figures in of_photo.items():
            found[label].append(average(figures))
    if sheet is not None:
        with atomic_file(sheet) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")
    return found


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="as glama-eval takes it; may be repeated")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the strokes")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="may be repeated; all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    specs = parse_methods([*CLASSICAL, *(options.model or ["default"])], ["auto"], ["fp32"])
    methods = [open_method(spec, threads=1) for spec in specs]
    networks = [method.spec.label for method in methods if not method.spec.baseline]
    squares = [cut_middle(read_image(path).rgb, (options.side, options.side)) for path in list_photos(options.photos)]
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"{len(squares)} photographs, {options.side}×{options.side}, missing pixels")
    for column in ("holes", "method", "PSNR", "gain in dB", "wins", "lpips-proxy inside", "spectrum error inside"):
        table.add_column(column, justify="left" if column in ("holes", "method") else "right")
    for kind in options.kind or KINDS:
        sheet = None if options.out is None else options.out / f"{kind.replace(', ', '-').replace(' ', '-')}.png"
        found = measure_kind(kind, methods, squares, options.seed, sheet)
        best = max(average(found[label]).psnr for label in CLASSICAL)
        for label, figures in found.items():
            mean = average(figures)
            gain = wins = ""
            if label in networks:
                rivals = zip(*(found[each] for each in CLASSICAL), strict=True)
                above = sum(own.psnr > max(r.psnr for r in pair) for own, pair in zip(figures, rivals, strict=True))
                gain, wins = f"{mean.psnr - best:+.2f}", f"{above} of {len(figures)}"
            texture = (f"{mean.proxy:.4f}", f"{mean.spectrum:.3f}") if kind in WIDE else ("", "")
            table.add_row(kind, label, f"{mean.psnr:.2f}", gain, wins, *texture)
        table.add_section()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
