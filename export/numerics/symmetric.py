"""Conversion of a quantized graph to signed bytes without zero points, the only form that TensorRT supports.

NNCF's quantizers have zero points: a ReLU's output uses 0…255. Without zero points it would use half of a byte's steps
(42.9 dB instead of 45.5 dB with the embedded network). So a tensor that is not centred is shifted before it is
quantized, and the convolution that reads it restores the difference in its bias:

    W ∗ x  =  W ∗ (x − c)  +  c·ΣW        in each output channel,

This holds at the edges too, because the convolutions do not pad with zeros: a separate node reflects the border.
Transposed convolutions do pad with zeros; they must not be quantized.

Each quantizer stands directly before its convolutions, after their padding, where TensorRT expects it. Scales are fp16
values, so converting the graph to fp16 does not change them.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: The first opset whose quantizers support fp16, and the file format that this opset needs.
OPSET, _IR_VERSION = 19, 9

#: The smallest positive fp16 value. Smaller scales would become 0.
_MIN_SCALE = 2.0**-24


def make_symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert all quantizers of a graph to int8 with zero point 0.

    Args:
        model: A float32 graph with QuantizeLinear and DequantizeLinear as NNCF writes them: one scale for activations,
            one scale for each output channel of weights, which are stored as int8. The model is not changed.

    Returns:
        The converted graph, with the same quantized convolutions.

    Raises:
        ValueError: a quantized tensor is read by a node other than a convolution without padding or the reflection
            before one.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _SymmetricConverter(result.graph).run()
    result.opset_import[0].version = max(OPSET, result.opset_import[0].version)
    result.ir_version = max(_IR_VERSION, result.ir_version)
    onnx.checker.check_model(result, full_check=True)
    return result


class _SymmetricConverter:
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
                nodes += self._replace_quantizer(node, back, pads)
                moved |= {back.name, *(pad.name for pad in pads)}
                continue
            if node.op_type == "DequantizeLinear":  # of weights
                self._store(node.input[1], _round_scales(self._read(node.input[1])))
            nodes.append(node)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:], self._graph.value_info[:]  # which has the types of before
        self._graph.node.extend(copies)

    def _replace_quantizer(
        self, quantize: onnx.NodeProto, back: onnx.NodeProto, pads: list[onnx.NodeProto]
    ) -> list[onnx.NodeProto]:
        """Return the nodes that replace a quantizer, its dequantizer and the paddings after them."""
        tensor, scale, zero = quantize.input
        step, levels = _round_scales(self._read(scale)), self._read(zero)
        shift = _round_to_fp16((128 * (levels.dtype == np.uint8) - levels.astype(np.float32)) * step)
        self._store(scale, step)
        self._store(zero, np.zeros_like(levels, np.int8))
        nodes = []
        for pad in pads:
            if not any(a.name == "mode" and a.s == b"reflect" for a in pad.attribute):
                raise ValueError(f"{pad.name} pads otherwise than by reflection, and its input is quantized")
        if shift != 0:
            name = f"{quantize.name}/centred"
            nodes.append(
                helper.make_node("Add", [tensor, self._add_constant(f"{name}/shift", -shift)], [name], name=name)
            )
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
            self._correct_bias(convolution, float(shift))
        return nodes

    def _correct_bias(self, convolution: onnx.NodeProto, shift: float) -> None:
        """Add to a convolution's bias what the shift of its input removed."""
        padded = any(sum(a.ints) for a in convolution.attribute if a.name == "pads")
        if convolution.op_type != "Conv" or padded:
            raise ValueError(f"{convolution.name} is no convolution without zero padding, and its input is quantized")
        if shift == 0:
            return
        weights = self._made[convolution.input[1]]
        stored, scales = (self._read(name).astype(np.float64) for name in weights.input[:2])
        sums = stored.sum(axis=(1, 2, 3)) * _round_scales(scales)
        bias = self._read(convolution.input[2]) if len(convolution.input) > 2 else 0
        name = self._add_constant(f"{convolution.name}/bias_centred", (bias + shift * sums).astype(np.float32))
        del convolution.input[2:]
        convolution.input.append(name)

    def _read(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._stored[name])

    def _store(self, name: str, values: np.ndarray) -> None:
        self._stored[name].CopyFrom(numpy_helper.from_array(values, name))

    def _add_constant(self, name: str, values: np.ndarray) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name


def _round_to_fp16(values: np.ndarray) -> np.ndarray:
    """Round to fp16; return float32."""
    return np.asarray(values).astype(np.float16).astype(np.float32)


def _round_scales(scales: np.ndarray) -> np.ndarray:
    return np.maximum(_round_to_fp16(scales), np.float32(_MIN_SCALE))
