"""Show the results of `glama-bench --jobs`: tables on the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.table import Table

from glama_deploy.benchmarks.jobs.run import JobResults, Row
from glama_deploy.benchmarks.jobs.scenes import JOBS
from glama_deploy.benchmarks.jobs.subjects import SUBJECTS

COLUMNS = (
    "subject",
    "seconds",
    "without start",
    "CPU seconds",
    "peak memory",
    "times as fast",
    "without start",
    "PSNR",
    "max. difference",
)

#: Steps in the order of a table.
STEPS = ("start", "read", "plan", "network", "write")

_NOTE = (
    "Each subject runs in a fresh process, in turns with the others; medians. `start` is from the start of the process "
    "until the network is open. `times as fast` is against the fastest peer that fills at full size with the same "
    "network in fp32. PSNR and the largest difference of a byte are of the filled pixels of the first pictures, "
    "against the reference. Ours take the way of `glama-inpaint`. Peers read and write with Pillow."
)


def _group_rows(results: JobResults) -> Iterator[tuple[str, list[Row]]]:
    """Yield the letter and the rows of each job."""
    for letter, rows in groupby(results.rows, key=lambda row: row.job):
        yield letter, list(rows)


def find_best_peer(rows: list[Row]) -> Row | None:
    """Find the fastest peer that fills at full size with the same network.

    Args:
        rows: the rows of one job.

    Returns:
        Its row; None if no such peer was measured.
    """
    peers = [row for row in rows if row.seconds and SUBJECTS[row.subject].same_network]
    return min(peers, key=lambda row: row.median, default=None)


def _format_row(row: Row, best: Row | None) -> tuple[str, ...]:
    if not row.seconds:
        return (row.subject, f"not measured: {row.reason}", *[""] * (len(COLUMNS) - 2))
    ratios = ("", "")
    if best is not None:
        ratios = f"{best.median / row.median:.2f}×", f"{best.median_after_start / row.median_after_start:.2f}×"
    return (
        row.description if SUBJECTS[row.subject].is_ours else f"{row.subject} ({row.description})",
        f"{row.median:.2f}",
        f"{row.median_after_start:.2f}",
        f"{sum(row.cpu_seconds) / len(row.cpu_seconds):.1f}",
        f"{row.peak_bytes / 1e9:.2f} GB",
        *ratios,
        "" if row.psnr is None else f"{row.psnr:.1f} dB",
        "" if row.max_difference is None else str(row.max_difference),
    )


def _format_steps(row: Row) -> tuple[str, ...]:
    return (row.subject, *(f"{row.steps[step]:.2f}" if step in row.steps else "" for step in STEPS))


def print_results(console: Console, results: JobResults) -> None:
    """Print a table for each job.

    Args:
        console: where the tables are printed.
        results: what was measured.
    """
    for letter, rows in _group_rows(results):
        table = Table(*COLUMNS, title=f"({letter}) {JOBS[letter].title}", title_justify="left")
        for row in rows:
            table.add_row(*_format_row(row, find_best_peer(rows)))
        console.print(table)
        table = Table("seconds by step", *STEPS, title_justify="left")
        for row in filter(lambda row: row.seconds, rows):
            table.add_row(*_format_steps(row))
        console.print(table)


def format_markdown(results: JobResults) -> str:
    """Format the results and the machine as Markdown.

    Args:
        results: what was measured.

    Returns:
        The text of RESULTS-JOBS.md.
    """
    scale = "" if results.scale == 1 else f" Sides and counts are scaled by {results.scale:g}."
    text = ["# Jobs", "", f"Written by `glama-bench --jobs`. Network: {results.network}. {results.runs} runs.{scale}"]
    text += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in results.machine.items())]
    text += ["", _NOTE]
    for letter, rows in _group_rows(results):
        best = find_best_peer(rows)
        text += ["", f"## ({letter}) {JOBS[letter].title}", ""]
        if reference := results.references.get(letter):
            text += [f"Reference: {reference}.", ""]
        text += ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        text += ["| " + " | ".join(_format_row(row, best)) + " |" for row in rows]
        text += ["", "| seconds by step | " + " | ".join(STEPS) + " |", "|---|" + "---:|" * len(STEPS)]
        text += ["| " + " | ".join(_format_steps(row)) + " |" for row in rows if row.seconds]
        text += ["", f"![What the subjects filled](job-{letter}.png)"]
    return "\n".join(text) + "\n"
