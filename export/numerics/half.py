"""Conversion of a float32 graph to fp16 or bf16. TensorRT computes each layer in the type that the graph gives.

Every convolution, matrix product and pointwise operation of the network gets the half type. These stay float32:

- masking and compositing, so known pixels stay exact, and the interpolated picture of a network with `fill`;
- computations about sizes, and the DFT bases of a graph of any size, whose angles would lose digits (the finished bases
  are cast once);
- transforms that a library computes (DFT nodes, cuFFT), with their scaling;
- the nodes that the caller names, because their values leave the half type's range.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.export.graph import fft_library, inputs_outputs, two_stage
from glama_deploy.fourier import split
from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis
from glama_deploy.node_names import (
    COARSE_PREFIX,
    COLUMN_BASIS,
    COLUMN_INVERSE_BASIS,
    FFT,
    FILL,
    NORM_SHIFT,
    ROW_BASIS,
    ROW_INVERSE_BASIS,
    WINDOW,
    get_part,
)

Half = Literal["fp16", "bf16"]

_STORED_TYPES = {
    "fp32": (TensorProto.FLOAT, np.dtype(np.float32)),
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}

#: Convolutions support bfloat16 from opset 22 on, which needs a newer file format.
_OPSETS = {"fp16": 18, "bf16": 22}
_IR_VERSIONS = {"fp16": 8, "bf16": 10}


def is_always_fp32(node: onnx.NodeProto) -> bool:
    """Return whether a node is float32 at every precision.

    These nodes mask, interpolate and composite images; resample between two stages; compute the sigmoid, whose steps
    would be visible in a half type; or belong to a library's transform.

    Args:
        node: A node of the float32 graph.

    Returns:
        True if the node stays float32.
    """
    part = get_part(node.name.removeprefix(COARSE_PREFIX))
    return (
        part in (*inputs_outputs.PARTS, *two_stage.PARTS, FILL)
        or node.op_type in fft_library.FP32_OPERATORS
        or node.name.endswith(fft_library.FP32_SUFFIXES)
    )


def find_unsupported_nodes(model: onnx.ModelProto, half: Half) -> dict[str, str]:
    """Find the nodes that TensorRT does not support in a half type.

    In bf16 these are the transposed convolutions, which TensorRT-RTX 1.7 does not build.

    Args:
        model: The float32 graph.
        half: The half type.

    Returns:
        The nodes' names, each with the reason.
    """
    if half != "bf16":
        return {}
    return {n.name: "TensorRT-RTX 1.7 builds no bf16 of it" for n in model.graph.node if n.op_type == "ConvTranspose"}


def convert_to_half(model: onnx.ModelProto, half: Half, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Convert a float32 model to a half type.

    A cast stands only where the type changes, one for each value and type.

    Args:
        model: The float32 model, which is not changed.
        half: The half type.
        keep: The names of further nodes that compute in float32.

    Returns:
        The converted model.

    Raises:
        ValueError: the graph has no node of a name in `keep`.
    """
    return _HalfConverter(model, half, frozenset(keep)).run()


