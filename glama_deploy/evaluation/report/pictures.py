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

#: Longer side of a picture on a sheet, in pixels; a larger picture is shrunk.
_MAX_SHEET_SIDE = 256

#: Styles of lines, by which lines that lie on each other are told apart.
_LINE_STYLES = ("-", "--", ":", "-.")

#: The difference of log amplitudes that is drawn brightest: e² times too much or too little.
_MAX_SHOWN_ERROR = 2.0

#: Pixels per inch of a figure as a PNG file.
_FIGURE_DPI = 110


@dataclass(frozen=True)
class Shown:
    """An image with one mask, as pictures.

    Attributes:
        item: the image.
        images: uint8 H×W×3 by name, in the order of the sheet: what is known (holes gray), the mask (missing pixels
            white), the result of each method that has one, the truth.
    """

    item: Item
    images: dict[str, np.ndarray]

    @property
    def results(self) -> dict[str, np.ndarray]:
        """The methods' results alone."""
        return {name: image for name, image in self.images.items() if name not in (KNOWN, MASK, TRUTH)}


@dataclass(frozen=True)
class Strip:
    """A row of a sheet: a caption, and pictures by name that fit the cells."""

    caption: str
    pictures: dict[str, Image.Image]


def read_shown(protocol: Protocol, items: Sequence[Item], folder: Folder) -> Iterator[Shown]:
    """Read the pictures of the images whose pictures were kept.

    Args:
        protocol: what was evaluated.
        items: the images.
        folder: the folder of the run.

    Yields:
        An image each. Pictures may be large, so an image is read when it is asked for.
    """
    results = ((str(n), method.label) for n, method in enumerate(protocol.methods))
    names = [(KNOWN, KNOWN), (MASK, MASK), *results, (TRUTH, TRUTH)]
    for item in items:
        if item.shown is None or not folder.picture_path(item, TRUTH).is_file():
            continue
        paths = {label: folder.picture_path(item, name) for name, label in names}
        yield Shown(item, {label: _read_picture(path) for label, path in paths.items() if path.is_file()})


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def make_strip(row: Shown) -> Strip:
    """Make the row of a sheet for an image.

    Args:
        row: the image.

    Returns:
        The row, with large pictures shrunk.
    """
    return Strip(f"{row.item.name}, {row.item.shown}", {name: _shrink(image) for name, image in row.images.items()})


def draw_sheet(rows: Sequence[Strip], labels: Sequence[str]) -> Image.Image:
    """Draw a row for each image.

    Args:
        rows: the rows, at least one.
        labels: the methods, in the order of their columns.

    Returns:
        A picture with columns for what is known, the mask, each method and the truth.
    """
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


def _shrink(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((_MAX_SHEET_SIDE, _MAX_SHEET_SIDE), Image.Resampling.LANCZOS)
    return picture


def draw_spectra(row: Shown) -> Figure:
    """Draw the log amplitudes of the truth and of each result, and below them the difference from the truth's.

    Args:
        row: the image.

    Returns:
        The figure.
    """
    truth = spectrum.compute_log_amplitudes(row.images[TRUTH])
    columns = {TRUTH: truth} | {name: spectrum.compute_log_amplitudes(image) for name, image in row.results.items()}
    figure = Figure(figsize=(2.4 * len(columns), 5.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for column, (name, values) in enumerate(columns.items()):
        axes[0, column].imshow(values, cmap="gray", vmin=truth.min(), vmax=truth.max())
        axes[0, column].set_title(name, fontsize=9, parse_math=False)
        error = np.abs(values - truth)
        image = axes[1, column].imshow(error, cmap="magma", vmin=0, vmax=_MAX_SHOWN_ERROR)
        axes[1, column].set_title(f"|Δ| {error.mean():.3f}", fontsize=9)
        axes[1, column].set_visible(name != TRUTH)
        for axis in axes[:, column]:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(image, ax=axes[1, :], label="|Δ log amplitude|", shrink=0.8)
    figure.suptitle(f"{row.item.name}, {row.item.shown}", fontsize=10, parse_math=False)
    return figure


def draw_rings(summary: Summary, dataset: str) -> Figure:
    """Draw the error of the whole image's spectrum by frequency.

    Args:
        summary: the results.
        dataset: the name of the dataset.

    Returns:
        A plot for each mask, with a line for each method.
    """
    masks, labels = summary.protocol.masks, [method.label for method in summary.protocol.methods]
    columns = min(4, len(masks))
    rows = -(-len(masks) // columns)
    named = -(-len(labels) // columns)  # rows of the legend: a name is no wider than a plot
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows + 0.17 * named + 0.45), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    centres = (np.arange(spectrum.RING_COUNT) + 0.5) / spectrum.RING_COUNT * np.sqrt(0.5)
    for axis, mask in zip(axes, masks, strict=False):
        for ring in summary.rings:
            if (ring.dataset, ring.mask, ring.region) == (dataset, mask, "whole") and ring.errors:
                values = [np.nan if value is None else value for value in ring.errors]
                style = _LINE_STYLES[labels.index(ring.method) % len(_LINE_STYLES)]
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
    """Render a figure.

    Args:
        figure: the figure.

    Returns:
        A PNG file.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_FIGURE_DPI)
    return file.getvalue()
