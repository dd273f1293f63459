"""TensorRT's runtime in memory: an engine is an ONNX model, which ONNX Runtime runs."""

from __future__ import annotations

import importlib.machinery
import weakref
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from glama_deploy.bundle import SizeRange

#: Bytes of scratch memory that the engine in memory asks for, per pixel.
SCRATCH = 32


class EngineValidity(IntEnum):
    """As TensorRT-RTX has it, which a test proves."""

    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class EngineInvalidityDiagnostics(IntEnum):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4


@dataclass
class MemoryTensorRT:
    """A stand-in for the packages `tensorrt` and `tensorrt_rtx`: an engine's bytes are an ONNX model."""

    cuda: Any
    profiles: tuple[SizeRange, ...]
    fails: bool = False
    captures: bool = True
    accepts: bool = True
    has_plugin_library: bool = True
    validity: tuple[str, int] = ("VALID", 0)
    wrong_profiles: tuple[int, ...] = ()
    wrong_replays: bool = False
    refuses_profiles: bool = False
    loses_scratch_size: bool = False
    contexts: list[weakref.ref[MemoryContext]] = field(default_factory=list)
    engine: Any = None
    serialized: int = 0
    calls: list[str] = field(default_factory=list)
    refits: dict[str, Any] = field(default_factory=dict)
    kernels: bytes = b""
    stored: list[bytes] = field(default_factory=list)

    def module(self, name: str, version: str) -> ModuleType:
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        members = {
            "__version__": version,
            "Logger": type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
            "Runtime": lambda logger: (MemoryRtxRuntime if name == "tensorrt_rtx" else MemoryTrtRuntime)(self),
            "EngineValidity": EngineValidity,
            "EngineInvalidityDiagnostics": EngineInvalidityDiagnostics,
            "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED="user managed"),
            "CudaGraphStrategy": SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
            "init_libnvinfer_plugins": self._initialize_plugins,
            "Refitter": self._refitter,
            "OnnxParserRefitter": self._onnx_refitter,
        }
        vars(module).update(members)
        return module

    def _initialize_plugins(self, logger: Any, namespace: str) -> bool:
        self.calls.append(f"initialize plugins of namespace {namespace!r}")
        return self.has_plugin_library

    def _refitter(self, engine: Any, logger: Any) -> Any:
        if self.refits.get("not refittable"):
            raise TypeError("factory function returned nullptr")
        return SimpleNamespace(
            refit_cuda_engine=lambda: not self.refits.get("missing"),
            get_missing_weights=lambda: self.refits.get("missing", []),
        )

    def _onnx_refitter(self, refitter: Any, logger: Any) -> Any:
        def from_file(path: str) -> bool:
            self.calls.append(f"refit {Path(path).name}")
            return not self.refits.get("parser")

        errors = [SimpleNamespace(desc=lambda: "weights of conv1 have another shape\nmore")]
        return SimpleNamespace(refit_from_file=from_file, num_errors=1, get_error=lambda index: errors[index])


class MemoryTrtRuntime:
    engine_host_code_allowed = False

    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt = trt

    def deserialize_cuda_engine(self, data: bytes) -> MemoryEngine | None:
        self._trt.calls.append(f"deserialize, host code {self.engine_host_code_allowed}")
        if not self._trt.accepts:
            return None
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        engine = MemoryEngine(self._trt, session)
        self._trt.engine = weakref.ref(engine)
        return engine


class MemoryRtxRuntime(MemoryTrtRuntime):
    def get_engine_validity(self, data: bytes) -> tuple[EngineValidity, int]:
        name, diagnostics = self._trt.validity
        return EngineValidity[name], diagnostics


@dataclass
class MemoryEngine:
    trt: MemoryTensorRT
    session: onnxruntime.InferenceSession

    def create_execution_context(self, settings: Any) -> MemoryContext | None:
        assert settings == "user managed" or (settings.strategy == "user managed" and settings.cache is not None)
        context = MemoryContext(self, captured_by_itself=getattr(settings, "cuda_graph_strategy", ""))
        self.trt.contexts.append(weakref.ref(context))
        return context

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.trt.profiles)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def _tensors(self) -> list[Any]:
        return [*self.session.get_inputs(), *self.session.get_outputs()]

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_dtype(self, name: str) -> Any:
        (found,) = [tensor.type for tensor in self._tensors if tensor.name == name]
        return SimpleNamespace(name={"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8"}[found])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        """Of an NCHW image."""
        profile = self.trt.profiles[index]
        corners = ((1, profile.min), (1, profile.opt), (profile.max_batch or 1, profile.max))
        return [(batch, 3, *size) for batch, size in corners]

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        """Of the profile's largest shapes."""
        profile = self.trt.profiles[index]
        return SCRATCH * profile.max[0] * profile.max[1] * (profile.max_batch or 1)

    def create_runtime_config(self) -> MemoryConfig:
        return MemoryConfig(self.trt)


