"""An ONNX graph in the making: nodes in order, constants by name, every value named after what it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Has everything the lowered network needs, and every engine of the last years parses it.
OPSET = 18
#: The oldest file format that opset 18 may be written in, so that older runtimes load it.
IR_VERSION = 8


_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Value:
    """An input or output: its name, its type (float32 or uint8) and its shape, unknown sides by symbol."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GraphBuilder:
    """Collects nodes and initializers; values are strings, named after the node that makes them.

    `scope` stands before the names of all that is made through it; what the names in `inputs` are, it does not touch.
    """

    def __init__(self, scope: str = "") -> None:
        self._scope = scope
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._declared: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()

    def scoped(self, scope: str) -> GraphBuilder:
        """The same graph, with `scope` before every name."""
        other = copy.copy(self)
        other._scope = self._scope + scope
        return other

    def constant(self, name: str, values: np.ndarray) -> str:
        """An initializer; asking again for a name gives the one that is there."""
        name = self._scope + name
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector, shared by all who need the same one."""
        label = "_".join(map(str, values)).replace("-", "m")
        return self.constant(f"const/{label}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A float32 scalar, shared by all who need the same one."""
        return self.constant(f"const/float_{value}", np.array(value, np.float32))

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which bears the node's name."""
        name = self._scope + name
        if name in self._names:
            raise ValueError(f"two nodes are called {name}")
        self._names.add(name)
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def range(self, count: str, name: str) -> str:
        """0, 1, …, count−1 as int64 [count]; `count` is a vector of one element."""
        scalar = self.add("Squeeze", [count, self.ints(0)], f"{name}_count")
        zero = self.constant("const/scalar_0", np.array(0, np.int64))
        one = self.constant("const/scalar_1", np.array(1, np.int64))
        return self.add("Range", [zero, scalar, one], name)

    def declare(self, name: str, shape: Sequence[int | None]) -> None:
        """Say the shape of a float32 value that no ONNX operator makes, and so no inference finds (None: unknown)."""
        self._declared.append(helper.make_tensor_value_info(self._scope + name, TensorProto.FLOAT, list(shape)))

    def has(self, name: str) -> bool:
        """Whether a node of this name is there already."""
        return self._scope + name in self._names

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value], metadata: dict[str, str]) -> onnx.ModelProto:
        """The model with the given inputs and outputs."""

        def infos(values: Sequence[Value]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(v.name, _TYPES[v.dtype], list(v.shape)) for v in values]

        graph = helper.make_graph(
            self._nodes,
            "inpainting",
            infos(inputs),
            infos(outputs),
            list(self._initializers.values()),
            value_info=self._declared,
        )
        domains = dict.fromkeys(node.domain for node in self._nodes if node.domain)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), *(helper.make_opsetid(name, 1) for name in domains)],
            ir_version=IR_VERSION,
            producer_name="glama-deploy",
        )
        helper.set_model_props(model, metadata)
        return model
