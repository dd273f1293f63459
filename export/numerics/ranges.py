"""The ranges of a network's values on calibration images, and the nodes whose values leave a half type's range.

The largest fp16 value is 65504, and the spectrum's DC coefficient grows with the image. For the orthonormal transform

    |X(u, v)| = |Σ x(h, w)·e^(−i…)| / √(HW)  ≤  √(HW) · mean|x|,

holds, with equality at (0, 0) for an x of one sign, such as a ReLU's output. The mean of a Fourier unit's input
therefore bounds its whole spectrum. This module uses that bound, not the largest value in a calibration image's
spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.export.numerics.half import is_always_fp32
from glama_deploy.node_names import (
    COLUMN,
    COLUMN_MINOR,
    FFT,
    IMAGE,
    INTERLEAVE,
    MASK,
    PARTS_FIRST,
    RFFT,
    SCALE,
    TRANSFORM_INPUT,
    get_part,
)
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session

#: The largest finite value of each half type.
LARGEST_VALUES = {"fp16": 65504.0, "bf16": 3.3895e38}

#: The smallest normal value of each half type.
SMALLEST_NORMAL_VALUES = {"fp16": 2.0**-14, "bf16": 2.0**-126}

#: The factor by which values of calibration images must stay away from both limits, because other images differ.
RANGE_MARGIN = 4.0

#: Operators with boolean outputs.
_COMPARISONS = ("Less", "Greater", "Equal")

#: The end of the name of the input of a forward transform.
_TRANSFORM_INPUT_SUFFIX = f"/{TRANSFORM_INPUT}"

#: The ends of the names of values that are whole spectra, in all lowerings.
_SPECTRUM_SUFFIXES = tuple(f"/{RFFT}/{step}" for step in (COLUMN, COLUMN_MINOR, PARTS_FIRST, SCALE, INTERLEAVE))


def measure_ranges(model: onnx.ModelProto, inputs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Measure the largest magnitude of each value of the network.

    ONNX Runtime runs one part of the float32 graph after the other, so memory holds the values of one part only: at
    2048×2048 a map of 64 channels has a gigabyte.

    Args:
        model: The float32 graph.
        inputs: Calibration images [B, 3, H, W] and masks [B, 1, H, W], float32.

    Returns:
        The largest magnitude by the value's name; for spectra the proved bound, inf where a value is not finite.
    """
    parts = [_GraphPart(*part) for part in _split_graph(model)]
    largest: dict[str, float] = {}
    for image, mask in inputs:
        values = {IMAGE: image, MASK: mask}
        for index, part in enumerate(parts):
            needed = {name for later in parts[index + 1 :] for name in later.inputs}
            made, found = part.run({name: values[name] for name in part.inputs})
            values = {name: value for name, value in (values | made).items() if name in needed}
            for name, value in found.items():
                largest[name] = max(largest.get(name, 0.0), value)
    return largest


def find_out_of_range(model: onnx.ModelProto, largest: dict[str, float], half: str) -> dict[str, str]:
    """Find the nodes that must compute in float32 beside those that always do.

    These nodes read or write a value that may overflow or that is too small to keep its digits, or have a weight that
    overflows.

    Args:
        model: The float32 graph.
        largest: The values' largest magnitudes, from :func:`measure_ranges`.
        half: The half type.

    Returns:
        The nodes' names, each with the reason.
    """
    weights = {
        c.name: float(np.abs(numpy_helper.to_array(c)).max())
        for c in model.graph.initializer
        if c.data_type == TensorProto.FLOAT
    }
    nodes = [node for node in model.graph.node if not is_always_fp32(node)]
    reasons = {
        node.name: f"{name} has {weights[name]:.3g}, {half} ends at {LARGEST_VALUES[half]:.5g}"
        for node in nodes
        for name in node.input
        if weights.get(name, 0.0) > LARGEST_VALUES[half]
    }
    for node in nodes:
        for name in (*node.input, *node.output):
            value = largest.get(name, 1.0)
            if not value * RANGE_MARGIN < LARGEST_VALUES[half]:
                reasons[node.name] = f"{name} may reach {value:.3g}, {half} ends at {LARGEST_VALUES[half]:.5g}"
            elif 0 < value < SMALLEST_NORMAL_VALUES[half] * RANGE_MARGIN:
                reasons[node.name] = f"{name} stays below {value:.3g}, where {half} loses digits"
    return reasons


