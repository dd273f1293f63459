"""Let Ctrl-C end a loop after its current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether Ctrl-C asked for the end of a loop.

    Attributes:
        asked: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Note the first Ctrl-C of a block. The next Ctrl-C is answered as before the block.

    Nothing is noted in a thread that is not the main thread, or where Ctrl-C is switched off.

    Yields:
        Whether Ctrl-C came.
    """
    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
