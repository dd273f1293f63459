"""Write a graph for browsers: the weights once, and a structure for each provider of ONNX Runtime Web.

An ONNX file is a protobuf message, and protobuf merges messages that stand one behind the other. So the bytes of a
structure followed by the bytes of the weights are a model, and a browser only has to join two downloads:

    wasm     3×3 convolutions by Winograd's method (:mod:`glama_deploy.runtime.onnxruntime.winograd`). The transformed
             kernels are computed from the shared weights when the session is created, by nodes that ONNX Runtime
             evaluates once.
    webgpu   the graph as the bundle has it

In fp16 the kernels of convolutions are stored in fp16 and converted when the session is created. All layers compute in
fp32, because ONNX Runtime's WebAssembly has no convolutions in fp16.

The input `window` has no default here: ONNX Runtime Web refuses values for inputs with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.errors import GlamaError
from glama_deploy.node_names import WINDOW
from glama_deploy.runtime.onnxruntime import winograd
from glama_deploy.runtime.onnxruntime.model_file import read_model
from glama_deploy.runtime.winograd_matrices import VALUES_PER_TILE, make_matrices

#: The providers for which a structure is written.
PROVIDERS = ("wasm", "webgpu")

#: Channels from which on Winograd's method is faster in WebAssembly (benchmarks/RESULTS-WEB.md).
MIN_WINOGRAD_CHANNELS = 32

#: Smaller tensors stay in the structures: biases, and the constants of interpolation, which need all digits.
MIN_WEIGHT_ELEMENTS = 1024

#: Operators whose second input is a kernel.
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Parts:
    """The parts of a model.

    Attributes:
        weights: The bytes of the weights.
        structures: The bytes of the structures, by provider.
    """

    weights: bytes
    structures: Mapping[str, bytes]

    def join(self, provider: str) -> bytes:
        """Return the whole model for a provider, as a browser joins it.

        Args:
            provider: The provider, of `PROVIDERS`.

        Returns:
            The bytes of an ONNX file.
        """
        return self.structures[provider] + self.weights


def split_model(path: Path, precision: str) -> Parts:
    """Split a bundle's graph into parts.

    Args:
        path: The bundle's graph in fp32, of any size, with float tensors.
        precision: The type in which the kernels are stored, `fp32` or `fp16`.

    Returns:
        The parts.

    Raises:
        GlamaError: A kernel has values beyond fp16.
    """
    plain = onnx.load(str(path))
    kernels = _find_kernels(plain)
    weights = onnx.ModelProto()
    weights.graph.initializer.extend(_store(name, values, precision) for name, values in kernels.items())
    structures = {}
    for provider, model in zip(PROVIDERS, (_rewrite(path), plain), strict=True):
        _free_window(model)
        _refer_to_kernels(model, kernels, precision)
        structures[provider] = model.SerializeToString()
    return Parts(weights.SerializeToString(), structures)


def _find_kernels(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the float32 kernels of convolutions that are large enough to be shared, by name."""
    names = {node.input[1] for node in model.graph.node if node.op_type in _CONVOLUTIONS}
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in names}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in stored.items()}
    return {name: values for name, values in arrays.items() if values.size >= MIN_WEIGHT_ELEMENTS}


def _rewrite(path: Path) -> onnx.ModelProto:
    """Return the model with Winograd's method, and the transformed kernels stored."""
    message = read_model(path)
    _, transformed = winograd.rewrite(message, MIN_WINOGRAD_CHANNELS)
    model = onnx.ModelProto.FromString(message.SerializeToString())
    for described in [value for value in model.graph.input if value.name in transformed]:
        model.graph.input.remove(described)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in transformed.items())
    return model


def _free_window(model: onnx.ModelProto) -> None:
    """Make the window an input without a default, and the outputs' sizes unknown, because they are the window's."""
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name == WINDOW]:
        model.graph.initializer.remove(tensor)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _store(name: str, values: np.ndarray, precision: str) -> TensorProto:
    if precision != "fp16":
        return numpy_helper.from_array(values, name)
    half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise GlamaError(f"the kernel {name} has values beyond fp16; use `precision=fp32`")
    return numpy_helper.from_array(half, _half_name(name))


def _half_name(name: str) -> str:
    return f"{name}/fp16"


def _refer_to_kernels(model: onnx.ModelProto, kernels: Mapping[str, np.ndarray], precision: str) -> None:
    """Replace the stored kernels of a structure, and what is computed from kernels, by nodes that read the weights."""
    nodes, kept = [], []
    for tensor in model.graph.initializer:
        stem, kind = _parse_name(tensor.name)
        if tensor.name in kernels:
            continue
        if kind and stem in kernels:
            nodes += _compute_from_kernel(stem, kernels[stem].shape, kind)
        else:
            kept.append(TensorProto.FromString(tensor.SerializeToString()))
    if any(node.op_type == "MatMul" for node in nodes):
        kept.append(numpy_helper.from_array(_make_kernel_transform(), _TRANSFORM))
    if precision == "fp16":
        nodes = [
            helper.make_node("Cast", [_half_name(name)], [name], name=name, to=TensorProto.FLOAT) for name in kernels
        ] + nodes
    others = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    model.graph.ClearField("initializer")
    model.graph.ClearField("node")
    model.graph.initializer.extend(kept)
    model.graph.node.extend([*nodes, *others])


def _parse_name(name: str) -> tuple[str, str]:
    """Return the kernel's name and the suffix of a tensor that Winograd's rewrite computes; else the name and ''."""
    for suffix in (winograd.VALUES_SUFFIX, winograd.MATRIX_SUFFIX):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


#: The name of G ⊗ G [36, 9], which transforms a kernel of nine weights to 36 values.
_TRANSFORM = "web/kernel_transform"


def _make_kernel_transform() -> np.ndarray:
    factor = make_matrices()[1]
    return np.kron(factor, factor).astype(np.float32)


def _compute_from_kernel(kernel: str, shape: tuple[int, ...], kind: str) -> list[onnx.NodeProto]:
    """Return the nodes that compute G g Gᵀ [36, C, K] of a 3×3 kernel [K, C, 3, 3], or the matrix [C, K] of a 1×1."""
    outputs, channels = shape[:2]
    name = kernel + kind
    if kind == winograd.MATRIX_SUFFIX:
        return [
            _constant(f"{name}/shape", [outputs, channels]),
            helper.make_node("Reshape", [kernel, f"{name}/shape"], [f"{name}/rows"], name=f"{name}/rows"),
            helper.make_node("Transpose", [f"{name}/rows"], [name], name=name, perm=[1, 0]),
        ]
    return [
        helper.make_node("Transpose", [kernel], [f"{name}/taps"], name=f"{name}/taps", perm=[2, 3, 1, 0]),
        _constant(f"{name}/flat_shape", [9, channels * outputs]),
        helper.make_node("Reshape", [f"{name}/taps", f"{name}/flat_shape"], [f"{name}/flat"], name=f"{name}/flat"),
        helper.make_node("MatMul", [_TRANSFORM, f"{name}/flat"], [f"{name}/products"], name=f"{name}/products"),
        _constant(f"{name}/shape", [VALUES_PER_TILE**2, channels, outputs]),
        helper.make_node("Reshape", [f"{name}/products", f"{name}/shape"], [name], name=name),
    ]


def _constant(name: str, values: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], name=name, value_ints=values)