class _GraphPart:
    """Some nodes of the graph as a session that also returns the range of each of their values."""

    def __init__(self, model: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> None:
        """Open a session for a part.

        Args:
            model: The part's nodes.
            inputs: Names of the values that the part reads.
            outputs: Names of the values that later parts read.
        """
        self.inputs, self._outputs = inputs, outputs
        probed, self._probes = _with_probes(model)
        # a part's memory is given back when it is done
        self._session = open_cpu_session(probed.SerializeToString(), keeps_memory=False)

    def run(self, feeds: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Run the part.

        Args:
            feeds: The inputs by name.

        Returns:
            The values that later parts need, and the largest magnitude of each value.
        """
        found = self._session.run([*self._outputs, *self._probes], feeds)
        made = dict(zip(self._outputs, found, strict=False))
        largest: dict[str, float] = {}
        for name, value in zip(self._probes.values(), found[len(self._outputs) :], strict=True):
            magnitude = abs(float(value)) if np.isfinite(value) else math.inf
            largest[name] = max(largest.get(name, 0.0), magnitude)
        return made, largest


def _split_graph(model: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, list[str], list[str]]]:
    """Cut the graph where the nodes' part changes; nodes that all FFTs share stay with their first reader.

    Yields:
        Each piece, its inputs and its outputs.
    """
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    types |= {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    pieces: list[list[onnx.NodeProto]] = []
    part = ""
    for node in model.graph.node:
        name = get_part(node.name)
        if name not in (part, FFT):
            pieces.append([])
            part = name
        pieces[-1].append(node)
    constants = {constant.name: constant for constant in model.graph.initializer}
    for index, nodes in enumerate(pieces):
        made = {name for node in nodes for name in node.output}
        used = dict.fromkeys(name for node in nodes for name in node.input if name)
        later = {name for piece in pieces[index + 1 :] for node in piece for name in node.input}
        inputs = [name for name in used if name not in made and name not in constants]
        outputs = [name for name in made if name in later]
        graph = helper.make_graph(
            nodes,
            nodes[0].name,
            [helper.make_tensor_value_info(name, types[name], None) for name in inputs],
            [helper.make_tensor_value_info(name, types[name], None) for name in outputs],
            [constants[name] for name in used if name in constants],
        )
        piece = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
        yield piece, inputs, outputs


def _with_probes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Add outputs to a copy of a part: the largest and the smallest element of each value, or the bound of a spectrum.

    Returns:
        The copy, and by the name of each new output the value that it describes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "probe/axes")
    root = numpy_helper.from_array(np.array(0.5, np.float32), "probe/half")
    copy.graph.initializer.extend([axes, root])
    probes: dict[str, str] = {}

    def add(op: str, *inputs: str, **attributes: object) -> str:
        name = f"probe/{len(copy.graph.node)}"
        copy.graph.node.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def add_output(name: str, about: str) -> None:
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
        probes[name] = about

    values = _find_image_values(model)
    spectra = [name for name in values if name.endswith(_SPECTRUM_SUFFIXES)]
    for name in values:
        if name not in spectra:
            for op in ("ReduceMax", "ReduceMin"):  # without a copy of |x|
                add_output(add(op, name, keepdims=0), name)
    for node in model.graph.node:
        if node.name.endswith(_TRANSFORM_INPUT_SUFFIX):
            # √(HW) · the largest mean|x| of a channel; of a ReLU's output, which is its own |x|
            sides = add("Cast", add("ReduceProd", add("Shape", node.name, start=2, end=4), keepdims=0), to=1)
            mean = add("ReduceMean", node.name, "probe/axes", keepdims=0)
            bound = add("Mul", add("Pow", sides, "probe/half"), add("ReduceMax", mean, keepdims=0))
            for name in spectra:
                if name.startswith(node.name.removesuffix(_TRANSFORM_INPUT_SUFFIX) + f"/{RFFT}/"):
                    add_output(add("Identity", bound), name)
    return copy, probes


def _find_image_values(model: onnx.ModelProto) -> list[str]:
    """Return the names of a part's float values that depend on the image's pixels, in order."""
    data = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    data -= {name for name in data if get_part(name) == FFT}
    names = []
    for node in model.graph.node:
        if node.op_type != "Shape" and any(name in data for name in node.input):
            data.update(node.output)
            if node.op_type not in _COMPARISONS:
                names += list(node.output)
    return names
