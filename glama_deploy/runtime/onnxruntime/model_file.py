"""ONNX models as messages that can be changed, read and written without the onnx package.

Protobuf comes with ONNX Runtime, the onnx package does not. The messages below have the fields of ONNX's format
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that this package reads or writes. Protobuf keeps all other
fields of a file as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.runtime.base import require

#: ONNX's numbers of types with the types in a file, and its numbers of kinds of attributes.
_FLOAT, _INT64 = 1, 7
_DTYPES: Mapping[int, np.dtype[Any]] = {_FLOAT: np.dtype("<f4"), _INT64: np.dtype("<i8")}
_INTEGER_ATTRIBUTE, _INTEGERS_ATTRIBUTE = 2, 7

#: The messages' fields: name, number in the file, type. A type behind `repeated` stands for a list.
_FIELDS: Mapping[str, Sequence[tuple[str, int, str]]] = {
    "Model": [("graph", 7, "Graph")],
    "Graph": [
        ("node", 1, "repeated Node"),
        ("initializer", 5, "repeated Tensor"),
        ("input", 11, "repeated Value"),
        ("output", 12, "repeated Value"),
    ],
    "Value": [("name", 1, "string"), ("type", 2, "Type")],
    "Type": [("tensor_type", 1, "TensorType")],
    "TensorType": [("elem_type", 1, "int32"), ("shape", 2, "Shape")],
    "Shape": [("dim", 1, "repeated Dimension")],
    "Dimension": [("dim_value", 1, "int64")],
    "Node": [
        ("input", 1, "repeated string"),
        ("output", 2, "repeated string"),
        ("name", 3, "string"),
        ("op_type", 4, "string"),
        ("attribute", 5, "repeated Attribute"),
    ],
    "Attribute": [
        ("name", 1, "string"),
        ("i", 3, "int64"),
        ("s", 4, "bytes"),
        ("ints", 8, "repeated int64"),
        ("type", 20, "int32"),
    ],
    "Tensor": [
        ("dims", 1, "repeated int64"),
        ("data_type", 2, "int32"),
        ("name", 8, "string"),
        ("raw_data", 9, "bytes"),
    ],
}


@cache
def _make_message_classes() -> dict[str, Any]:
    """Return the classes of :data:`_FIELDS`, in a pool of their own: the onnx package may have registered its own."""
    require("google.protobuf", "protobuf, which ONNX Runtime installs,", "pip install protobuf", "__version__")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file, package = descriptor_pb2.FileDescriptorProto(), "glama_deploy.onnx"
    file.name, file.package, file.syntax = "glama_deploy/onnx.proto", package, "proto2"
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, number, type_name in fields:
            bare = type_name.removeprefix("repeated ")
            field = message.field.add(name=field_name, number=number)
            field.label = kind.LABEL_OPTIONAL if bare == type_name else kind.LABEL_REPEATED
            if bare in _FIELDS:
                field.type, field.type_name = kind.TYPE_MESSAGE, f".{package}.{bare}"
            else:
                field.type = getattr(kind, f"TYPE_{bare.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _FIELDS}


def read_model(path: Path) -> Any:
    """Read a model.

    Args:
        path: The path of an ONNX file.

    Returns:
        The message `Model`.
    """
    return _make_message_classes()["Model"].FromString(path.read_bytes())


def get_attribute(node: Any, name: str) -> Any:
    """Return the value of a node's attribute.

    Args:
        node: The message `Node`.
        name: The attribute's name.

    Returns:
        An integer, a list of integers or bytes. None: the node does not have the attribute.
    """
    for attribute in node.attribute:
        if attribute.name == name:
            if attribute.type == _INTEGER_ATTRIBUTE:
                return attribute.i
            return list(attribute.ints) if attribute.type == _INTEGERS_ATTRIBUTE else attribute.s
    return None


class GraphEditor:
    """Replaces the nodes of a model's graph. A value is the name of a node's output or of a stored tensor."""

    def __init__(self, model: Any) -> None:
        """Start with the model's nodes to read, and with no nodes written.

        Args:
            model: The message `Model`, which :meth:`finish` changes.
        """
        self._graph = model.graph
        self._stored = {tensor.name: tensor for tensor in self._graph.initializer}
        self._nodes: list[Any] = []
        #: The tensors that a run of the model is given beside its other inputs, by name.
        self.weights: dict[str, np.ndarray] = {}

    def is_stored(self, value: str) -> bool:
        """Return whether a value is a stored tensor.

        Args:
            value: The value.

        Returns:
            True for a stored tensor.
        """
        return value in self._stored

    def read_stored(self, value: str) -> np.ndarray | None:
        """Return the elements of a stored tensor.

        Args:
            value: The value.

        Returns:
            The float32 or int64 array, read-only. None: the value is not stored, or in another type or form.
        """
        tensor = self._stored.get(value)
        if tensor is None or not tensor.raw_data or tensor.data_type not in _DTYPES:
            return None
        return np.frombuffer(tensor.raw_data, _DTYPES[tensor.data_type]).reshape(tuple(tensor.dims))

    def keep(self, node: Any) -> None:
        """Append a node of the model.

        Args:
            node: The message `Node`.
        """
        self._nodes.append(node)

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: int | list[int]) -> str:
        """Append a new node with one output.

        Args:
            op: The operator.
            inputs: The node's inputs.
            name: The name of the node and of its output.
            **attributes: The operator's attributes.

        Returns:
            The output.
        """
        node = _make_message_classes()["Node"](input=inputs, output=[name], name=name, op_type=op)
        for key, value in attributes.items():
            if isinstance(value, int):
                node.attribute.add(name=key, type=_INTEGER_ATTRIBUTE, i=value)
            else:
                node.attribute.add(name=key, type=_INTEGERS_ATTRIBUTE, ints=value)
        self._nodes.append(node)
        return name

    def store(self, name: str, values: np.ndarray) -> str:
        """Store a small tensor in the model, unless the model has a tensor of that name.

        Args:
            name: The tensor's name.
            values: Its elements, float32 or int64.

        Returns:
            The value.
        """
        if name not in self._stored:
            number, dtype = next(item for item in _DTYPES.items() if item[1] == values.dtype)
            self._stored[name] = _make_message_classes()["Tensor"](
                name=name, data_type=number, dims=values.shape, raw_data=values.astype(dtype).tobytes()
            )
        return name

    def add_weights(self, name: str, values: np.ndarray) -> str:
        """Add an input for large weights. ONNX Runtime then uses the array itself, and makes no copies.

        Args:
            name: The input's name.
            values: The weights, float32.

        Returns:
            The value.
        """
        described = self._graph.input.add(name=name)
        described.type.tensor_type.elem_type = _FLOAT
        for side in values.shape:
            described.type.tensor_type.shape.dim.add(dim_value=side)
        self.weights[name] = values
        return name

    def ints(self, *values: int) -> str:
        """Store an int64 vector. Equal vectors share one tensor.

        Args:
            *values: The elements.

        Returns:
            The value.
        """
        return self.store(f"edited/ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """Store an int64 scalar. Equal scalars share one tensor.

        Args:
            value: The scalar.

        Returns:
            The value.
        """
        return self.store(f"edited/scalar_{value}", np.array(value, np.int64))

    def finish(self) -> None:
        """Write the nodes into the model, without the nodes and stored tensors that are not read."""
        read, nodes = {output.name for output in self._graph.output}, []
        for node in reversed(self._nodes):
            if not read.isdisjoint(node.output):
                nodes.append(node)
                read.update(node.input)
        stored = [tensor for name, tensor in self._stored.items() if name in read]
        # Copies, because clearing a list may free its messages.
        copies = [[type(message).FromString(message.SerializeToString()) for message in ms] for ms in (nodes, stored)]
        self._graph.ClearField("node")
        self._graph.ClearField("initializer")
        self._graph.node.extend(reversed(copies[0]))
        self._graph.initializer.extend(copies[1])
