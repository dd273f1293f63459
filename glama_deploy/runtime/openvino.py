"""OpenVINO on CPUs: the bundle's IR, or its ONNX model where it has no IR."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy import cache
from glama_deploy.bundle import Bundle, EngineName
from glama_deploy.errors import EngineError
from glama_deploy.runtime import columns
from glama_deploy.runtime.base import Request, installed, require

_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}

#: Compiled sizes that are kept where a size must be compiled at all.
_MAX_COMPILED = 4

_first = threading.Lock()
_core: list[Any] = []


def core() -> Any:
    """The process's one OpenVINO core, which lives as long as the process.

    The CPU plugin gives the thread that loads it a signal stack, and takes that away with the last reference to the
    core (2026.4). Where another thread holds that, the first is left on unmapped memory, and its next signal, a Ctrl-C
    or a child's end, is a segmentation fault.
    """
    import openvino

    with _first:
        if not _core:
            _core.append(openvino.Core())
    return _core[0]


def absent(bundle: Bundle, request: Request) -> bool:
    return not installed("openvino") or not _serves(bundle)


def open(bundle: Bundle, request: Request) -> OpenVINORunner:
    """Compile the bundle for this CPU, or take it from the cache of compiled models."""
    require("openvino", "OpenVINO", "pip install openvino")
    if not _serves(bundle):
        raise EngineError(f"{bundle.path} has FFTs as a TensorRT plugin's nodes; for OpenVINO export --fft matmul")
    return OpenVINORunner(bundle, request)


def _serves(bundle: Bundle) -> bool:
    """A bundle of a plugin's nodes has neither."""
    return bundle.engine("openvino") is not None or bundle.engine("onnx") is not None


def _multiplies_bytes() -> bool:
    """Whether the CPU has int8 dot products (VNNI on x86, dotprod on Arm), as far as Linux says."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return True
    return not words.isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))


class OpenVINORunner:
    """In fp32 one compiled model serves every size. In bf16 or fp16 each size is compiled: fixing the size folds the
    DFT bases, which must be made in fp32 (in bf16 their angles lose their digits). Where a bundle takes several, those
    are not cached on disk: there would be a copy of the weights for each size."""

    backend = "openvino"

    def __init__(self, bundle: Bundle, request: Request) -> None:
        import openvino

        name: EngineName = "openvino" if bundle.engine("openvino") else "onnx"
        self.sizes, self.io = bundle.manifest.engines[name].sizes, bundle.manifest.io
        self._inputs = bundle.manifest.inputs
        self._core, self._lock = core(), threading.Lock()
        quantized = _takes_int8(bundle, name, request.precision)
        other = bundle.manifest.engines[name].precision == "int8" and not quantized
        file = bundle.graph("fp32") if other else bundle.files(name)[0]
        computed, note = self._choose(request.precision, quantized)
        self.precision = computed if not quantized else "int8" if computed == "fp32" else f"int8+{computed}"
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _TYPES[computed],
            # Else its threads are bound to the first cores, those of a second process to the same ones, and both take
            # twice as long. Alone, it makes no difference that could be measured.
            "ENABLE_CPU_PINNING": False,
        }
        if request.threads:
            self._config["INFERENCE_NUM_THREADS"] = request.threads
        self._fixes_sizes = computed != "fp32"
        self.compiles_sizes = self._fixes_sizes and not self.sizes.static
        folder = cache.folder("openvino")
        if folder and not self.compiles_sizes:
            self._config["CACHE_DIR"] = str(folder)
        try:
            self._model = self._core.read_model(str(file))
            self._outputs = {port.get_any_name() for port in self._model.outputs}
            self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
            if not self._fixes_sizes:
                self._compiled[()] = self._core.compile_model(self._model, "CPU", self._config)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile {file}: {str(error).strip().splitlines()[-1]}") from error
        version = openvino.__version__.split("-")[0]
        self.description = f"OpenVINO {version} CPU {self.precision}{note}"

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with --predicted")
        try:
            with self._lock:  # a compiled model serves one caller at a time
                model = self._for(image.shape)
                return model({"image": image, "mask": mask}, share_inputs=True, share_outputs=False)[output]
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {str(error).strip().splitlines()[-1]}") from error

    def _for(self, shape: tuple[int, ...]) -> Any:
        key = shape if self._fixes_sizes else ()
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        height, width = shape[1:3] if self.io == "uint8" else shape[2:]
        self._compiled[key] = self._core.compile_model(self._of(shape[0], height, width), "CPU", self._config)
        if len(self._compiled) > _MAX_COMPILED:
            self._compiled.popitem(last=False)
        return self._compiled[key]

    def _of(self, batch: int, height: int, width: int) -> Any:
        """The model for one size alone, in a half type."""
        model = self._model.clone()
        model.reshape({tensor.name: list(tensor.shape_for(batch, height, width)) for tensor in self._inputs})
        columns.as_convolutions(model)
        return model

    def profile(self, height: int, width: int, runs: int) -> Iterator[list[tuple[str, str, float]]]:
        """Of each run of a blank image, what the engine spent its time on: node, its kind in the engine, seconds.
        Raises EngineError where it fails."""
        model = self._of(1, height, width) if self._fixes_sizes else self._model
        blank = {tensor.name: np.zeros(tensor.shape_for(1, height, width), tensor.dtype) for tensor in self._inputs}
        try:
            compiled = self._core.compile_model(model, "CPU", {**self._config, "CACHE_DIR": "", "PERF_COUNT": True})
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot profile: {str(error).strip().splitlines()[-1]}") from error
        for _ in range(runs):
            try:
                request.infer(blank)
            except RuntimeError as error:
                raise EngineError(f"OpenVINO failed: {str(error).strip().splitlines()[-1]}") from error
            yield [(n.node_name, n.node_type, n.real_time.total_seconds()) for n in request.profiling_info]

    def _choose(self, precision: str, quantized: bool) -> tuple[str, str]:
        """What this CPU computes in (of a quantized graph, all that is not int8), and a note where it is not what was
        asked for."""
        notes, computed = [], "fp32"
        if quantized and not _multiplies_bytes():
            notes.append("no VNNI: no faster than fp32")
        wanted = precision.removeprefix("int8+")
        if wanted in _CAPABILITIES:
            if _CAPABILITIES[wanted] in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                computed = wanted
            else:
                notes.append(f"no {wanted}")
        return computed, f" (this CPU has {', '.join(notes)})" if notes else ""


def _takes_int8(bundle: Bundle, name: EngineName, precision: str) -> bool:
    """Whether the engine's int8 is what is asked for; a bundle in int8 has the fp32 graph, too. Raises EngineError
    where it is asked for and not there."""
    there = bundle.manifest.engines[name].precision == "int8"
    if precision.startswith("int8") and not there:
        remedy = "export it with --precision int8 --calib FOLDER --target openvino"
        if "int8" in bundle.manifest.graphs:
            remedy = f"glama-build {bundle.path} --target openvino --precision int8"
        raise EngineError(f"{bundle.path} is not in int8 for OpenVINO; {remedy}")
    return there and (precision == "auto" or precision.startswith("int8"))
