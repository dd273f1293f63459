"""Run graphs with RFFT2 and IRFFT2 nodes on a CPU, for development.

Polygraphy runs the graph node by node: our nodes in numpy, every other node as an ONNX Runtime session of its own.

Needs polygraphy, onnx-graphsurgeon, onnx and onnxruntime.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from onnx import helper

from glama_deploy.runtime.base import require
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session
from glama_deploy.runtime.tensorrt.plugins import fft

_REMEDY = "pip install polygraphy onnx-graphsurgeon onnx onnxruntime"


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model on a CPU.

    Polygraphy's `pluginref` backend gets our nodes, and every other operator of the model.

    Args:
        model: A model, which may have RFFT2 and IRFFT2 nodes.
        feeds: The inputs by name.

    Returns:
        The outputs by name.

    Raises:
        EngineError: a package is not installed.
    """
    surgeon = require("onnx_graphsurgeon", "onnx-graphsurgeon", _REMEDY)
    pluginref = require("polygraphy.backend.pluginref", "polygraphy", _REMEDY)
    _register_own()
    _register_standard(model)
    with pluginref.PluginRefRunner(surgeon.import_onnx(model)) as runner:
        return dict(runner.infer(feeds))


def _register_own() -> None:
    references = require("polygraphy.backend.pluginref.references", "polygraphy", _REMEDY)

    def rfft2(attributes: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
        return [fft.rfft2(x)]

    def irfft2(attributes: dict[str, Any], z: np.ndarray, like: np.ndarray) -> list[np.ndarray]:
        return [fft.irfft2(z, like)]

    def cast(attributes: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
        # in numpy, because bfloat16 arrays cannot leave a session
        return [x.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))]

    references.register("Cast")(cast)
    references.register("RFFT2")(rfft2)
    references.register("IRFFT2")(irfft2)


def _register_standard(model: onnx.ModelProto) -> None:
    """Register one reference for all operators of ONNX itself, with this model's opset."""
    references = require("polygraphy.backend.pluginref.references", "polygraphy", _REMEDY)
    (opset,) = [entry.version for entry in model.opset_import if not entry.domain]
    single = functools.partial(_run_node, opset)
    references.OP_REGISTRY.update(
        {node.op_type: single for node in model.graph.node if not node.domain and node.op_type != "Cast"}
    )


def _run_node(opset: int, node: Any, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run one graphsurgeon node on the tensors that exist already. Return its outputs by name."""
    surgeon = require("onnx_graphsurgeon", "onnx-graphsurgeon", _REMEDY)
    feeds = {
        tensor.name: np.asarray(tensor.values if isinstance(tensor, surgeon.Constant) else tensors[tensor.name])
        for tensor in node.inputs
        if not tensor.is_empty()
    }
    proto = surgeon.exporters.onnx_exporter.OnnxExporter.export_node(node)
    types = tuple((name, helper.np_dtype_to_tensor_dtype(array.dtype), array.ndim) for name, array in feeds.items())
    session = _session(proto.SerializeToString(), types, opset)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@functools.lru_cache(maxsize=1024)
def _session(node: bytes, inputs: tuple[tuple[str, int, int], ...], opset: int) -> Any:
    """Return an ONNX Runtime session of one node, for inputs of the given names, types and ranks."""
    proto = onnx.NodeProto.FromString(node)
    sources = [helper.make_tensor_value_info(name, kind, [None] * rank) for name, kind, rank in inputs]
    targets = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = helper.make_graph([proto], "node", sources, targets)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return open_cpu_session(model.SerializeToString())
