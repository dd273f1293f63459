"""Lock files: one process at a time writes, and a process that ends in any way no longer holds its locks.

The locks are the operating system's (:class:`filelock.FileLock`: flock, LockFileEx), so a process that is killed frees
them. A holder removes its lock file before the lock is released. A waiting process then holds a lock on a file without
a name, which filelock notices (from version 3.21 on) and starts over with the file that has the name now. Windows
does not remove a file that is open: there the file is removed after the release, if no other process has opened it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("glama_deploy")

#: A process that waits longer says for what.
SECONDS_BEFORE_NOTE = 1.0


@contextmanager
def hold(path: Path, subject: str) -> Iterator[None]:
    """Hold the lock file `path` during the block. A process that waits logs one line after a second.

    Args:
        path: the lock file. Its folder must exist.
        subject: what the lock is for, as the log line names it.

    Raises:
        OSError: the lock file cannot be made.
    """
    # filelock imports asyncio and more, which reading a bundle need not wait for.
    from filelock import FileLock, Timeout

    _make(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS_BEFORE_NOTE)
    except Timeout:
        log.warning("another process is writing %s; waiting for it to end (Ctrl-C gives up)", subject)
        lock.acquire()
    try:
        yield
    finally:
        _let_go(lock)


@contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` during the block where no other process does, and yield whether it is held.

    Raises:
        OSError: the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    _make(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        _let_go(lock)


def _make(path: Path) -> None:
    """Make a lock file where none is. Raises OSError where that fails, which filelock may report as a lock held."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))


def _let_go(lock) -> None:  # type: ignore[no-untyped-def]  # (filelock is imported where it is used)
    path = Path(lock.lock_file)
    if os.name != "nt":
        with suppress(OSError):  # a folder that was removed, or became read-only, has nothing to remove
            path.unlink()
    lock.release()
    if os.name == "nt":
        with suppress(OSError):
            path.unlink()