class MemoryConfig:
    """Does not keep its cache alive, as TensorRT-RTX's does not."""

    cuda_graph_strategy = "disabled"

    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt, self.strategy = trt, "static"

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> MemoryCache:
        return MemoryCache(self._trt)

    def set_runtime_cache(self, cache: MemoryCache) -> bool:
        self._cache = weakref.ref(cache)
        return True

    @property
    def cache(self) -> MemoryCache | None:
        return self._cache()


class MemoryCache:
    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt = trt

    def deserialize(self, data: bytes) -> bool:
        self._trt.stored.append(data)
        if data.startswith(b"kernels"):
            self._trt.kernels = data
            return True
        return False

    def serialize(self) -> bytes:
        self._trt.serialized += 1
        return self._trt.kernels


class MemoryContext:
    """Asserts what TensorRT's documentation asks for; returns False where TensorRT does."""

    def __init__(self, engine: MemoryEngine, captured_by_itself: str) -> None:
        self._engine, self._cuda = engine, engine.trt.cuda
        self.captured_by_itself = captured_by_itself
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self._state = self._runs = 0
        self._inputs = [tensor.name for tensor in engine.session.get_inputs()]
        self._outputs = [tensor.name for tensor in engine.session.get_outputs()]

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self._cuda.streams
        assert not self.shapes, "a profile forgets all shapes"
        if index >= len(self._engine.trt.profiles) or self._engine.trt.refuses_profiles:
            raise RuntimeError("Error in set optimization profile async.")  # the bindings never return False
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None, "the profile comes first"
        profile = self._engine.trt.profiles[self.profile]
        height, width = shape[2:] if len(shape) == 4 and shape[1] in (1, 3) else shape[1:3]
        self.shapes[name] = shape
        self._state += 1
        return name in self._inputs and profile.covers(height, width) and shape[0] <= (profile.max_batch or shape[0])

    def update_device_memory_size_for_shapes(self) -> int:
        assert set(self.shapes) == set(self._inputs), "all shapes come first"
        if self._engine.trt.loses_scratch_size:
            return 0  # as TensorRT reports an error
        return SCRATCH * int(np.prod(self.shapes["mask"]))

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        assert size >= self.update_device_memory_size_for_shapes()
        self._cuda.block(address, size)
        self._scratch = (address, size)
        self._state += 1

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0
        self._addresses[name] = address
        self._state += 1
        return name in (*self._inputs, *self._outputs)

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self._addresses) == {*self._inputs, *self._outputs}, "a tensor has no address"
        assert self._scratch is not None
        assert self._cuda.takes_work(stream), "another GPU is current"
        trt = self._engine.trt
        if self._cuda.streams[stream].captured is not None:
            assert self._runs, "a capture before the first run"
            if not trt.captures:
                self._cuda.cudaMalloc(16)  # breaks the capture
                return False
        if trt.fails:
            return False
        self._runs += 1
        trt.calls.append("execute")
        # A graph keeps no context alive. A plain run has its addresses from the time that it was enqueued.
        this, state, addresses = weakref.ref(self), self._state, dict(self._addresses)
        replays = self._cuda.streams[stream].captured is not None

        def work() -> None:
            context = this()
            assert context is not None, "its context is gone"
            assert context._state == state or not replays, "the context of a graph was changed"
            is_wrong = context.profile in trt.wrong_profiles or (replays and trt.wrong_replays)
            context._run(addresses, is_wrong=is_wrong)

        self._cuda.streams[stream].put(work)
        return True

    def _run(self, addresses: dict[str, int], *, is_wrong: bool) -> None:
        self._cuda.block(*self._scratch)[:] = b"\xab" * self._scratch[1]
        feeds, read = {}, []
        for tensor in self._engine.session.get_inputs():
            dtype = np.dtype({"tensor(float)": "float32", "tensor(uint8)": "uint8"}[tensor.type])
            shape = self.shapes[tensor.name]
            size = int(np.prod(shape)) * dtype.itemsize
            feeds[tensor.name] = np.frombuffer(self._cuda.block(addresses[tensor.name], size), dtype).reshape(shape)
            read.append(range(addresses[tensor.name], addresses[tensor.name] + size))
        for name, values in zip(self._outputs, self._engine.session.run(self._outputs, feeds), strict=True):
            values = values[..., ::-1].copy() if is_wrong else values
            first, last = addresses[name], addresses[name] + values.nbytes - 1
            assert not any(first < there.stop and last >= there.start for there in read), "written over an input"
            self._cuda.block(first, values.nbytes)[:] = values.tobytes()
        self._cuda.milliseconds += self._cuda.RUN_MS
