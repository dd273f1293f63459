from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from glama_deploy.inpainting.in_order import map_in_order


def test_results_come_in_the_order_of_the_items():
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(timeout=60)  # the first item ends after the second
        if item == 1:
            second_is_done.set()
        return 10 * item

    assert list(map_in_order(work, range(5), at_once=2)) == [0, 10, 20, 30, 40]


def test_few_items_are_taken_ahead():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            yield item

    results = map_in_order(lambda item: item, items(), at_once=2)
    assert next(results) == 0
    assert len(taken) == 3


def test_an_error_of_the_items_comes_after_the_results_before_it():
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("the input ends here")

    results = map_in_order(lambda item: item, items(), at_once=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the input ends here"):
        next(results)
