"""What is in a network before it is built, and in an engine after: its layers, types, weights and tensors.

Two sources: the network that TensorRT parsed from the graph, which is there on every machine, and the finished engine
as TensorRT's inspector shows it, which takes a driver. In both a type is what the layer's first output has; a layer of
the network that multiplies bytes is int8.
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

#: Names of types, TensorRT's, numpy's and the inspector's, to ours. A name stands before those in it.
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

#: The layers that do the network's work, whose types are checked.
_CHECKED_LAYERS = {
    "CONVOLUTION": "IConvolutionLayer",
    "DECONVOLUTION": "IDeconvolutionLayer",
    "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
}

#: Layers that move values without computing: reshapes and transpositions.
_SHUFFLE_TYPES = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "Reformat", "Shuffle")


@dataclass(frozen=True)
class Kind:
    """How many layers there are of a type and a precision. `sizes`: they compute about sizes, not on the image."""

    type: str
    precision: str
    count: int
    sizes: bool = False


@dataclass(frozen=True)
class Port:
    """An input or output; −1 in its shape is a side that is free."""

    name: str
    output: bool
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """Of a network or an engine (`source`): its layers by kind, bytes of weights by type, inputs and outputs. An
    engine's weights cannot be told apart from outside, so there are none in its contents."""

    source: Literal["network", "engine"]
    kinds: tuple[Kind, ...]
    weights: dict[str, int]
    ports: tuple[Port, ...]

    @property
    def layers(self) -> int:
        return sum(kind.count for kind in self.kinds)

    @property
    def casts(self) -> int:
        """Changes of type on the image's way."""
        return self._count_on_image("CAST", "Cast")

    @property
    def shuffles(self) -> int:
        """Reshapes, transpositions and reformats on the image's way."""
        return self._count_on_image(*_SHUFFLE_TYPES)

    def _count_on_image(self, *types: str) -> int:
        return sum(kind.count for kind in self.kinds if kind.type in types and not kind.sizes)


@dataclass(frozen=True)
class Report:
    """What a build made: the contents, the engine file's bytes, its profiles in order, seconds from parsing to file."""

    contents: Contents
    engine_bytes: int
    profiles: tuple[SizeRange, ...]
    seconds: float


def check_types(trt: Any, network: Any, precision: Precision, kept: Collection[str]) -> None:
    """Raise EngineError unless every convolution, transposed convolution and matrix product of `network` computes in
    `precision`: inputs, weights and outputs; of int8+fp16 the convolutions multiply bytes, and all else is fp16. Layers
    named in `kept` may have any type, and so may those about sizes.

    `trt` is the package, `network` its INetworkDefinition.
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
    """What a parsed network has in it."""
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
    """What a deserialized engine has in it, as its inspector says."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    ports = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        dtype = _normalize_type(engine.get_tensor_dtype(name).name)
        ports.append(Port(name, output, dtype, tuple(engine.get_tensor_shape(name))))
    return Contents("engine", parse_layers(text), {}, tuple(ports))


def parse_layers(text: str) -> tuple[Kind, ...]:
    """The layers in an inspector's JSON. An engine that was built with less than detailed verbosity has names only."""
    kinds: Counter[tuple[str, str]] = Counter()
    for layer in json.loads(text).get("Layers", []):
        if isinstance(layer, str):
            kinds["unknown", ""] += 1
            continue
        outputs = layer.get("Outputs") or [{}]
        said = str(outputs[0].get("Datatype") or outputs[0].get("Format/Datatype") or "")
        kinds[str(layer.get("LayerType", "unknown")), next((t for n, t in _TYPES.items() if n in said), said)] += 1
    return tuple(Kind(name, kind, count) for (name, kind), count in kinds.most_common())


def _walk_layers(network: Any) -> Iterator[tuple[Any, bool]]:
    """The network's layers in order, each with whether it is about sizes: nothing of the image reaches it but its
    shape."""
    image = {network.get_input(index).name for index in range(network.num_inputs)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        weights = layer.type.name == "DEQUANTIZE"  # of stored bytes; others the image reaches anyway
        sizes = layer.type.name == "SHAPE" or not (
            weights or any(tensor.name in image for tensor in _list_inputs(layer))
        )
        if not sizes:
            image.update(tensor.name for tensor in _list_outputs(layer))
        yield layer, sizes


def _find_dequantized(layers: Iterable[Any]) -> set[str]:
    """The tensors that are bytes with a scale."""
    return {
        tensor.name
        for layer in layers
        if layer.type.name == "DEQUANTIZE" and _normalize_type(layer.get_input(0).dtype.name) == "int8"
        for tensor in _list_outputs(layer)
    }


def _multiplies_bytes(layer: Any, dequantized: Collection[str]) -> bool:
    """Whether both factors of a layer are bytes with a scale, which TensorRT multiplies as they are."""
    factors = _list_inputs(layer)[:2]
    return len(factors) == 2 and all(tensor.name in dequantized for tensor in factors)


def _list_types(trt: Any, layer: Any) -> set[str]:
    """The types of a layer's inputs, outputs and weights."""
    tensors = {_normalize_type(tensor.dtype.name) for tensor in (*_list_inputs(layer), *_list_outputs(layer))}
    return tensors | {_read_dtype(array) for array in _list_weights(trt, layer)}


def _list_weights(trt: Any, layer: Any) -> list[Any]:
    """A layer's weights, each with `nbytes` and `dtype`. A constant about sizes has some, too."""
    name = layer.type.name
    if name == "CONSTANT":
        layer.__class__ = trt.IConstantLayer  # TensorRT's own way to see a layer as what it is
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
    """Of weights, which are a numpy array, or TensorRT's own where numpy has no such type."""
    return _normalize_type(getattr(array.dtype, "name", str(array.dtype)))


def _normalize_type(name: str) -> str:
    return _TYPES.get(name, name.lower())
