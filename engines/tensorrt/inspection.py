"""Inspect a network before the build, and an engine after it: layers, types, weights, inputs and outputs.

The network is what TensorRT parsed from the graph; every machine can inspect it. The finished engine is read by
TensorRT's inspector, which needs a driver. In both, the precision of a layer is the type of its first output. A layer
of the network that multiplies bytes is int8.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from glama_deploy.bundle import Precision, SizeRange
from glama_deploy.catalogue import PRECISIONS
from glama_deploy.errors import EngineError

#: Our names of types, by the names of TensorRT, NumPy and the inspector. A name stands before names that it contains.
_TYPES = {
    "BFloat16": "bf16",
    "BF16": "bf16",
    "HALF": "fp16",
    "Half": "fp16",
    "FP16": "fp16",
    "float16": "fp16",
    "FLOAT": "fp32",
    "Float": "fp32",
    "FP32": "fp32",
    "float32": "fp32",
    "Int8": "int8",
    "INT8": "int8",
}

#: The fields of a layer's output that name its type in the inspector's JSON, the most exact first: TensorRT 11's,
#: TensorRT-RTX's and TensorRT 10's. TensorRT 11 has the format in a field of its own, which names a type, too.
_TYPE_FIELDS = ("DataType", "Datatype", "Format/Datatype", "Format")

#: The types of the layers that do the network's work, with their classes. Their types are checked.
_CHECKED_LAYERS = {
    "CONVOLUTION": "IConvolutionLayer",
    "DECONVOLUTION": "IDeconvolutionLayer",
    "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
}

#: Layers that move values without computing: reshapes and transpositions.
_SHUFFLE_TYPES = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "Reformat", "Shuffle")


@dataclass(frozen=True)
class Kind:
    """The number of layers of one type and precision.

    Attributes:
        type: TensorRT's name of the layer's type.
        precision: The precision; a type's name for layers that do not compute in a precision.
        count: The number of layers.
        is_about_sizes: Whether the layers compute sizes, and not values of the image.
    """

    type: str
    precision: str
    count: int
    is_about_sizes: bool = False


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: The tensor's name.
        is_output: Whether the tensor is an output.
        dtype: The name of its type.
        shape: Its shape. A side of −1 is free.
    """

    name: str
    is_output: bool
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """The contents of a network or an engine.

    Attributes:
        source: What was inspected.
        kinds: The layers, by type and precision.
        weights: Bytes of weights by type; empty for an engine, whose inspector does not show weights.
        ports: The inputs and outputs.
    """

    source: Literal["network", "engine"]
    kinds: tuple[Kind, ...]
    weights: dict[str, int]
    ports: tuple[Port, ...]

    @property
    def layers(self) -> int:
        """The number of layers."""
        return sum(kind.count for kind in self.kinds)

    @property
    def casts(self) -> int:
        """The number of layers that change the type of values of the image."""
        return self._count_on_image("CAST", "Cast")

    @property
    def shuffles(self) -> int:
        """The number of layers that reshape, transpose or reformat values of the image."""
        return self._count_on_image(*_SHUFFLE_TYPES)

    def _count_on_image(self, *types: str) -> int:
        return sum(kind.count for kind in self.kinds if kind.type in types and not kind.is_about_sizes)


@dataclass(frozen=True)
class Report:
    """The report of a build.

    Attributes:
        contents: The contents of the engine, or of its network.
        engine_bytes: The size of the engine's file, in bytes.
        profiles: The optimization profiles, in order.
        seconds: The time from parsing to the written file, in seconds.
    """

    contents: Contents
    engine_bytes: int
    profiles: tuple[SizeRange, ...]
    seconds: float


def check_types(trt: Any, network: Any, precision: Precision, kept: Collection[str]) -> None:
    """Check that every convolution, transposed convolution and matrix product computes in the precision.

    Inputs, weights and outputs have the type. In int8+fp16 the convolutions multiply bytes, and all other layers are
    fp16. Layers that compute sizes may have any type.

    Args:
        trt: The package, `tensorrt` or `tensorrt_rtx`.
        network: The network, an INetworkDefinition.
        precision: The precision.
        kept: The names of layers that may have any type.

    Raises:
        EngineError: A layer has another type.
    """
    layers = [layer for layer, sizes in _walk_layers(network) if not sizes]
    work = [layer for layer in layers if layer.type.name in _CHECKED_LAYERS]
    in_bytes = _find_dequantized(layers)
    record = PRECISIONS[precision]
    wrong = [
        (layer, types)
        for layer in work
        if layer.name not in kept
        and (
            (types := _list_types(trt, layer)) != {record.computed}
            or (record.is_quantized and layer.type.name != "MATRIX_MULTIPLY" and not _multiplies_bytes(layer, in_bytes))
        )
    ]
    if wrong:
        layer, types = wrong[0]
        raise EngineError(
            f"layer {layer.name} ({layer.type.name.lower()}) has {' and '.join(sorted(types))} where {precision} was "
            f"asked for, {len(wrong)} of {len(work)} such layers have; export the bundle again with "
            f"`precision={record.stored}`"
        )


