"""Which libraries of NVIDIA a provider of ONNX Runtime links, which are missing, and what is said."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from glama_deploy.errors import EngineError
from glama_deploy.runtime.choice import open_bundle
from glama_deploy.runtime.onnxruntime import libraries, providers
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS

TENSORRT = PROVIDERS["tensorrt"]
PROVIDER_FILE = b"\x7fELF\0libcudart.so.13\0libnvonnxparser.so.10\0libnvinfer.so.10\0libc.so.6\0"


class Linker:
    """The dynamic linker: the libraries that it finds by their names. A library that is loaded by a path is found."""

    def __init__(self, *there: str) -> None:
        self.there, self.loaded = {*there}, []

    def load(self, name: str, mode: int = 0) -> object:
        if "/" in name:
            self.loaded.append((Path(name).name, mode == ctypes.RTLD_GLOBAL))
            self.there.add(Path(name).name)
        elif name not in self.there:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that makes this a machine with a TensorRT provider of CUDA 13 that links TensorRT 10."""

    def make(*there: str, tensorrt: int | None = None, driver: tuple[int, int] | None = None) -> Linker:
        folders = {"onnxruntime": tmp_path / "onnxruntime"}
        (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
        (tmp_path / "onnxruntime" / "capi" / "libonnxruntime_providers_tensorrt.so").write_bytes(PROVIDER_FILE)
        if tensorrt is not None:
            folders["tensorrt_libs"] = tmp_path / "tensorrt_libs"
            folders["tensorrt_libs"].mkdir()
            for name in ("nvinfer", "nvonnxparser"):
                (folders["tensorrt_libs"] / f"lib{name}.so.{tensorrt}").touch()

        def find(package: str) -> SimpleNamespace | None:
            return SimpleNamespace(submodule_search_locations=[folders[package]]) if package in folders else None

        linker = Linker(*there)
        monkeypatch.setattr(libraries, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=find)))
        fake = SimpleNamespace(CDLL=linker.load, RTLD_GLOBAL=ctypes.RTLD_GLOBAL)
        monkeypatch.setattr(libraries, "ctypes", fake)
        monkeypatch.setattr(libraries, "find_driver_version", lambda: driver)
        monkeypatch.setattr(libraries, "has_driver", lambda: driver is not None)
        return linker

    return make


def test_tensorrts_libraries_are_loaded_from_pips_package_of_the_same_version(machine):
    linker = machine("libcudart.so.13", tensorrt=10, driver=(13, 0))
    libraries.preload_tensorrt(TENSORRT)
    assert linker.loaded == [("libnvinfer.so.10", True), ("libnvonnxparser.so.10", True)]
    libraries.preload_tensorrt(TENSORRT)
    assert len(linker.loaded) == 2  # once
    libraries.preload_tensorrt(PROVIDERS["cuda"])
    assert len(linker.loaded) == 2


def test_pips_tensorrt_of_another_version_is_named_and_the_driver_is_not_blamed(machine):
    linker = machine("libcudart.so.13", tensorrt=11, driver=(13, 0))
    libraries.preload_tensorrt(TENSORRT)
    assert not linker.loaded
    assert libraries.explain_failure(TENSORRT) == (
        "it needs libnvinfer.so.10, libnvonnxparser.so.10; pip install 'tensorrt-cu13==10.*' (the installed TensorRT "
        "has libnvinfer.so.11)"
    )


@pytest.mark.parametrize(
    ("there", "driver", "says"),
    [
        ((), None, "it needs libcudart.so.13, libnvinfer.so.10, .*, and pip install 'onnxruntime-gpu"),
        (
            ("libnvinfer.so.10", "libnvonnxparser.so.10"),
            None,
            r"^it needs libcudart\.so\.13; pip install 'onnxruntime-gpu",
        ),
        (
            ("libcudart.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10"),
            None,
            "^no NVIDIA driver here; run this on the machine with the GPU$",
        ),
        (
            ("libcudart.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10"),
            (12, 6),
            "^the NVIDIA driver supports CUDA 12.6, and it is built for CUDA 13; update the driver, or install an ONNX",
        ),
        (
            ("libcudart.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10"),
            (13, 1),
            "^its libraries are here, the NVIDIA driver supports CUDA 13.1, and ONNX Runtime gives no other reason",
        ),
    ],
)
def test_what_is_missing_is_named(machine, there, driver, says):
    machine(*there, driver=driver)
    assert re.search(says, libraries.explain_failure(TENSORRT))


def test_on_aarch64_the_missing_tensorrt_provider_is_not_a_matter_of_pip(tiny_bundle, monkeypatch):
    monkeypatch.setattr(providers, "has_provider", lambda provider: provider.name == "cpu")
    monkeypatch.setattr(libraries.platform, "machine", lambda: "aarch64")
    with pytest.raises(EngineError, match=r"wheels for aarch64 have no TensorRT provider; use the backend tensorrt"):
        open_bundle(tiny_bundle, "onnxruntime:tensorrt")
    with pytest.raises(EngineError, match="has no CUDA provider; pip uninstall"):
        open_bundle(tiny_bundle, "onnxruntime:cuda")
