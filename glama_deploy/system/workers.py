"""Work on many items in several processes, which end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from glama_deploy.errors import GlamaError
from glama_deploy.system.spawning import outside_current_folder

_Todo = TypeVar("_Todo")
_Done = TypeVar("_Done")

#: The number of items that wait for each process.
_ITEMS_AHEAD = 4


def work_in_processes(
    work: Callable[[_Todo], _Done],
    items: Iterable[_Todo],
    processes: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[object, ...] = (),
) -> Generator[_Done, None, None]:
    """Work on items in other processes. The processes end with the generator, and with this process.

    Args:
        work: a function of a module, called with each item.
        items: the items. Items, arguments and what `work` returns are pickled.
        processes: the number of processes.
        start: a function of a module that each process calls first; None for none.
        arguments: the arguments of `start`.

    Yields:
        What `work` returns, in the order of the items.

    Raises:
        GlamaError: a process ends on its own, mostly for lack of memory.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # engines and PyTorch do not survive a fork
    with outside_current_folder(), ProcessPoolExecutor(processes, context, _start, (start, arguments)) as pool:
        try:
            todo, running = iter(items), deque[Future[_Done]]()
            while True:
                with _block_interrupts():  # a Ctrl-C is this process's, which ends the others
                    while len(running) < _ITEMS_AHEAD * processes:
                        try:
                            item = next(todo)
                        except StopIteration:
                            break
                        running.append(pool.submit(work, item))
                if not running:
                    return
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise GlamaError(
                "a process ended before its image was done, maybe for lack of memory; what is done is kept: run again "
                "with `processes=1`"
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Hold an interrupt back during the block. Processes that the block starts never receive one.

    Windows cannot hold a signal back.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(start: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _exit_with_parent() -> None:
    """End this process when its parent has ended. A parent that is killed cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
