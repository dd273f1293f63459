"""Native calls of daemon threads that are under way, for which the end of the process waits.

A daemon thread that returns from a native call after the interpreter has ended aborts the process (exit code 134).

A process that was forked from one with engines has none of their threads: a call there would wait for them for ever, or
abort the process at its end. Such calls are refused.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glama_deploy.errors import EngineError

_changed = threading.Condition()
_under_way = 0
_ending = False
_has_called = False
_is_forked = False


def check_not_forked() -> None:
    """Check that this process may call engines.

    Raises:
        EngineError: the process was forked after a native call.
    """
    if _is_forked:
        raise EngineError(
            "this process was forked after its parent had opened an engine, and a fork does not copy the engine's "
            "threads; start processes with the method 'spawn', and open the model there"
        )


@contextmanager
def native_call() -> Iterator[None]:
    """Let the process end only after this block.

    Only daemon threads are counted, because the interpreter itself waits for other threads. A signal that raises an
    exception here in the main thread would otherwise leave a wrong count.

    Yields:
        None: the block runs.

    Raises:
        EngineError: the process is ending, and the block would begin in a daemon thread; or the process was forked
            after a native call.
    """
    global _under_way, _has_called
    check_not_forked()
    _has_called = True
    if not threading.current_thread().daemon:
        yield
        return
    with _changed:
        if _ending:
            raise EngineError("the process is ending and takes no more calls; join the thread before the program ends")
        _under_way += 1
    try:
        yield
    finally:
        with _changed:
            _under_way -= 1
            _changed.notify_all()


@atexit.register
def _wait_for_calls() -> None:
    """Refuse new calls of daemon threads, and wait for the calls under way."""
    global _ending
    with _changed:
        _ending = True
        _changed.wait_for(lambda: _under_way <= 0)


def _forget_calls() -> None:
    """Begin anew in a forked process, which has none of its parent's threads but one."""
    global _changed, _under_way, _is_forked
    _changed, _under_way, _is_forked = threading.Condition(), 0, _has_called


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_forget_calls)
