"""The figures as tables in the paper's layout, datasets × methods × masks: for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from glama_deploy.evaluation.metrics.pairs import REGIONS, Region
from glama_deploy.evaluation.metrics.registry import METRICS, Metric
from glama_deploy.evaluation.report.summary import Cell, Statistic, Summary
from glama_deploy.text.escapes import escape_controls

#: Texts of a cell without a result, and of a method or metric that cannot be computed here.
NO_RESULT, NOT_COMPUTED = "–", "not computed"

#: The column of the mean over masks, behind the masks' own.
MEAN = "mean"


@dataclass(frozen=True)
class Entry:
    """A cell as text, the number that it is sorted by, and whether it is the best of its dataset and mask."""

    text: str
    number: float | None
    best: bool


@dataclass(frozen=True)
class Table:
    """A metric of a region: a row for each dataset and method, a column for each mask and one for the masks' mean.

    Attributes:
        title: with the metric, the region and the direction.
        metric: the record.
        region: the pixels that the values are of.
        columns: the names of the masks, and MEAN if there are several.
        rows: dataset, method and cells. No rows where the metric is not computed.
        reason: why the metric is not computed.
    """

    title: str
    metric: Metric
    region: Region
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Entry, ...]], ...]
    reason: str = ""


def make_tables(summary: Summary) -> Iterator[Table]:
    """Make a table for each metric and region, each followed by the changes against the reference, if any.

    Args:
        summary: the results.

    Yields:
        The tables, those of metrics that are not computed last.
    """
    for name in summary.protocol.metrics:
        metric = METRICS[name]
        for region in REGIONS:
            of = f"{metric.label}, {'missing pixels' if region == 'missing' else 'whole image'}"
            better = "more" if metric.higher_is_better else "less"
            yield _make_table(summary, metric, region, f"{of} ({better} is better)", change=False)
            if summary.reference is not None and len(summary.protocol.methods) > 1:
                yield _make_table(summary, metric, region, f"{of}: change against {summary.reference}", change=True)
    for name, reason in summary.lacking.items():
        metric = METRICS[name]
        yield Table(f"{metric.label}: {NOT_COMPUTED}", metric, "whole", (), (), reason)


def _make_table(summary: Summary, metric: Metric, region: Region, title: str, *, change: bool) -> Table:
    masks = summary.protocol.masks
    columns = (*masks, MEAN) if len(masks) > 1 else masks
    rows = []
    for dataset in summary.protocol.datasets:
        labels = [m.label for m in summary.protocol.methods if not (change and m.label == summary.reference)]
        cells = {
            label: [summary.cell(dataset.name, label, mask, metric.name, region) for mask in masks] for label in labels
        }
        means = {label: _average(summary, cells[label], change=change) for label in labels}
        for label in labels:
            entries = [_make_entry(summary, cell, change=change) for cell in cells[label]]
            if len(masks) > 1:
                entries.append(_make_mean_entry(metric, label, means, change=change))
            rows.append((dataset.name, label, tuple(entries)))
        nothing = Entry(NOT_COMPUTED, None, best=False)
        rows += [(dataset.name, label, (nothing,) * len(columns)) for label in summary.refused]
    return Table(title, metric, region, columns, tuple(rows))


def _average(summary: Summary, cells: Sequence[Cell | None], *, change: bool) -> float | None:
    """Return the mean over masks of values or changes; None where a mask lacks images."""
    shown = [None if cell is None else cell.change if change else cell.value for cell in cells]
    sizes = [None if cell is None else summary.images[cell.dataset] for cell in cells]
    means = [each.mean for each, size in zip(shown, sizes, strict=True) if each is not None and each.n == size]
    return sum(means) / len(cells) if len(means) == len(cells) else None


def _make_mean_entry(metric: Metric, label: str, means: dict[str, float | None], *, change: bool) -> Entry:
    mean = means[label]
    if mean is None:
        return Entry(NO_RESULT, None, best=False)
    others = [round(value, metric.decimals) for value in means.values() if value is not None]
    best = (max if metric.higher_is_better else min)(others) == round(mean, metric.decimals)
    text = _format_number(mean, metric.decimals, signed=change)
    return Entry(text, mean, best=best and not change and len(others) > 1)


def _make_entry(summary: Summary, cell: Cell | None, *, change: bool) -> Entry:
    shown = None if cell is None else cell.change if change else cell.value
    if cell is None or shown is None:
        return Entry(NO_RESULT, None, best=False)
    decimals = METRICS[cell.metric].decimals
    text = _format_number(shown.mean, decimals, signed=change)
    if shown.low is not None and shown.high is not None:
        text += (
            " [" + ", ".join(_format_number(bound, decimals, signed=change) for bound in (shown.low, shown.high)) + "]"
        )
    if shown.n < summary.images[cell.dataset]:
        text += f" ({shown.n} of {summary.images[cell.dataset]} images)"
    return Entry(text, shown.mean, best=not change and _is_best(summary, cell))


def _format_number(value: float, decimals: int, *, signed: bool) -> str:
    rounded = round(value, decimals)
    if rounded == 0:  # of either sign
        return f"{0:.{decimals}f}"
    return f"{rounded:{'+' if signed else ''}.{decimals}f}"


def _is_best(summary: Summary, cell: Cell) -> bool:
    """Return whether no method has a mean that reads better. A method of fewer images than another is never best."""
    metric = METRICS[cell.metric]
    labels = (method.label for method in summary.protocol.methods)
    found = (summary.cell(cell.dataset, label, cell.mask, cell.metric, cell.region) for label in labels)
    beside = [other.value for other in found if other is not None]
    most = max(value.n for value in beside)
    means = [round(value.mean, metric.decimals) for value in beside if value.n == most]
    better = max if metric.higher_is_better else min
    return cell.value.n == most and len(means) > 1 and round(cell.value.mean, metric.decimals) == better(means)


def print_tables(console: Console, summary: Summary) -> None:
    """Print the means of each metric's usual region. The files have all others.

    Args:
        console: where to print.
        summary: the results.
    """
    first = ["dataset", "method"] if len(summary.protocol.datasets) > 1 else ["method"]
    for table in make_tables(summary):
        if not table.rows or table.region != table.metric.region:
            continue
        shown = RichTable(*first, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # 80 columns or so
        for column in table.columns:
            shown.add_column(Text(re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", column)), justify="right")
        for dataset, method, entries in table.rows:
            texts = (entry.text.partition(" [")[0] for entry in entries)
            cells = (Text(text, "bold" if e.best else "") for text, e in zip(texts, entries, strict=True))
            names = (Text(escape_controls(name)) for name in (dataset, method)[-len(first) :])
            shown.add_row(*names, *cells)
        console.print(Text(escape_controls(table.title), "italic"))
        console.print(shown)


def describe_images(summary: Summary) -> str:
    """Describe what the means are over.

    Args:
        summary: the results.

    Returns:
        The number of images of each dataset, or of pairs of image and mask where masks are given.
    """
    one, many = ("image", "images") if summary.protocol.given is None else ("mask of an image", "masks of images")
    return ", ".join(f"{count} {one if count == 1 else many} of {name}" for name, count in summary.images.items())


def describe_masks(summary: Summary) -> str:
    """Describe where the masks come from.

    Args:
        summary: the results.

    Returns:
        The seed, or the folder of given masks.
    """
    given = summary.protocol.given
    return f"masks of seed {summary.protocol.seed}" if given is None else f"masks of the folder {given.folder}"


def format_markdown(summary: Summary) -> str:
    """Format the evaluation as Markdown.

    Args:
        summary: the results.

    Returns:
        What was evaluated and how, the tables, and what failed.
    """
    asked = summary.protocol
    size = "the images' own sizes" if asked.size is None else f"{asked.size[0]}×{asked.size[1]}"
    lines = [
        "# Evaluation",
        "",
        f"{describe_images(summary)}; {size}; {describe_masks(summary)}; networks see "
        f"{'the whole image' if asked.region == 'full' else f'region {asked.region}'}.",
        "Means over images; in brackets where the mean lies in 95 of 100 samples of as many images (bootstrap). "
        "FID is of all images at once and has no such interval; of few images (the paper has 2000 and more) it is too "
        "high and tells little. FID and the spectrum's error of the missing pixels are as this project defines them.",
        "",
        *(f"- {_escape_markdown(method.label)}: {method.description}" for method in asked.methods),
        *(f"- {_escape_markdown(label)}: {NOT_COMPUTED}: {reason}" for label, reason in summary.refused.items()),
        *(f"- Note: {_escape_markdown(line)}." for line in summary.notes),
        "",
    ]
    for table in make_tables(summary):
        if table.reason:
            lines += [f"**{table.title}**: {table.reason}", ""]
            continue
        lines += [
            f"**{_escape_markdown(table.title)}**",
            "",
            "| dataset | method | " + " | ".join(table.columns) + " |",
        ]
        lines.append("|---|---|" + "---|" * len(table.columns))
        for dataset, method, entries in table.rows:
            cells = (f"**{entry.text}**" if entry.best else entry.text for entry in entries)
            lines.append(f"| {_escape_markdown(dataset)} | {_escape_markdown(method)} | " + " | ".join(cells) + " |")
        lines.append("")
    if summary.failures:
        lines += ["**Failed**", "", *(f"- {_escape_markdown(line)}" for line in summary.failures), ""]
    return "\n".join(lines)


def _escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\|<*`])", r"\\\1", text)


def format_csv(summary: Summary) -> str:
    """Format the cells as CSV.

    Args:
        summary: the results.

    Returns:
        A line for each cell, below a heading.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    parts = ("mean", "std", "low", "high", "n")
    writer.writerow(("dataset", "method", "mask", "metric", "region", *parts, *(f"change_{part}" for part in parts)))
    for cell in summary.cells:
        values = [value for statistic in (cell.value, cell.change) for value in _list_values(statistic)]
        writer.writerow((cell.dataset, cell.method, cell.mask, cell.metric, cell.region, *values))
    return file.getvalue()


def _list_values(statistic: Statistic | None) -> tuple[float | int | None, ...]:
    if statistic is None:
        return (None,) * 5
    return statistic.mean, statistic.std, statistic.low, statistic.high, statistic.n
