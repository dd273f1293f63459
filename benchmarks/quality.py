"""What a network fills holes with, against classical inpainting, on photographs that it was not trained on.

    python benchmarks/quality.py [--model default] [--photos benchmarks/photos] [--sizes 256 512] [--out quality]

Every photograph's middle square, brought to each size, with each of the seven masks (seed: the photograph's number).
Telea and Navier–Stokes are OpenCV's (radius 3); interpolation is linear between the known pixels (SciPy, on Delaunay
triangles; the nearest known pixel outside of them). PSNR (dB, peak 1) and SSIM of the missing pixels and of the whole
image, on 8-bit results, averaged over photographs. Writes OUT/quality.md and, of a few photographs at each size, the
pictures OUT/sheet-SIZE.png.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from torchmetrics.functional.image import structural_similarity_index_measure

import glama_deploy
from glama_deploy.images import SUFFIXES, read_image
from glama_deploy.masks import TYPES, by_name

PHOTOS = Path(__file__).parent / "photos"

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Score:
    """PSNR (dB) and SSIM of the missing pixels, then of the whole image."""

    psnr: float
    ssim: float
    psnr_whole: float
    ssim_whole: float


@dataclass(frozen=True)
class Case:
    """A square photograph, uint8 S×S×3, and a mask of one kind, bool S×S."""

    photo: str
    kind: str
    truth: np.ndarray
    missing: np.ndarray


def telea(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return cv2.inpaint(image, missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return cv2.inpaint(image, missing.astype(np.uint8), 3, cv2.INPAINT_NS)


def interpolation(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Linear between the known pixels up to two from the hole (so never all on one line); outside, the nearest."""
    edge = cv2.dilate(missing.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~missing
    places, values, wanted = np.argwhere(edge), image[edge].astype(np.float64), np.argwhere(missing)
    found = LinearNDInterpolator(places, values)(wanted)
    outside = np.isnan(found[:, 0])
    if outside.any():
        found[outside] = NearestNDInterpolator(places, values)(wanted[outside])
    result = image.copy()
    result[missing] = np.rint(found).clip(0, 255).astype(np.uint8)
    return result


def square(path: Path, side: int) -> np.ndarray:
    """The middle square of a photograph at this side, uint8 S×S×3."""
    rgb = Image.fromarray(read_image(path).rgb)
    least = min(rgb.size)
    left, top = ((extent - least) // 2 for extent in rgb.size)
    box = (left, top, left + least, top + least)
    return np.asarray(rgb.resize((side, side), Image.Resampling.LANCZOS, box))


def score(found: np.ndarray, case: Case) -> Score:
    error = ((found.astype(np.float64) - case.truth) / 255) ** 2
    pair = [torch.from_numpy(array / np.float32(255)).permute(2, 0, 1)[None] for array in (found, case.truth)]
    whole, map_ = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    within = map_[0].mean(0).numpy()[case.missing]
    psnrs = [-10 * math.log10(max(float(part.mean()), 1e-10)) for part in (error[case.missing], error)]
    return Score(psnrs[0], float(within.mean()), psnrs[1], float(whole))


def tables(console: Console, scores: dict[tuple[int, str, str], list[Score]], sizes: list[int]) -> str:
    """Print two tables for each size; the same as Markdown."""
    names = list(dict.fromkeys(method for _, _, method in scores))
    text: list[str] = []
    for side, (region, fields) in itertools.product(sizes, REGIONS.items()):
        count = len(scores[side, next(iter(TYPES)), names[0]])
        title = f"{side}×{side}, {count} photographs: PSNR / SSIM of {region}"
        table = Table("mask", *names, title=title)
        text += [f"{title}\n", "| mask | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for kind in TYPES:
            psnr, ssim = ([np.mean([getattr(s, f) for s in scores[side, kind, n]]) for n in names] for f in fields)
            cells = [(f"{p:.2f} / {q:.3f}", p == max(psnr)) for p, q in zip(psnr, ssim, strict=True)]
            table.add_row(kind, *(f"[bold]{cell}[/]" if best else cell for cell, best in cells))
            text.append(f"| {kind} | " + " | ".join(f"**{cell}**" if best else cell for cell, best in cells) + " |")
        console.print(table)
        text.append("")
    return "\n".join(text)


#: Fields of a score by the region that they are of.
REGIONS = {"the missing pixels": ("psnr", "ssim"), "the whole image": ("psnr_whole", "ssim_whole")}


def sheet(rows: list[tuple[Case, dict[str, np.ndarray]]]) -> Image.Image:
    """A row for each case: what is known, what each method makes of it, the truth."""
    side, names = rows[0][0].truth.shape[0], ["missing", *rows[0][1], "truth"]
    picture = Image.new("RGB", (len(names) * (side + 4), 18 + len(rows) * (side + 4)), "white")
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(names):
        pen.text((column * (side + 4) + 4, 2), name, fill="black", font_size=13)
    for row, (case, results) in enumerate(rows):
        holes = np.where(case.missing[..., None], np.uint8(128), case.truth)
        for column, image in enumerate([holes, *results.values(), case.truth]):
            picture.paste(Image.fromarray(image), (column * (side + 4), 18 + row * (side + 4)))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="a bundle, a checkpoint or 'default'")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--out", type=Path, default=Path("quality"))
    options = parser.parse_args()
    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{options.photos} has no photographs")
    network = glama_deploy.load(options.model)
    methods: dict[str, Method] = {
        "Telea": telea,
        "Navier-Stokes": navier_stokes,
        "interpolation": interpolation,
        Path(options.model).stem: lambda image, missing: network(image, missing, region="full"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    scores: dict[tuple[int, str, str], list[Score]] = {}
    for side in options.sizes:
        shown: list[tuple[Case, dict[str, np.ndarray]]] = []
        for number, path in enumerate(track(paths, f"{side}×{side}")):
            truth = square(path, side)
            for index, kind in enumerate(TYPES):
                case = Case(path.stem, kind, truth, by_name(kind)(side, side, np.random.default_rng(number)))
                results = {name: method(truth, case.missing) for name, method in methods.items()}
                for name, found in results.items():
                    scores.setdefault((side, kind, name), []).append(score(found, case))
                if index == number % len(TYPES) and number < 2 * len(TYPES):
                    shown.append((case, results))
        shown.sort(key=lambda row: list(TYPES).index(row[0].kind))
        sheet(shown).save(options.out / f"sheet-{side}.png")
    text = tables(Console(), scores, options.sizes)
    (options.out / "quality.md").write_text(text)
    print(f"{options.out / 'quality.md'}; pictures beside it")


if __name__ == "__main__":
    main()
