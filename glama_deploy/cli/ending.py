"""The end of a command's process. The operating system frees an engine's memory faster than Python takes it apart."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def end_at_once() -> Iterator[None]:
    """End the process at once after the block has raised SystemExit with an exit code.

    Python still waits for threads, and runs the handlers of `atexit` that were registered in the block. After them, it
    does not take its modules apart, which takes up to a third of a second with an engine.

    Yields:
        Nothing.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # handlers run in reverse order: all others run before this one
    try:
        yield
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise


def _leave(codes: list[int]) -> None:
    """End the process with the exit code, if there is one. After another exception Python ends the process itself."""
    if not codes:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # the command has reported a closed stream
                stream.flush()
    os._exit(codes[0] & 0xFF)
