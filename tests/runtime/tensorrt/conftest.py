"""Runners of the tiny network: over CUDA and TensorRT in memory, and of a real engine where there is a GPU."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fakes.cuda_runtime import MemoryRuntime
from fakes.pycuda_driver import MemoryPycuda
from fakes.tensorrt_bundles import SIZES, World, with_engine
from fakes.tensorrt_runtime import MemoryTensorRT
from glama_deploy.bundle import Bundle
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.cuda.pycuda import PyCudaDevice
from glama_deploy.runtime.devices import Device
from glama_deploy.runtime.tensorrt import runner as tensorrt


@pytest.fixture
def opened(monkeypatch):
    """A function that opens a bundle's engine, in memory; its `last` is what it made, also where opening fails."""

    def make(
        bundle: Bundle,
        name: str = "tensorrt",
        *,
        room: int = 1 << 30,
        pycuda: bool = False,
        gpu: int = 0,
        index: int | None = None,
        integrated: bool = False,
        maps: bool = False,
        allow_engine_code: bool = False,
        **trt: Any,
    ) -> World:
        engine = bundle.manifest.engines[name]
        cuda = MemoryRuntime(room, count=max(gpu, index or 0) + 1)
        cuda.is_integrated, cuda.maps_host_memory = integrated, maps
        cuda.cudaSetDevice(gpu)
        fake = MemoryTensorRT(cuda, engine.profiles or (engine.sizes,), **trt)
        package = name.replace("-", "_")
        monkeypatch.setitem(sys.modules, package, fake.module(package, "10.3.0"))
        device = PyCudaDevice(MemoryPycuda(cuda), index) if pycuda else CudaPythonDevice(cuda, index)
        monkeypatch.setattr(tensorrt, "open_device", {index: device}.__getitem__)
        world = World(bundle, None, device, cuda=cuda, trt=fake)
        make.last = world
        place = None if index is None else Device("cuda", index)
        asked = Request(device=place, engine=name, allow_engine_code=allow_engine_code)
        world.runner = tensorrt.open(bundle, asked)
        return world

    return make


@pytest.fixture(
    params=[
        "cuda-python",
        "pycuda",
        pytest.param("real", marks=pytest.mark.gpu),
    ]
)
def world(request, opened, tiny, tiny_bundle, make_bundle) -> World:
    """A runner over cuda-python and pycuda in memory, and of a real engine where there is a GPU."""
    if request.param != "real":
        return opened(with_engine(tiny_bundle), pycuda=request.param == "pycuda")
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    bundle = make_bundle(tiny, ("trt-rtx",), profile=SIZES)
    # fp32 without TF32: as for the engines on a CPU
    return World(bundle, tensorrt.open(bundle, Request(engine="tensorrt-rtx")), CudaPythonDevice(), tolerance=2e-5)


@pytest.fixture
def memory_world(opened, tiny_bundle) -> World:
    return opened(with_engine(tiny_bundle))
