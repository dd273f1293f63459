"""How far each precision is from fp32, on photographs: PSNR of the missing pixels, and a sheet to look at.

    python benchmarks/quality/precisions.py --model BUNDLE [--photos benchmarks/photos] [--sizes 256 512] [--out FOLDER]

The bundle is one in int8, which has the fp32 graph, too. Each photograph's middle square, brought to each size, with
each of the seven masks, goes through OpenVINO in every precision that this CPU has, and through ONNX Runtime in int8.
PSNR (dB, peak 1) against fp32 on OpenVINO: of all missing pixels together, and the worst picture's. `--out` writes
precisions.md and, for a few pictures, sheet.png: what is known, fp32, int8, eight times their difference, the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import glama_deploy
from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import protocol
from glama_deploy.evaluation.protocol import Item
from glama_deploy.evaluation.records import KNOWN, MASK, TRUTH
from glama_deploy.evaluation.report.pictures import Shown, draw_sheet, make_strip
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io.files import atomic_file
from glama_deploy.masks import TYPES, by_name
from glama_deploy.psnr import compute_psnr

WAYS = (("openvino", "bf16"), ("openvino", "int8"), ("openvino", "int8+bf16"), ("onnxruntime:cpu", "int8"))

#: Rows of the sheet, and the name of one of its columns.
MAX_SHEET_ROWS, DIFFERENCE = 6, "difference x 8"


def load_ways(model: str) -> dict[str, Inpainter]:
    """Load the bundle in each precision that runs here.

    Args:
        model: the bundle.

    Returns:
        The inpainters by name, fp32 first.
    """
    found = {"fp32": glama_deploy.load(model, "openvino", "fp32", compile_sizes=True)}
    for backend, precision in WAYS:
        try:
            inpainter = glama_deploy.load(model, backend, precision, compile_sizes=True)
        except GlamaError as error:
            print(f"{backend} {precision}: not measured: {error}")
            continue
        if inpainter.precision == precision:
            found[f"{backend.partition(':')[0]} {precision}"] = inpainter
        else:
            print(f"{backend} {precision}: not measured: {inpainter.description}")
    return found


def make_shown(item: Item, truth: np.ndarray, missing: np.ndarray, found: dict[str, np.ndarray]) -> Shown:
    """Make a row of the sheet.

    Args:
        item: the photograph.
        truth: uint8 [H, W, 3].
        missing: bool [H, W].
        found: the predictions by name, float32 [H, W, 3] in 0…1.

    Returns:
        The images of fp32 and int8 in the hole, and their difference.
    """
    hole = missing[..., None]
    filled = {
        name: np.where(hole, found[way] * 255, truth).round().astype(np.uint8)
        for name, way in (("fp32", "fp32"), ("int8", "openvino int8"))
        if way in found
    }
    if "int8" in filled:
        difference = np.abs(filled["fp32"].astype(int) - filled["int8"]) * 8
        filled[DIFFERENCE] = difference.clip(0, 255).astype(np.uint8)
    mask = np.where(hole, np.uint8(255), np.zeros_like(truth))
    return Shown(item, {KNOWN: np.where(hole, np.uint8(128), truth), MASK: mask, **filled, TRUTH: truth})


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ways = load_ways(options.model)
    paths = list_photos(options.photos)
    console = Console(width=110)
    rows: list[Shown] = []
    text = ["| size | precision | PSNR against fp32 | worst picture |", "|---|---|---:|---:|"]
    table = Table("size", "precision", "PSNR against fp32", "worst picture")
    for size in options.sizes:
        errors: dict[str, list[float]] = {name: [] for name in ways if name != "fp32"}
        counts: list[int] = []
        for number, path in enumerate(track(paths, f"{size}×{size}", console=Console(stderr=True))):
            truth = protocol.read_truth(path, (size, size))
            for kind in TYPES:
                missing = by_name(kind)(size, size, np.random.default_rng(number))
                found = {name: inpainter.predict(truth, missing) for name, inpainter in ways.items()}
                counts.append(int(missing.sum()) * 3)
                for name, squares in errors.items():
                    squares.append(float(((found[name] - found["fp32"])[missing] ** 2).sum()))
                if size == options.sizes[0] and len(rows) < MAX_SHEET_ROWS and kind == list(TYPES)[number % len(TYPES)]:
                    item = Item(dataset="photos", folder=options.photos, image=path.name, shown=kind)
                    rows.append(make_shown(item, truth, missing, found))
        for name, squares in errors.items():
            worst = min(compute_psnr(s / c) for s, c in zip(squares, counts, strict=True))
            together = compute_psnr(sum(squares) / sum(counts))
            cells = (f"{size}×{size}", name, f"{together:.1f} dB", f"{worst:.1f} dB")
            table.add_row(*cells)
            text.append("| " + " | ".join(cells) + " |")
    console.print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        with atomic_file(options.out / "precisions.md") as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
        with atomic_file(options.out / "sheet.png") as temporary:
            draw_sheet([make_strip(row) for row in rows], ["fp32", "int8", DIFFERENCE]).save(temporary, format="png")


if __name__ == "__main__":
    main()
