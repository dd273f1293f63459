"""Emulation of tensor cores on a CPU: each value of a half type is rounded to its type.

A tensor core multiplies half values exactly and adds the products in float32. The result is rounded when it is stored.
The emulation replaces each half operation by a float32 operation, whose result is cast to the half type and back. (A
product of two fp16 values is exact in float32.) ONNX Runtime runs the graph without optimizations, because a fusion
would skip a rounding. Bytes with a scale are multiplied as they are: an int8 convolution scales the sum. The emulation
does not have a GPU's order of additions, which changes the last digits of float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy import memory
from glama_deploy.bundle import Io, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.runtime.base import DeviceKind, Runner
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

_HALF = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def emulate_half_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a typed model to a float32 model that rounds where the typed model would.

    Args:
        model: A graph with fp16 or bf16 values, which is not changed.

    Returns:
        The float32 graph, of the same inputs and outputs.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    half = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.elem_type in _HALF
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        if node.op_type == "Cast" and copy.attribute[0].i in _HALF:
            copy.attribute[0].i = TensorProto.FLOAT
        for index, name in enumerate(node.output):
            if name in half and node.op_type != "DequantizeLinear":
                exact, stored = f"{name}/exact", f"{name}/stored"
                copy.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [stored], name=stored, to=half[name]))
                nodes.append(helper.make_node("Cast", [stored], [name], name=f"{name}/widened", to=TensorProto.FLOAT))
    constants = [
        numpy_helper.from_array(numpy_helper.to_array(c).astype(np.float32), c.name) if c.data_type in _HALF else c
        for c in model.graph.initializer
    ]
    graph = helper.make_graph(nodes, model.graph.name, list(model.graph.input), list(model.graph.output), constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


class EmulatedRunner(Runner):
    """A runner over the emulation; takes what the typed graph takes."""

    backend = "emulated"
    device: DeviceKind = "cpu"

    def __init__(
        self,
        model: onnx.ModelProto,
        precision: str,
        sizes: SizeRange,
        threads: int | None = None,
        network: NetworkConfig | None = None,
    ) -> None:
        """Open the emulation of a typed graph.

        Args:
            model: the typed graph.
            precision: what the typed graph computes in.
            sizes: sizes that the typed graph takes.
            threads: CPU threads; None for all.
            network: the graph's network, by which memory is estimated; None for LaMa, which needs most.
        """
        self._outputs = {output.name for output in model.graph.output}
        plugins = any(node.domain for node in model.graph.node)
        self._run = (
            _open_by_node(emulate_half_types(model)) if plugins else _open_session(emulate_half_types(model), threads)
        )
        self.precision, self.sizes, self._network = precision, sizes, network or NetworkConfig()
        image = model.graph.input[0].type.tensor_type.elem_type
        self.io: Io = "uint8" if image == TensorProto.UINT8 else "float"
        self.description = f"{precision} emulated on a CPU"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the graph has no output {output!r}")
        try:
            return self._run(output, {IMAGE: image, MASK: mask})
        except Exception as error:  # ONNX Runtime's own have no other base
            raise EngineError(f"the emulation failed: {first_line(error, MAX_ENGINE_LINE)}") from error


def _open_session(model: onnx.ModelProto, threads: int | None) -> Callable[[str, dict[str, np.ndarray]], np.ndarray]:
    """Return a function that runs the whole graph on ONNX Runtime, without fusions; threads None: all."""
    session = open_cpu_session(model.SerializeToString(), threads=threads, is_optimized=False)
    return lambda output, feeds: session.run([output], feeds)[0]


def _open_by_node(model: onnx.ModelProto) -> Callable[[str, dict[str, np.ndarray]], np.ndarray]:
    """Return a function that runs a graph with plugins' nodes, node by node. NumPy computes the plugins' nodes."""
    from glama_deploy.runtime.tensorrt.plugins import cpu_reference

    return lambda output, feeds: cpu_reference.run(model, feeds)[output]
