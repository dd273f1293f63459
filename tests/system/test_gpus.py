"""The names of the GPUs, from a stand-in for the driver's library: no test machine needs a GPU."""

from __future__ import annotations

import ctypes

import pytest

from glama_deploy.system import gpus

NAMES = (b"NVIDIA H100 80GB HBM3", b"NVIDIA T4")


class Library:
    """The functions of NVML that are called. `failing` returns an error code."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.is_open = failing, False

    def __getattribute__(self, name):
        if name.startswith("nvml") and name == object.__getattribute__(self, "failing"):
            return lambda *_: 999  # NVML_ERROR_UNKNOWN
        return object.__getattribute__(self, name)

    def nvmlInit_v2(self):
        self.is_open = True
        return 0

    def nvmlShutdown(self):
        self.is_open = False
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(NAMES)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number, device):
        device._obj.value = number + 1
        return 0

    def nvmlDeviceGetName(self, device, name, size):
        assert size == ctypes.sizeof(name)
        name.value = NAMES[device.value - 1]
        return 0


@pytest.fixture
def library(request, monkeypatch):
    made = Library(getattr(request, "param", ""))
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: made)
    return made


def test_all_gpus_are_named_and_the_library_is_closed(library):
    assert gpus.read_names() == ("NVIDIA H100 80GB HBM3", "NVIDIA T4")
    assert not library.is_open


@pytest.mark.parametrize(
    "library",
    ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName"],
    indirect=True,
)
def test_a_library_that_fails_names_no_gpu(library):
    assert gpus.read_names() == ()
    assert not library.is_open


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(gpus, "_LIBRARY", "libno-such-driver.so.1")
    assert gpus.read_names() == ()
