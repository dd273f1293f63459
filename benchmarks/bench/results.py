"""Show the results of `glama-bench`: tables on the terminal, Markdown and a plot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glama_deploy.benchmarks.bench import layer_times
from glama_deploy.benchmarks.bench.contenders import is_peer, runs_on_gpu
from glama_deploy.benchmarks.bench.run import BASE_SUBJECT, Results, Row
from glama_deploy.benchmarks.bench.run_parts import COMPUTE, DOWNLOAD, HOST, TOTAL, UPLOAD
from glama_deploy.errors import GlamaError

COLUMNS = ("subject", "median", "min…max", f"against {BASE_SUBJECT}", "of the limit", "peak memory")

#: The columns of the table of latencies: those of the whole run, then the median of each part in milliseconds.
LATENCY_COLUMNS = (
    "latency in ms",
    "p50",
    "p90",
    "p99",
    "images/s",
    "host to device",
    "compute",
    "device to host",
    "host",
    "GPU memory",
)

#: Stands for a value that is not known, or that the subject does not have.
_UNKNOWN = "–"

_LATENCY_NOTE = (
    "p90 is of 10 runs or more, p99 of 100 or more (`--runs`). The parts are medians. `compute` contains the copies "
    "where the engine does not tell them apart. `host` is the rest of the run: planning, conversion and compositing."
)

#: Part of the title of a table of parts.
PARTS_NOTE = "by part (other runs, slower for being timed layer by layer)"


def _format_row(row: Row) -> tuple[str, ...]:
    if not row.seconds:
        return (row.subject, f"not measured: {row.reason}", "", "", "", "")
    return (
        row.description,
        f"{1000 * row.median:.0f} ms",
        f"{1000 * min(row.seconds):.0f}…{1000 * max(row.seconds):.0f}",
        "" if row.ratio is None else f"{row.ratio:.2f}×",
        "" if row.share is None else f"{row.share:.0%}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f} GB",
    )


def _format_latency(row: Row) -> tuple[str, ...]:
    total = row.latency[TOTAL]
    parts = (row.latency[part].p50 if part in row.latency else None for part in (UPLOAD, COMPUTE, DOWNLOAD, HOST))
    return (
        row.description + (f", profile {row.profile}" if row.profile else ""),
        *map(_format_ms, (total.p50, total.p90, total.p99)),
        _UNKNOWN if row.images_per_second is None else f"{row.images_per_second:.3g}",
        *map(_format_ms, parts),
        _UNKNOWN if row.gpu_bytes is None else f"{row.gpu_bytes / 1e9:.2f} GB",
    )


def _format_ms(seconds: float | None) -> str:
    """Format a time as milliseconds with at least three digits."""
    if seconds is None:
        return _UNKNOWN
    milliseconds = 1000 * seconds
    return f"{milliseconds:.{2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f}"


def _group_rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    """Yield a title and the rows of each size, batch and number of threads."""
    for (size, batch, threads), rows in groupby(results.rows, key=lambda row: (row.size, row.batch, row.threads)):
        yield f"{size[0]}×{size[1]}, batch {batch}, {threads} threads", list(rows)


def _describe_peaks(results: Results) -> list[str]:
    return [
        f"{rate / 1e9:.0f} G{'OP' if precision == 'int8' else 'FLOP'}/s in {precision} with {threads} threads"
        for precision, by_threads in results.peaks.items()
        for threads, rate in by_threads.items()
    ]


def print_results(console: Console, results: Results) -> None:
    """Print a table for each size, batch and number of threads.

    Args:
        console: where the tables are printed.
        results: what was measured.
    """
    for title, rows in _group_rows(results):
        table = Table(*COLUMNS, title=f"{title}, {results.runs} runs in turns", title_justify="left")
        for row in rows:
            table.add_row(*_format_row(row))
        console.print(table)
        if timed := [row for row in rows if row.latency]:
            table = Table(*LATENCY_COLUMNS)
            for row in timed:
                table.add_row(*_format_latency(row))
            console.print(table)
        for row in filter(lambda row: row.parts, rows):
            table = Table(*layer_times.COLUMNS, title=f"{title}, {row.description}, {PARTS_NOTE}", title_justify="left")
            for cells in layer_times.format_parts(row.parts):
                table.add_row(*cells)
            console.print(table)
    if any(row.latency for row in results.rows):
        console.print(_LATENCY_NOTE.replace("`", ""), soft_wrap=True)
    if results.peaks:
        console.print("a matrix product reaches " + "; ".join(_describe_peaks(results)))


def format_markdown(results: Results) -> str:
    """Format the results and the machine as Markdown.

    Args:
        results: what was measured.

    Returns:
        The text of RESULTS.md.
    """
    text = ["# Results", "", f"Written by `glama-bench`. Network: {results.network}.", ""]
    text += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in results.machine.items())]
    if results.peaks:
        text += ["", f"A matrix product reaches {'; '.join(_describe_peaks(results))}."]
    text += [
        "",
        "Each subject runs in a process of its own, in turns with the others. `against` is the median of the ratios of "
        "each turn, on a GPU against TorchScript there; `of the limit`, the network's FLOPs (from its graph; PyTorch's "
        "FFTs are not counted) a second against a matrix product's on the CPU in the same precision, which what makes "
        "fewer multiplications than the graph has can exceed (OpenVINO's and ONNX Runtime's 3×3 convolutions). "
        "Ours take bytes and give bytes, with all that stands between; peers get tensors that are ready, "
        "on a GPU in its memory. Memory is the host's.",
        "",
        _LATENCY_NOTE,
    ]
    for title, rows in _group_rows(results):
        text += ["", f"## {title}", "", "| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        text += ["| " + " | ".join(_format_row(row)) + " |" for row in rows]
        if timed := [row for row in rows if row.latency]:
            text += ["", "| " + " | ".join(LATENCY_COLUMNS) + " |", "|---|" + "---:|" * (len(LATENCY_COLUMNS) - 1)]
            text += ["| " + " | ".join(_format_latency(row)) + " |" for row in timed]
        for row in filter(lambda row: row.parts, rows):
            text += ["", f"{row.description}, {PARTS_NOTE}:", ""]
            text += ["| " + " | ".join(layer_times.COLUMNS) + " |", "|---|" + "---:|" * (len(layer_times.COLUMNS) - 1)]
            text += ["| " + " | ".join(cells) + " |" for cells in layer_times.format_parts(row.parts)]
    if not any(runs_on_gpu(row.subject, row.device) and row.seconds for row in results.rows):
        text += ["", "GPU: not measured."]
    return "\n".join(text) + "\n"


def plot_results(results: Results, path: Path) -> None:
    """Plot medians with their spread, a panel for each size, batch and number of threads.

    Args:
        results: what was measured.
        path: the PNG file to write.

    Raises:
        GlamaError: Nothing was measured.
    """
    from matplotlib.figure import Figure

    groups = [(title, measured) for title, rows in _group_rows(results) if (measured := [r for r in rows if r.seconds])]
    if not groups:
        raise GlamaError("nothing was measured, so there is nothing to plot; the table says why")
    figure = Figure(figsize=(7, 1 + sum(0.6 + 0.35 * len(rows) for _, rows in groups)), layout="constrained")
    axes = figure.subplots(
        len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": [1 + len(rows) for _, rows in groups]}
    )
    for (title, rows), (axis,) in zip(groups, axes, strict=True):
        medians = [1000 * row.median for row in rows]
        low = [1000 * (row.median - min(row.seconds)) for row in rows]
        high = [1000 * (max(row.seconds) - row.median) for row in rows]
        colours = ["tab:gray" if is_peer(row.subject) else "tab:blue" for row in rows]
        axis.barh([row.description for row in rows], medians, xerr=[low, high], color=colours)
        for position, row in enumerate(rows):
            text = f" {row.ratio:.2f}×" if row.ratio else ""
            axis.text(1000 * max(row.seconds), position, text, va="center")
        axis.set_xlim(right=1.2 * max(1000 * max(row.seconds) for row in rows))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("ms")
        axis.invert_yaxis()
    figure.savefig(path, format="png", dpi=110)
