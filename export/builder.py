"""An ONNX graph in the making: nodes in order, constants by name, every value named after what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Has everything the lowered network needs, and every engine of the last years parses it.
OPSET = 18
#: The oldest file format that opset 18 may be written in, so that older runtimes load it.
IR_VERSION = 8


class GraphBuilder:
    """Collects nodes and initializers; values are strings, named after the node that makes them."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._names: set[str] = set()

    def constant(self, name: str, values: np.ndarray) -> str:
        """An initializer; asking again for a name gives the one that is there."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector, shared by all who need the same one."""
        label = "_".join(map(str, values)).replace("-", "m")
        return self.constant(f"const/{label}", np.array(values, np.int64))

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which bears the node's name."""
        if name in self._names:
            raise ValueError(f"two nodes are called {name}")
        self._names.add(name)
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def has(self, name: str) -> bool:
        """Whether a node of this name is there already."""
        return name in self._names

    def model(
        self,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """The float32 model with the given inputs and outputs (name → shape, symbols as strings)."""

        def infos(shapes: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in shapes.items()]

        graph = helper.make_graph(
            self._nodes, "inpainting", infos(inputs), infos(outputs), list(self._initializers.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="glama-deploy"
        )
        helper.set_model_props(model, metadata)
        return model
