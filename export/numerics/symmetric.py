"""A quantized graph in signed bytes without zero points, which is what TensorRT takes.

NNCF's quantizers have zero points: a ReLU's output fills 0…255. Around zero it would have half of a byte's steps (the
embedded network 42.9 dB in place of 45.5). So what is not around zero is brought there before it is quantized, and the
convolution that reads it gives the rest back in its bias:

    W ∗ x  =  W ∗ (x − c)  +  c·ΣW        in each output channel,

at the edges too, because no convolution here pads with zeros: reflection stands before it, as a node of its own.
Transposed convolutions have such edges; they must not be quantized.

Each quantizer stands right before its convolutions, behind their padding, where TensorRT looks for it. Scales are fp16
values, so that the graph is the same when half types are written into it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: The first opset whose quantizers may be in fp16, and the file format that it needs.
OPSET, _IR_VERSION = 19, 9

#: Below this, a scale would be no fp16 value but 0.
_LEAST_SCALE = 2.0**-24


def symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph with the same quantized convolutions, all in int8 with zero point 0.

    `model` has QuantizeLinear and DequantizeLinear as NNCF writes them: activations with one scale, weights stored as
    int8 with one for each output channel. Raises ValueError where a quantized tensor reaches anything but convolutions
    that pad nothing, and the reflection before them.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Pass(result.graph).run()
    result.opset_import[0].version = max(OPSET, result.opset_import[0].version)
    result.ir_version = max(_IR_VERSION, result.ir_version)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Pass:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._made = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        moved: set[str] = set()
        for node in self._graph.node:
            if node.name in moved:
                continue
            if node.op_type == "QuantizeLinear":
                (back,) = self._readers[node.output[0]]
                pads = [reader for reader in self._readers[back.output[0]] if reader.op_type == "Pad"]
                nodes += self._quantized(node, back, pads)
                moved |= {back.name, *(pad.name for pad in pads)}
                continue
            if node.op_type == "DequantizeLinear":  # of weights
                self._store(node.input[1], _rounded(self._values(node.input[1])))
            nodes.append(node)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:], self._graph.value_info[:]  # which has the types of before
        self._graph.node.extend(copies)

    def _quantized(
        self, quantize: onnx.NodeProto, back: onnx.NodeProto, pads: list[onnx.NodeProto]
    ) -> list[onnx.NodeProto]:
        """What takes the place of a quantizer, its way back and the paddings behind it."""
        tensor, scale, zero = quantize.input
        step, levels = _rounded(self._values(scale)), self._values(zero)
        shift = _half((128 * (levels.dtype == np.uint8) - levels.astype(np.float32)) * step)
        self._store(scale, step)
        self._store(zero, np.zeros_like(levels, np.int8))
        nodes = []
        for pad in pads:
            if not any(a.name == "mode" and a.s == b"reflect" for a in pad.attribute):
                raise ValueError(f"{pad.name} pads otherwise than by reflection, and its input is quantized")
        if shift != 0:
            name = f"{quantize.name}/centred"
            nodes.append(helper.make_node("Add", [tensor, self._new(f"{name}/shift", -shift)], [name], name=name))
            tensor = name
        convolutions = [reader for reader in self._readers[back.output[0]] if reader not in pads]
        if convolutions:
            nodes += [quantize, back]
            quantize.input[0] = tensor
        for pad in pads:
            ends = [f"{pad.name}/{end}" for end in ("quantized", "dequantized")]
            pad.input[0] = tensor
            nodes.append(pad)
            nodes.append(helper.make_node("QuantizeLinear", [pad.output[0], scale, zero], ends[:1], name=ends[0]))
            nodes.append(helper.make_node("DequantizeLinear", [ends[0], scale, zero], ends[1:], name=ends[1]))
            for convolution in self._readers[pad.output[0]]:
                convolution.input[0] = ends[1]
                convolutions.append(convolution)
        for convolution in convolutions:
            self._give_back(convolution, float(shift))
        return nodes

    def _give_back(self, convolution: onnx.NodeProto, shift: float) -> None:
        """Add what the shift of its input takes away to a convolution's bias."""
        padded = any(sum(a.ints) for a in convolution.attribute if a.name == "pads")
        if convolution.op_type != "Conv" or padded:
            raise ValueError(f"{convolution.name} is no convolution without zero padding, and its input is quantized")
        if shift == 0:
            return
        weights = self._made[convolution.input[1]]
        stored, scales = (self._values(name).astype(np.float64) for name in weights.input[:2])
        sums = stored.sum(axis=(1, 2, 3)) * _rounded(scales)
        bias = self._values(convolution.input[2]) if len(convolution.input) > 2 else 0
        name = self._new(f"{convolution.name}/bias_centred", (bias + shift * sums).astype(np.float32))
        del convolution.input[2:]
        convolution.input.append(name)

    def _values(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._stored[name])

    def _store(self, name: str, values: np.ndarray) -> None:
        self._stored[name].CopyFrom(numpy_helper.from_array(values, name))

    def _new(self, name: str, values: np.ndarray) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name


def _half(values: np.ndarray) -> np.ndarray:
    """The fp16 values next to these, as float32."""
    return np.asarray(values).astype(np.float16).astype(np.float32)


def _rounded(scales: np.ndarray) -> np.ndarray:
    return np.maximum(_half(scales), np.float32(_LEAST_SCALE))
