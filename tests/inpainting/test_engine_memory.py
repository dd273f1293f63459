"""What one engine's memory is counted as, while one or two pictures are in flight. No real memory is asked for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from glama_deploy import memory
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting.engine_memory import Budget, EngineMemory
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.planner import Plan
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Runner

#: Bytes that the pictures of these tests need.
PICTURE = 1000


class Engine(Runner):
    """An engine that needs PICTURE bytes for a picture. The test says what is free, and what holds memory."""

    backend, description, device, precision, io, sizes = "fake", "fake", "cpu", "fp32", "uint8", ANY_SIZE

    def __init__(self, streams: int) -> None:
        self.streams, self.run_inside = streams, lambda: None

    def memory_needed(self, size, batch=1, window=None):
        return PICTURE * batch

    def run(self, image, mask, output="inpainted"):
        self.run_inside()
        return np.zeros_like(image)


class Machine:
    """The free memory of a machine, which the tests change."""

    def __init__(self, free: int | None) -> None:
        self.free = free


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine = Machine(None)
    monkeypatch.setattr(memory, "available", lambda: machine.free)
    return machine


def plan(engine_bytes: int = PICTURE, beside_bytes: int = 0):
    """A planner that refuses what does not fit, as the real one does."""

    def make(budget: Budget) -> Plan:
        needed = engine_bytes + beside_bytes
        free = budget.free_bytes
        if not (needed <= budget.held_bytes or free is None or needed <= free + budget.held_bytes):
            raise ImageError("too large")
        return Plan([], {}, engine_bytes, beside_bytes)

    return make


def fill(engine_memory: EngineMemory, engine_bytes: int = PICTURE) -> None:
    """A picture from its plan to the end of its run."""
    with engine_memory.admit(plan(engine_bytes)) as (_, picture), engine_memory.run(picture, engine_bytes):
        pass


def test_a_second_picture_is_refused_before_the_first_has_taken_its_memory(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 2 * PICTURE - 1
    with engine_memory.admit(plan()):  # alone, one fits
        with pytest.raises(ImageError), engine_memory.admit(plan()):
            pass
        with engine_memory.admit(plan(PICTURE - 1)):
            pass


@pytest.mark.parametrize("taken", [0, 1, PICTURE // 2, PICTURE])
def test_a_second_picture_is_admitted_whatever_the_first_has_taken_of_its_memory(machine, taken):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 2 * PICTURE
    with engine_memory.admit(plan()):
        machine.free -= taken
        with pytest.raises(ImageError), engine_memory.admit(plan(PICTURE + 1)):
            pass
        with engine_memory.admit(plan()):
            pass


def test_streams_that_have_run_use_their_memory_again(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 2 * PICTURE
    with ExitStack() as stack:
        pictures = [stack.enter_context(engine_memory.admit(plan()))[1] for _ in range(2)]
        for picture in pictures:
            with engine_memory.run(picture, PICTURE):
                machine.free -= PICTURE
    for _ in range(2):  # nothing is free, and each stream holds what a picture needs
        with engine_memory.admit(plan()), engine_memory.admit(plan()):
            pass
        with pytest.raises(ImageError), engine_memory.admit(plan(PICTURE + 1)):
            pass


def test_memory_used_by_one_stream_is_not_free_for_another(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = PICTURE
    fill(engine_memory)
    machine.free = 0
    with pytest.raises(ImageError), engine_memory.admit(plan()):
        pass


def test_with_one_stream_the_next_picture_uses_the_memory_of_the_one_in_flight(machine):
    engine_memory = EngineMemory(Engine(streams=1))
    machine.free = PICTURE
    with engine_memory.admit(plan()):
        with engine_memory.admit(plan()):
            pass
        machine.free = 0
        with engine_memory.admit(plan()):
            pass
        with pytest.raises(ImageError), engine_memory.admit(plan(PICTURE + 1)):
            pass


def test_a_steady_flow_of_pictures_counts_each_once(machine):
    """There is always a picture in flight when the next is admitted, as in a run over a folder."""
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 2 * PICTURE
    first = ExitStack()
    _, picture = first.enter_context(engine_memory.admit(plan()))
    for step in range(10):
        following = ExitStack()
        _, next_picture = following.enter_context(engine_memory.admit(plan()))
        with engine_memory.run(picture, PICTURE):
            machine.free -= PICTURE if step < 2 else 0  # each stream takes its memory once
        first.close()
        first, picture = following, next_picture
    first.close()
    assert machine.free == 0


def test_memory_that_another_program_takes_is_not_free(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 4 * PICTURE
    with engine_memory.admit(plan()):
        machine.free -= 3 * PICTURE + 1  # at most a picture of it can be the engine's
        with pytest.raises(ImageError), engine_memory.admit(plan()):
            pass


def test_memory_beside_the_engine_is_counted_until_the_picture_is_done(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 3 * PICTURE
    with (
        engine_memory.admit(plan(PICTURE, beside_bytes=PICTURE + 1)),
        pytest.raises(ImageError),
        engine_memory.admit(plan()),
    ):
        pass
    with engine_memory.admit(plan()), engine_memory.admit(plan()):
        pass


def test_a_picture_that_failed_leaves_nothing_in_flight_and_nothing_held(machine):
    engine_memory = EngineMemory(Engine(streams=1))
    machine.free = PICTURE
    fill(engine_memory)
    with pytest.raises(EngineError), engine_memory.admit(plan()) as (_, picture), engine_memory.run(picture, PICTURE):
        raise EngineError("out of memory")
    machine.free = PICTURE - 1
    with pytest.raises(ImageError), engine_memory.admit(plan()):
        pass
    machine.free = PICTURE
    fill(engine_memory)


def test_a_model_that_changes_with_two_pictures_in_flight_is_not_counted_as_held(machine):
    """Either may have been given back: which one ran last is not known."""
    engine = Engine(streams=2)
    engine_memory = EngineMemory(engine)
    machine.free = 2 * PICTURE
    with ExitStack() as stack:
        pictures = [stack.enter_context(engine_memory.admit(plan()))[1] for _ in range(2)]
        for picture in pictures:
            stack.enter_context(engine_memory.run(picture, PICTURE))
        engine.holder = "another model"
    machine.free = PICTURE - 1
    with pytest.raises(ImageError), engine_memory.admit(plan()):
        pass


def test_an_interrupt_while_a_picture_ends_leaves_nothing_in_flight(machine):
    """A picture ends without a wait for the one that is being planned, during which Ctrl-C may come a second time."""
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = 10 * PICTURE
    planning, go_on = threading.Event(), threading.Event()

    def plan_slowly(budget: Budget) -> Plan:
        planning.set()
        go_on.wait()
        return Plan([], {}, PICTURE, 0)

    def admit_slowly() -> None:
        with engine_memory.admit(plan_slowly):
            pass

    def interrupt_beside(pool: ThreadPoolExecutor) -> None:
        with engine_memory.admit(plan()):
            pool.submit(admit_slowly)
            planning.wait()
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            interrupt_beside(pool)
        go_on.set()
    assert engine_memory._pictures == []


def test_a_picture_that_is_refused_is_not_in_flight(machine):
    engine_memory = EngineMemory(Engine(streams=2))
    machine.free = PICTURE - 1
    with pytest.raises(ImageError), engine_memory.admit(plan()):
        pass
    assert engine_memory._pictures == []


def test_an_inpainter_refuses_the_picture_that_does_not_fit_beside_the_one_in_flight(machine):
    engine = Engine(streams=2)
    inpainter = Inpainter(engine, NetworkConfig(ngf=8))
    image, mask = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool)
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    machine.free, engine.run_inside = 2 * PICTURE - 1, wait
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(inpainter, image, mask)
        try:
            begun.wait()
            with pytest.raises(ImageError, match="the image is 64x64 and needs about"):
                inpainter(image, mask, region="full")
            machine.free, engine.run_inside = 2 * PICTURE, lambda: None
            inpainter(image, mask, region="full")
        finally:
            go_on.set()
        assert first.result().shape == image.shape
