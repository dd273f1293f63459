"""A progress bar for downloads, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from glama_deploy.checkpoints.published.transfer import Report


@contextmanager
def show_progress(subject: str) -> Iterator[Report]:
    """Show a bar on standard error during the block, if standard error is a terminal.

    Args:
        subject: What is downloaded.

    Yields:
        A function that takes the bytes that are there, and the bytes of the whole file or None.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(subject, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