def inspect_network(trt: Any, network: Any) -> Contents:
    """Inspect a parsed network.

    Args:
        trt: The package, `tensorrt` or `tensorrt_rtx`.
        network: The network, an INetworkDefinition.

    Returns:
        The contents of the network.
    """
    kinds: Counter[tuple[str, str, bool]] = Counter()
    weights: Counter[str] = Counter()
    in_bytes = _find_dequantized(layer for layer, _ in _walk_layers(network))
    for layer, sizes in _walk_layers(network):
        precision = _normalize_type(layer.get_output(0).dtype.name) if layer.num_outputs else ""
        if layer.type.name in _CHECKED_LAYERS and _multiplies_bytes(layer, in_bytes):
            precision = "int8"
        kinds[layer.type.name, precision, sizes] += 1
        for array in _list_weights(trt, layer):
            weights[_read_dtype(array)] += array.nbytes
    found = tuple(Kind(name, kind, count, sizes) for (name, kind, sizes), count in kinds.most_common())
    return Contents("network", found, dict(weights), tuple(_list_ports(network)))


def inspect_engine(trt: Any, engine: Any) -> Contents:
    """Inspect a deserialized engine with TensorRT's inspector.

    Args:
        trt: The package, `tensorrt` or `tensorrt_rtx`.
        engine: The engine, an ICudaEngine.

    Returns:
        The contents of the engine.
    """
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    ports = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        dtype = _normalize_type(engine.get_tensor_dtype(name).name)
        ports.append(Port(name, output, dtype, tuple(engine.get_tensor_shape(name))))
    return Contents("engine", parse_layers(text), {}, tuple(ports))


def parse_layers(text: str) -> tuple[Kind, ...]:
    """Count the layers in an inspector's JSON.

    Args:
        text: The JSON. It has the layers' names only if the engine was built without detailed verbosity.

    Returns:
        The layers by type and precision, the most frequent first.
    """
    kinds: Counter[tuple[str, str]] = Counter()
    for layer in json.loads(text).get("Layers", []):
        if isinstance(layer, str):
            kinds["unknown", ""] += 1
            continue
        outputs = layer.get("Outputs") or [{}]
        said = next((str(outputs[0][field]) for field in _TYPE_FIELDS if outputs[0].get(field)), "")
        kinds[str(layer.get("LayerType", "unknown")), next((t for n, t in _TYPES.items() if n in said), said)] += 1
    return tuple(Kind(name, kind, count) for (name, kind), count in kinds.most_common())


def _walk_layers(network: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the network's layers in order, each with whether it computes sizes.

    Such a layer gets the image's shape, and no values of the image.
    """
    image = {network.get_input(index).name for index in range(network.num_inputs)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        weights = layer.type.name == "DEQUANTIZE"  # of stored bytes; other such layers get values of the image
        sizes = layer.type.name == "SHAPE" or not (
            weights or any(tensor.name in image for tensor in _list_inputs(layer))
        )
        if not sizes:
            image.update(tensor.name for tensor in _list_outputs(layer))
        yield layer, sizes


def _find_dequantized(layers: Iterable[Any]) -> set[str]:
    """Find the tensors that are bytes with a scale."""
    return {
        tensor.name
        for layer in layers
        if layer.type.name == "DEQUANTIZE" and _normalize_type(layer.get_input(0).dtype.name) == "int8"
        for tensor in _list_outputs(layer)
    }


def _multiplies_bytes(layer: Any, dequantized: Collection[str]) -> bool:
    """Return whether both factors of a layer are bytes with a scale. TensorRT multiplies those as bytes."""
    factors = _list_inputs(layer)[:2]
    return len(factors) == 2 and all(tensor.name in dequantized for tensor in factors)


def _list_types(trt: Any, layer: Any) -> set[str]:
    """List the types of a layer's inputs, outputs and weights."""
    tensors = {_normalize_type(tensor.dtype.name) for tensor in (*_list_inputs(layer), *_list_outputs(layer))}
    return tensors | {_read_dtype(array) for array in _list_weights(trt, layer)}


def _list_weights(trt: Any, layer: Any) -> list[Any]:
    """List a layer's weights, each with `nbytes` and `dtype`. Constants that are sizes have weights, too."""
    name = layer.type.name
    if name == "CONSTANT":
        layer.__class__ = trt.IConstantLayer  # TensorRT's documented way to cast a layer to its own class
        return [layer.weights]
    if name not in _CHECKED_LAYERS or name == "MATRIX_MULTIPLY":
        return []
    layer.__class__ = getattr(trt, _CHECKED_LAYERS[name])
    return [array for array in (layer.kernel, layer.bias) if array is not None and array.nbytes]


def _list_inputs(layer: Any) -> list[Any]:
    return [tensor for index in range(layer.num_inputs) if (tensor := layer.get_input(index)) is not None]


def _list_outputs(layer: Any) -> list[Any]:
    return [tensor for index in range(layer.num_outputs) if (tensor := layer.get_output(index)) is not None]


def _list_ports(network: Any) -> Iterator[Port]:
    for output, count, get in (
        (False, network.num_inputs, network.get_input),
        (True, network.num_outputs, network.get_output),
    ):
        for index in range(count):
            tensor = get(index)
            yield Port(tensor.name, output, _normalize_type(tensor.dtype.name), tuple(tensor.shape))


def _read_dtype(array: Any) -> str:
    """Return the type of weights: a NumPy array, or TensorRT's own array for types that NumPy does not have."""
    return _normalize_type(getattr(array.dtype, "name", str(array.dtype)))


def _normalize_type(name: str) -> str:
    return _TYPES.get(name, name.lower())
