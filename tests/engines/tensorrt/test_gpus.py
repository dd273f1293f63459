from __future__ import annotations

import ctypes

import pytest

from glama_deploy.engines.tensorrt import gpus
from glama_deploy.errors import GlamaError


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("rtx-2080", "7.5"),
        ("rtx-3090", "8.6"),
        ("rtx-4090", "8.9"),
        ("RTX 4090", "8.9"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "8.9"),
        ("GeForce RTX 3060 Laptop GPU", "8.6"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "12.0"),
        ("jetson-orin", "8.7"),
        ("Jetson AGX Orin", "8.7"),
        ("jetson-thor", "11.0"),
        ("8.9", "8.9"),
        ("12.1", "12.1"),
        # as nvidia-smi prints them
        ("Tesla T4", "7.5"),
        ("Quadro RTX 6000", "7.5"),
        ("NVIDIA TITAN RTX", "7.5"),
        ("NVIDIA T400 4GB", "7.5"),
        ("NVIDIA GeForce RTX 2080 with Max-Q Design", "7.5"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("NVIDIA A100-PCIE-40GB", "8.0"),
        ("NVIDIA A100 80GB PCIe", "8.0"),
        ("NVIDIA A10G", "8.6"),
        ("NVIDIA RTX A2000 12GB", "8.6"),
        ("NVIDIA GeForce RTX 3050 6GB Laptop GPU", "8.6"),
        ("Orin", "8.7"),
        ("Orin (nvgpu)", "8.7"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "8.7"),
        ("Jetson Orin NX 16 GB", "8.7"),
        ("NVIDIA L4", "8.9"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA GeForce RTX 4090 D", "8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "8.9"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "8.9"),
        ("NVIDIA RTX 3500 Ada Generation Laptop GPU", "8.9"),
        ("NVIDIA H100 PCIe", "9.0"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA H100 NVL", "9.0"),
        ("NVIDIA GH200 144G HBM3e", "9.0"),
        ("NVIDIA B200", "10.0"),
        ("NVIDIA Thor", "11.0"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("NVIDIA GB10", "12.1"),
    ],
)
def test_a_gpu_is_found_by_its_names_and_its_capability(name, capability):
    assert gpus.find_capability(name) == capability


@pytest.mark.parametrize(("name", "near"), [("rtx-4091", "rtx-4090"), ("jetson-orion", "jetson-orin")])
def test_an_unknown_gpu_is_an_error_with_similar_names(name, near):
    with pytest.raises(GlamaError, match=rf"no GPU is known as '{name}' \(near to it: .*{near}.*8\.9, too"):
        gpus.find_capability(name)


def test_a_gpu_without_similar_names_is_an_error_with_examples():
    with pytest.raises(GlamaError, match="such as rtx-4090 or jetson-orin"):
        gpus.find_capability("banana")


def test_no_gpu_stands_twice_in_the_table():
    names = [name for row in gpus._NAMES_BY_CAPABILITY.values() for name in row.split()]
    assert len(names) == len(set(names))
    assert all(gpus.find_capability(name) == gpus.GPUS[name] for name in names)  # none contains a word that is left out


def test_capabilities_are_ordered_as_numbers():
    assert sorted(["12.0", "8.9", "7.5"], key=gpus.split_capability) == ["7.5", "8.9", "12.0"]


class Driver:
    """libcuda of a machine with one GPU of compute capability 8.7, or of one whose driver answers with `status`."""

    def __init__(self, status: int = 0) -> None:
        self._status = status

    def cuInit(self, flags: int) -> int:
        return self._status

    def cuDeviceGet(self, device: object, index: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: object, attribute: int, device: object) -> int:
        value._obj.value = {75: 8, 76: 7}[attribute]  # type: ignore[attr-defined]
        return 0


def test_the_driver_says_which_gpu_this_machine_has(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert gpus.find_local_capability() == "8.7"


def test_a_machine_without_a_driver_or_gpu_has_no_capability(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(status=100))
    assert gpus.find_local_capability() is None

    def missing(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpus.find_local_capability() is None
