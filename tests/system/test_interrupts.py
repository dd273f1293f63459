"""The first Ctrl-C is noted, the next one ends the block."""

from __future__ import annotations

import signal
import threading

import pytest

from glama_deploy.system.interrupts import stop_on_interrupt


def test_the_first_interrupt_is_noted_and_the_second_is_answered_as_before():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_switched_off_stays_off():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_interrupt() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_note_nothing_and_fail_nothing():
    noted = []

    def run() -> None:
        with stop_on_interrupt() as stop:
            noted.append(stop.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted == [False]
