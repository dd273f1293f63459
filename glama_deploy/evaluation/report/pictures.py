"""The pictures of an evaluation: a sheet of each dataset, and the spectra (the paper's Figure 3)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from glama_deploy.evaluation.metrics import spectrum
from glama_deploy.evaluation.protocol import Item, Protocol
from glama_deploy.evaluation.records import KNOWN, MASK, TRUTH, Folder
from glama_deploy.evaluation.report.summary import Summary

#: Larger pictures are shown smaller on a sheet.
_SIDE = 256

#: Of lines, so that one that lies on another is seen.
_STYLES = ("-", "--", ":", "-.")

#: What a difference of log amplitudes is shown as the brightest at: e² times too much or too little.
_BRIGHTEST = 2.0

#: Pixels per inch of a figure as a PNG file.
_FIGURE_DPI = 110


@dataclass(frozen=True)
class Shown:
    """An image with one mask: what is known (holes gray), the mask (missing pixels white), each method's result that
    there is, the truth; in this order, uint8 H×W×3, by name."""

    item: Item
    images: dict[str, np.ndarray]

    @property
    def results(self) -> dict[str, np.ndarray]:
        return {name: image for name, image in self.images.items() if name not in (KNOWN, MASK, TRUTH)}


@dataclass(frozen=True)
class Strip:
    """A row of a sheet: pictures no larger than its cells, by name, and what stands below them."""

    caption: str
    pictures: dict[str, Image.Image]


def shown(protocol: Protocol, items: Sequence[Item], folder: Folder) -> Iterator[Shown]:
    """Those of the items whose pictures were kept, read one after the other: they may be large."""
    results = ((str(n), method.label) for n, method in enumerate(protocol.methods))
    names = [(KNOWN, KNOWN), (MASK, MASK), *results, (TRUTH, TRUTH)]
    for item in items:
        if item.shown is None or not folder.picture(item, TRUTH).is_file():
            continue
        paths = {label: folder.picture(item, name) for name, label in names}
        yield Shown(item, {label: _read(path) for label, path in paths.items() if path.is_file()})


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def strip(row: Shown) -> Strip:
    """Large pictures are shown smaller."""
    return Strip(f"{row.item.image}, {row.item.shown}", {name: _fitted(image) for name, image in row.images.items()})


def sheet(rows: Sequence[Strip], labels: Sequence[str]) -> Image.Image:
    """A row for each image; columns: what is known, the mask, each method, the truth."""
    names = [KNOWN, MASK, *labels, TRUTH]
    heights = [max(cell.height for cell in row.pictures.values()) for row in rows]
    width = max(cell.width for row in rows for cell in row.pictures.values()) + 4
    picture = Image.new("RGB", (len(names) * width, 18 + sum(heights) + 20 * len(rows)), "white")
    pen, top = ImageDraw.Draw(picture), 18
    for column, name in enumerate(names):
        pen.text((column * width + 2, 2), name, fill="black", font_size=13)
    for row, height in zip(rows, heights, strict=True):
        for column, name in enumerate(names):
            if name in row.pictures:
                picture.paste(row.pictures[name], (column * width, top))
        pen.text((2, top + height + 1), row.caption, fill="black", font_size=12)
        top += height + 20
    return picture


def _fitted(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return picture


def spectra(row: Shown) -> Figure:
    """Log amplitudes of the truth and of each result, and under them how far each is from the truth's."""
    truth = spectrum.log_amplitudes(row.images[TRUTH])
    columns = {TRUTH: truth} | {name: spectrum.log_amplitudes(image) for name, image in row.results.items()}
    figure = Figure(figsize=(2.4 * len(columns), 5.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for column, (name, values) in enumerate(columns.items()):
        axes[0, column].imshow(values, cmap="gray", vmin=truth.min(), vmax=truth.max())
        axes[0, column].set_title(name, fontsize=9, parse_math=False)
        error = np.abs(values - truth)
        image = axes[1, column].imshow(error, cmap="magma", vmin=0, vmax=_BRIGHTEST)
        axes[1, column].set_title(f"|Δ| {error.mean():.3f}", fontsize=9)
        axes[1, column].set_visible(name != TRUTH)
        for axis in axes[:, column]:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(image, ax=axes[1, :], label="|Δ log amplitude|", shrink=0.8)
    figure.suptitle(f"{row.item.image}, {row.item.shown}", fontsize=10, parse_math=False)
    return figure


def rings(summary: Summary, dataset: str) -> Figure:
    """The whole image's error of the spectrum by frequency, a plot for each mask, a line for each method."""
    masks, labels = summary.protocol.masks, [method.label for method in summary.protocol.methods]
    columns = min(4, len(masks))
    rows = -(-len(masks) // columns)
    named = -(-len(labels) // columns)  # rows of the legend: a name is no wider than a plot
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows + 0.17 * named + 0.45), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    centres = (np.arange(spectrum.RINGS) + 0.5) / spectrum.RINGS * np.sqrt(0.5)
    for axis, mask in zip(axes, masks, strict=False):
        for ring in summary.rings:
            if (ring.dataset, ring.mask, ring.region) == (dataset, mask, "whole") and ring.errors:
                values = [np.nan if value is None else value for value in ring.errors]
                style = _STYLES[labels.index(ring.method) % len(_STYLES)]
                axis.plot(centres, values, style, label=ring.method.replace("$", r"\$"), linewidth=1.4)
        axis.set_title(mask, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[len(masks) :]:
        axis.set_axis_off()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(columns, max(1, len(names))), fontsize=8)
    figure.supxlabel("cycles a pixel", fontsize=9)
    figure.supylabel("|Δ log amplitude|, whole image", fontsize=9)
    return figure


def render_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_FIGURE_DPI)
    return file.getvalue()
