"""The runner for OpenVINO on Intel's GPUs and NPUs.

NPUs run models of one size alone, and OpenVINO recommends such models for GPUs. So each size is compiled before its
first run, from the plain graph: the rewrites that make a CPU faster were measured on CPUs alone. OpenVINO computes in
fp16 there. So all that depends on the size, such as the DFT bases, is computed here in fp32, and becomes a constant.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from glama_deploy import catalogue, memory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.network import parameter_count
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.runtime.base import Request, Runner
from glama_deploy.runtime.openvino.core import core
from glama_deploy.runtime.openvino.devices import read_free_memory, read_kind
from glama_deploy.runtime.openvino.infer_requests import CompiledModel
from glama_deploy.runtime.openvino.precision import (
    PRECISION_HINTS,
    choose_device_precision,
    find_device_precisions,
    uses_int8,
)
from glama_deploy.runtime.openvino.rewrites import fed_bases, size_constants
from glama_deploy.runtime.openvino.rewrites.transform_checks import TransformChecks, bottleneck_size
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line

#: Compiled models that are kept. Each has the weights, and compiling one takes seconds to minutes.
_MAX_COMPILED = 4

#: Copies of the fp32 weights that a size takes when it is compiled: those of the device, and those that the compiler
#: works on. The number is an estimate, and was not measured.
_COMPILE_WEIGHT_COPIES = 2


class AcceleratorRunner(Runner):
    """Runs a bundle with OpenVINO on a GPU or an NPU, one call after the other."""

    backend = catalogue.OPENVINO.backend
    compiles_sizes = True

    def __init__(self, bundle: Bundle, request: Request, name: str) -> None:
        """Read the bundle's OpenVINO engine, or else its ONNX graph. A bundle of one size is compiled at once.

        Args:
            bundle: The bundle.
            request: How to open the engine.
            name: OpenVINO's name of the device.

        Raises:
            EngineError: OpenVINO does not compile the model, or the device does not compute in the precision.
        """
        import openvino

        engine = catalogue.OPENVINO.name if bundle.engine(catalogue.OPENVINO.name) else catalogue.ONNX.name
        self.sizes, self.io = bundle.manifest.engines[engine].sizes, bundle.manifest.io
        self.device, self._name = read_kind(name), name
        self._inputs, self._network = bundle.manifest.inputs, bundle.manifest.network
        self._lock = threading.Lock()  # memory is counted for one run at a time
        self._compiled: OrderedDict[tuple[int, ...], CompiledModel] = OrderedDict()
        #: The shape that ran last, and how many times another shape ran before. Each shape has memory of its own.
        self.holder: tuple[tuple[int, ...], int] = ((), 0)
        quantized = uses_int8(bundle, engine, request.precision)
        has_int8 = catalogue.PRECISIONS[bundle.manifest.engines[engine].precision].is_quantized
        computed, note = choose_device_precision(name, request.precision)
        self.precision = catalogue.quantized_precision(computed) if quantized else computed
        self.precisions = find_device_precisions(name, has_int8=has_int8)
        self._config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device == "gpu":  # an NPU computes in fp16, and some of its drivers do not know the setting
            self._config["INFERENCE_PRECISION_HINT"] = PRECISION_HINTS[computed]
        file = bundle.graph("fp32") if has_int8 and not quantized else bundle.files(engine)[0]
        try:
            self._model = core().read_model(str(file))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot read {file}: {last_line(error, MAX_ENGINE_LINE)}") from error
        self._outputs = {port.get_any_name() for port in self._model.outputs}
        found = fed_bases.rewrite(self._model)
        TransformChecks(bundle.path, bundle.manifest).check_bases(found, static=self.sizes.static)
        if self.sizes.static and self.sizes.max is not None:
            self._get_compiled(self._inputs[0].shape_for(1, *self.sizes.max))
        version = openvino.__version__.split("-")[0]
        self.description = f"OpenVINO {version} {name} {self.precision}{note}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        needed = memory.estimate(*size, self._network, batch, self.precision)
        if self._inputs[0].shape_for(batch, *size) in self._compiled:
            return needed
        return needed + _COMPILE_WEIGHT_COPIES * 4 * parameter_count(self._network)

    def memory_available(self) -> int | None:
        return read_free_memory(self._name)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with `predicted=True`")
        with self._lock:
            model = self._get_compiled(image.shape)
            try:
                return model.run({IMAGE: image, MASK: mask}, output, image.shape)
            except RuntimeError as error:
                del self._compiled[image.shape]  # its requests may fail from now on
                raise EngineError(f"OpenVINO failed: {last_line(error, MAX_ENGINE_LINE)}") from error

    def _get_compiled(self, shape: tuple[int, ...]) -> CompiledModel:
        """Return the compiled model for images of a shape. Raise EngineError where OpenVINO does not compile it."""
        if shape != self.holder[0]:
            self.holder = (shape, self.holder[1] + 1)
        if shape not in self._compiled:
            while len(self._compiled) >= _MAX_COMPILED:  # before the new one takes memory
                self._compiled.popitem(last=False)
            try:
                compiled = core().compile_model(self._fix_size(shape), self._name, self._config)
                self._compiled[shape] = CompiledModel(compiled, 1)
            except RuntimeError as error:
                height, width = self._get_size(shape)
                raise EngineError(
                    f"OpenVINO cannot compile {height}x{width} for {self._name}: {last_line(error, MAX_ENGINE_LINE)}"
                ) from error
        self._compiled.move_to_end(shape)
        return self._compiled[shape]

    def _fix_size(self, shape: tuple[int, ...]) -> Any:
        """Return the model for images of one shape, with constants for all that the shape decides."""
        model, size = self._model.clone(), self._get_size(shape)
        fed_bases.fix(model, *bottleneck_size(self._network, *size))
        model.reshape({tensor.name: list(tensor.shape_for(shape[0], *size)) for tensor in self._inputs})
        size_constants.rewrite(model)
        return model

    def _get_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width of images of a shape."""
        height, width = shape[1:3] if self.io == "uint8" else shape[2:]
        return height, width