class _HalfConverter:
    def __init__(self, model: onnx.ModelProto, half: Half, keep: frozenset[str]) -> None:
        unknown = keep - {node.name for node in model.graph.node}
        if unknown:
            raise ValueError(f"no node is called {', '.join(sorted(unknown))}")
        self._model = model
        self._half = half
        self._keep = keep
        self._constants = {constant.name: constant for constant in model.graph.initializer}
        # the type of each float value whose node is written, by name
        self._types = {value.name: "fp32" for value in model.graph.input if value.name != WINDOW}
        self._data = set(self._types)  # values that depend on the image's pixels
        self._nodes: list[onnx.NodeProto] = []
        self._new_constants: dict[str, onnx.TensorProto] = {}
        self._casts: dict[tuple[str, str], str] = {}
        self._split: dict[str, dict[str, np.ndarray]] = {}

    def run(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            self._write_node(node)
        graph = helper.make_graph(
            self._nodes,
            self._model.graph.name,
            list(self._model.graph.input),
            list(self._model.graph.output),
            list(self._new_constants.values()),
            value_info=list(self._model.graph.value_info),  # of plugins' outputs, which stay float32
        )
        own = [opset for opset in self._model.opset_import if opset.domain]
        result = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", max(_OPSETS[self._half], self._model.opset_import[0].version)),
                *own,
            ],
            ir_version=max(_IR_VERSIONS[self._half], self._model.ir_version),
            producer_name=self._model.producer_name,
        )
        properties = {p.key: p.value for p in self._model.metadata_props}
        helper.set_model_props(result, {**properties, "precision": self._half})
        onnx.checker.check_model(result, full_check=True)
        return result

    def _write_node(self, node: onnx.NodeProto) -> None:
        from_image = node.op_type != "Shape" and any(name in self._data for name in node.input)
        from_image |= node.op_type == "DequantizeLinear"  # weights in bytes are the network's, too
        if not from_image:  # about sizes: as it is
            kind = None
        elif node.name in self._keep or is_always_fp32(node):
            kind = "fp32"
        else:
            kind = self._half
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._convert_value(name, kind) if name else name
        if node.op_type == "DFT" and _OPSETS[self._half] >= 20:
            self._move_axis_to_input(copy)
        self._nodes.append(copy)
        if kind is not None:
            self._data.update(node.output)
            self._types.update(dict.fromkeys(node.output, kind))

    def _move_axis_to_input(self, dft: onnx.NodeProto) -> None:
        """Move the axis of a DFT node to its third input, as opset 20 and later need it."""
        (axis,) = [a for a in dft.attribute if a.name == "axis"]
        name = f"const/axis_{axis.i}"
        self._new_constants[name] = numpy_helper.from_array(np.array(axis.i, np.int64), name)
        dft.attribute.remove(axis)
        dft.input.extend([""] * (2 - len(dft.input)) + [name])

    def _convert_value(self, name: str, kind: str | None) -> str:
        """Return the value `name` in the type `kind`: itself, a constant of that type, or a cast."""
        if name in self._constants:
            return self._convert_constant(name, kind)
        if kind is None or self._types.get(name, "fp32") == kind or not self._is_float(name):
            return name
        if (name, kind) not in self._casts:
            cast = f"{name}/{kind}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=_STORED_TYPES[kind][0]))
            self._casts[name, kind] = cast
        return self._casts[name, kind]

    def _is_float(self, name: str) -> bool:
        """Return whether a value is float: values of the network, the finished DFT bases, and shifts of spectra."""
        return name in self._data or name in _BASES or name.endswith(f"_{NORM_SHIFT}")

    def _convert_constant(self, name: str, kind: str | None) -> str:
        constant = self._constants[name]
        if constant.data_type != TensorProto.FLOAT or kind in (None, "fp32"):
            self._new_constants.setdefault(name, constant)
            return name
        half_name = f"{name}/{kind}"
        if half_name not in self._new_constants:
            with np.errstate(over="ignore"):  # a weight that overflows is infinite here, as it would be on the device
                values = self._compute_exactly(name, numpy_helper.to_array(constant)).astype(_STORED_TYPES[kind][1])
            self._new_constants[half_name] = numpy_helper.from_array(values, half_name)
        return half_name

    def _compute_exactly(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a DFT basis in float64, so that it is rounded once; any other constant unchanged."""
        scope = COARSE_PREFIX if name.startswith(COARSE_PREFIX) else ""
        name = name.removeprefix(scope)
        if name == ROW_BASIS:
            return row_basis(values.shape[0])
        if name == ROW_INVERSE_BASIS:
            return inverse_row_basis(values.shape[1])
        if name in _BASES:
            basis = column_basis(values.shape[0] // 2)
            return basis if name == COLUMN_BASIS else basis.T
        return self._compute_split_bases(scope).get(name, values)

    def _compute_split_bases(self, scope: str) -> dict[str, np.ndarray]:
        if scope not in self._split:
            names = [f"{scope}{FFT}/{name}" for name in split.MINOR]
            shapes = [tuple(self._constants[name].dims) for name in names if name in self._constants]
            bases = split.compute_bases(*split.find_size(*shapes)) if shapes else {}
            self._split[scope] = {f"{FFT}/{basis}": values for basis, values in bases.items()}
        return self._split[scope]


_BASES = {ROW_BASIS, COLUMN_BASIS, COLUMN_INVERSE_BASIS, ROW_INVERSE_BASIS}
