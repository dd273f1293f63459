"""Which values of the network leave a half type's range: found on calibration images, bounded where that can be proved.

fp16 ends at 65504, and the spectrum's DC coefficient grows with the image. Under the orthonormal transform

    |X(u, v)| = |Σ x(h, w)·e^(−i…)| / √(HW)  ≤  √(HW) · mean|x|,

with equality at (0, 0) for an x of one sign, which a ReLU's output is. So the mean of a Fourier unit's input bounds
its whole spectrum, and that bound is what counts here, not only what the spectrum of a calibration image reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.export.numerics.half import full
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

#: Largest finite and smallest normal value of each half type.
LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
SMALLEST = {"fp16": 2.0**-14, "bf16": 2.0**-126}

#: Calibration images are not all images: values must stay this factor away from either end.
MARGIN = 4.0

#: Operators that give no numbers.
_COMPARISONS = ("Less", "Greater", "Equal")

#: What a Fourier unit's forward transform takes (see :mod:`glama_deploy.export.graph.network`), and how the values are
#: called that are the whole spectrum, in any lowering.
_INPUT = f"/{TRANSFORM_INPUT}"
_SPECTRUM = tuple(f"/{RFFT}/{step}" for step in (COLUMN, COLUMN_MINOR, PARTS_FIRST, SCALE, INTERLEAVE))


def measure(model: onnx.ModelProto, inputs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The largest magnitude of each of the network's values, by name, over calibration inputs (image [B, 3, H, W] and
    mask [B, 1, H, W], float32); for spectra, the proved bound. inf where a value is not finite.

    Runs the float32 graph on ONNX Runtime, one part of the network after the other, so that what a part needs is all
    that is held at a time: at 2048×2048 a map of 64 channels has a gigabyte.
    """
    parts = [_Part(*part) for part in _parts(model)]
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


def out_of_range(model: onnx.ModelProto, largest: dict[str, float], half: str) -> dict[str, str]:
    """The nodes that must compute in float32 beside those that always do, each with its reason: those that make or take
    a value that comes within the margin of overflow, or that is nowhere large enough to keep its digits; and those with
    a weight that overflows.
    """
    weights = {
        c.name: float(np.abs(numpy_helper.to_array(c)).max())
        for c in model.graph.initializer
        if c.data_type == TensorProto.FLOAT
    }
    nodes = [node for node in model.graph.node if not full(node)]
    reasons = {
        node.name: f"{name} has {weights[name]:.3g}, {half} ends at {LARGEST[half]:.5g}"
        for node in nodes
        for name in node.input
        if weights.get(name, 0.0) > LARGEST[half]
    }
    for node in nodes:
        for name in (*node.input, *node.output):
            value = largest.get(name, 1.0)
            if not value * MARGIN < LARGEST[half]:
                reasons[node.name] = f"{name} may reach {value:.3g}, {half} ends at {LARGEST[half]:.5g}"
            elif 0 < value < SMALLEST[half] * MARGIN:
                reasons[node.name] = f"{name} stays below {value:.3g}, where {half} loses digits"
    return reasons


class _Part:
    """Some nodes of the graph as a session of their own, which also gives the range of each of their values."""

    def __init__(self, model: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> None:
        self.inputs, self._outputs = inputs, outputs
        probed, self._probes = _with_probes(model)
        # a part's memory is given back when it is done
        self._session = open_cpu_session(probed.SerializeToString(), keeps_memory=False)

    def run(self, feeds: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The values that later parts need, and the largest magnitude of each value."""
        found = self._session.run([*self._outputs, *self._probes], feeds)
        made = dict(zip(self._outputs, found, strict=False))
        largest: dict[str, float] = {}
        for name, value in zip(self._probes.values(), found[len(self._outputs) :], strict=True):
            magnitude = abs(float(value)) if np.isfinite(value) else math.inf
            largest[name] = max(largest.get(name, 0.0), magnitude)
        return made, largest


def _parts(model: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, list[str], list[str]]]:
    """The graph cut where the first part of the nodes' names changes (what is made for all FFTs stays where it is first
    needed): each piece, its inputs and its outputs."""
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
    """A copy of a part that also gives scalars, and which value each is about: its largest and its smallest element,
    or the bound of a spectrum."""
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

    def output(name: str, about: str) -> None:
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
        probes[name] = about

    values = _values(model)
    spectra = [name for name in values if name.endswith(_SPECTRUM)]
    for name in values:
        if name not in spectra:
            for op in ("ReduceMax", "ReduceMin"):  # without a copy of |x|
                output(add(op, name, keepdims=0), name)
    for node in model.graph.node:
        if node.name.endswith(_INPUT):
            # √(HW) · the largest mean|x| of a channel; of a ReLU's output, which is its own |x|
            sides = add("Cast", add("ReduceProd", add("Shape", node.name, start=2, end=4), keepdims=0), to=1)
            mean = add("ReduceMean", node.name, "probe/axes", keepdims=0)
            bound = add("Mul", add("Pow", sides, "probe/half"), add("ReduceMax", mean, keepdims=0))
            for name in spectra:
                if name.startswith(node.name.removesuffix(_INPUT) + f"/{RFFT}/"):
                    output(add("Identity", bound), name)
    return copy, probes


def _values(model: onnx.ModelProto) -> list[str]:
    """The float values of a part that come from the image, other than by its shape, in order."""
    data = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    data -= {name for name in data if get_part(name) == FFT}
    names = []
    for node in model.graph.node:
        if node.op_type != "Shape" and any(name in data for name in node.input):
            data.update(node.output)
            if node.op_type not in _COMPARISONS:
                names += list(node.output)
    return names
