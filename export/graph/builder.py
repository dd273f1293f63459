"""A builder of ONNX graphs, which keeps nodes in order and constants by name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: The version of ONNX's operators in the graph: it has all that the network needs, and all engines support it.
OPSET = 18
#: The oldest file format that may contain opset 18, so that old runtimes load the graph.
IR_VERSION = 8

_ONNX_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Value:
    """An input or output of a graph.

    Attributes:
        name: The tensor's name.
        dtype: `float32` or `uint8`.
        shape: The length of each axis; the name of each axis whose length is free.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GraphBuilder:
    """Collects nodes and initializers. A value is the name of its node or initializer."""

    def __init__(self, scope: str = "") -> None:
        """Start an empty graph.

        Args:
            scope: The prefix of the names of all nodes and initializers. The builder does not change names of inputs.
        """
        self._scope = scope
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._declared: list[onnx.ValueInfoProto] = []
        self._optional_inputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()

    def scoped(self, scope: str) -> GraphBuilder:
        """Return a builder of the same graph with a longer prefix.

        Args:
            scope: Text that is added to the prefix.

        Returns:
            The builder.
        """
        other = copy.copy(self)
        other._scope = self._scope + scope
        return other

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add an initializer, unless the graph has an initializer of that name.

        Args:
            name: The initializer's name, without the scope.
            values: The values.

        Returns:
            The initializer's name, with the scope.
        """
        name = self._scope + name
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def optional_input(self, name: str, default: np.ndarray) -> None:
        """Add an input with a default.

        Args:
            name: The input's name, to which the scope is not added.
            default: The values where the caller sets none, int64.
        """
        self._initializers[name] = numpy_helper.from_array(default, name)
        self._optional_inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, default.shape))

    def ints(self, *values: int) -> str:
        """Add an int64 vector. Equal vectors share one initializer.

        Args:
            *values: The elements.

        Returns:
            The initializer's name.
        """
        label = "_".join(map(str, values)).replace("-", "m")
        return self.constant(f"const/{label}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """Add a float32 scalar. Equal scalars share one initializer.

        Args:
            value: The scalar.

        Returns:
            The initializer's name.
        """
        return self.constant(f"const/float_{value}", np.array(value, np.float32))

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output.

        Args:
            op: The operator.
            inputs: The node's inputs.
            name: The name of the node and of its output, without the scope.
            **attributes: The operator's attributes.

        Returns:
            The output's name, with the scope.

        Raises:
            ValueError: the graph has a node of that name.
        """
        name = self._scope + name
        if name in self._names:
            raise ValueError(f"two nodes are called {name}")
        self._names.add(name)
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def range(self, count: str, name: str) -> str:
        """Append nodes that give 0, 1, …, count−1.

        Args:
            count: An int64 vector of one element.
            name: The name of the last node, without the scope.

        Returns:
            The output's name: int64 [count].
        """
        scalar = self.add("Squeeze", [count, self.ints(0)], f"{name}_count")
        zero = self.constant("const/scalar_0", np.array(0, np.int64))
        one = self.constant("const/scalar_1", np.array(1, np.int64))
        return self.add("Range", [zero, scalar, one], name)

    def declare(self, name: str, shape: Sequence[int | None]) -> None:
        """Declare the shape of a plugin's float32 output, which ONNX cannot infer.

        Args:
            name: The output's name, without the scope.
            shape: The length of each axis; None where the length is unknown.
        """
        self._declared.append(helper.make_tensor_value_info(self._scope + name, TensorProto.FLOAT, list(shape)))

    def has(self, name: str) -> bool:
        """Return whether the graph has a node.

        Args:
            name: The node's name, without the scope.

        Returns:
            True if a node of that name was added.
        """
        return self._scope + name in self._names

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value], metadata: dict[str, str]) -> onnx.ModelProto:
        """Make the model.

        Args:
            inputs: The graph's inputs.
            outputs: The graph's outputs, which are names of nodes.
            metadata: Texts that the model's file contains, by key.

        Returns:
            The model, not checked.
        """

        def describe(values: Sequence[Value]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(v.name, _ONNX_TYPES[v.dtype], list(v.shape)) for v in values]

        graph = helper.make_graph(
            self._nodes,
            "inpainting",
            [*describe(inputs), *self._optional_inputs],
            describe(outputs),
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
