"""Lock files, with which one process at a time writes.

The locks are those of the operating system (:class:`filelock.FileLock`: flock, LockFileEx), so a killed process frees
its locks. A holder removes its lock file before it releases the lock. A waiting process then holds a lock on a removed
file. filelock, from version 3.21 on, notices the removal and starts again with the new lock file. Windows does not
remove an open file: there, the file is removed after the release if no other process has opened the file.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("glama_deploy")

#: A process that waits longer for a lock logs a warning.
SECONDS_BEFORE_NOTE = 1.0


@contextmanager
def hold(path: Path, subject: str) -> Iterator[None]:
    """Hold a lock during the block. A process that waits longer than `SECONDS_BEFORE_NOTE` logs one warning.

    Args:
        path: The lock file. Its folder must exist.
        subject: The locked file or folder, for the warning.

    Yields:
        None, while the lock is held.

    Raises:
        OSError: The lock file cannot be created.
    """
    # imported here because filelock imports asyncio, which would slow down reading a bundle
    from filelock import FileLock, Timeout

    _create(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS_BEFORE_NOTE)
    except Timeout:
        log.warning("another process is writing %s; waiting for it to end (Ctrl-C gives up)", subject)
        lock.acquire()
    try:
        yield
    finally:
        _release(lock)


@contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Hold a lock during the block, if no other process holds the lock.

    Args:
        path: The lock file. Its folder must exist.

    Yields:
        Whether this process holds the lock.

    Raises:
        OSError: The lock file cannot be created.
    """
    from filelock import FileLock, Timeout

    _create(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        _release(lock)


def _create(path: Path) -> None:
    """Create a lock file, because filelock may report a file that cannot be created as a held lock.

    Raises:
        OSError: The lock file cannot be created.
    """
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))


def _release(lock) -> None:  # type: ignore[no-untyped-def]  # (filelock is imported where it is used)
    path = Path(lock.lock_file)
    if sys.platform != "win32":
        with suppress(OSError):  # the folder was removed or became read-only
            path.unlink()
    lock.release()
    if sys.platform == "win32":
        with suppress(OSError):
            path.unlink()
