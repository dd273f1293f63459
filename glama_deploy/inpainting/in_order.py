"""Work on several items at once, and give the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

#: Seconds after which a wait begins again.
_WAIT_SECONDS = 1.0


def wait_for(future: Future[_Made]) -> _Made:
    """Return a future's result, and answer signals meanwhile.

    Python does not see a signal that comes just before a wait begins. So no wait lasts longer than a second.

    Args:
        future: the future.

    Returns:
        The result. An exception of the work is raised.
    """
    while not wait([future], timeout=_WAIT_SECONDS).done:
        pass
    return future.result()


def map_in_order(function: Callable[[_Item], _Made], items: Iterable[_Item], at_once: int) -> Iterator[_Made]:
    """Call a function for several items at once, each in a thread.

    The next item is taken when a result has been given, so few items are held at a time. Calls under way are abandoned
    when the caller stops early. An error of the items is raised after the results of the items before.

    Args:
        function: the function.
        items: the items.
        at_once: number of calls at once.

    Yields:
        The results, in the order of the items.
    """
    under_way: deque[Future[_Made]] = deque()
    pool = ThreadPoolExecutor(at_once, "glama-fill")
    todo = iter(items)
    error: Exception | None = None
    try:
        while True:
            try:
                item = next(todo)
            except StopIteration:
                break
            except Exception as found:  # noqa: BLE001  # raised after the results of the items before
                error = found
                break
            under_way.append(pool.submit(function, item))
            if len(under_way) > at_once:
                yield wait_for(under_way.popleft())
        while under_way:
            yield wait_for(under_way.popleft())
        if error is not None:
            raise error
    finally:
        for begun in under_way:
            begun.cancel()
        pool.shutdown(wait=False)
