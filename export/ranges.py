"""Which values of the network leave a half type's range: found on calibration images, bounded where that can be proved.

fp16 ends at 65504, and the spectrum's DC coefficient grows with the image. Under the orthonormal transform

    |X(u, v)| = |Σ x(h, w)·e^(−i…)| / √(HW)  ≤  √(HW) · mean|x|,

with equality at (0, 0) for an x of one sign, which a ReLU's output is. So the mean of a Fourier unit's input bounds
its whole spectrum, and that bound is what counts here, not only what the spectrum of a calibration image reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.export.precision import full

#: Largest finite and smallest normal value of each half type.
LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
SMALLEST = {"fp16": 2.0**-14, "bf16": 2.0**-126}

#: Calibration images are not all images: values must stay this factor away from either end.
MARGIN = 4.0

#: What a Fourier unit's forward transform takes (see :mod:`glama_deploy.export.graph`), and how the values are called
#: that are the whole spectrum, in any lowering.
_INPUT = "/in_relu"
_SPECTRUM = ("/rfft/column", "/rfft/column_minor", "/rfft/parts_first", "/rfft/scale", "/rfft/interleave")


def measure(model: onnx.ModelProto, inputs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The largest magnitude of each of the network's values, by name, over calibration inputs (image [B, 3, H, W] and
    mask [B, 1, H, W], float32); for spectra, the proved bound. inf where a value is not finite.

    Runs the float32 graph on ONNX Runtime, each value reduced where it is made, so the memory is that of a plain run.
    """
    import onnxruntime

    probed, probes = _with_probes(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(probes.values(), 0.0)
    for image, mask in inputs:
        found = session.run(list(probes), {"image": image, "mask": mask})
        for name, value in zip(probes.values(), found, strict=True):
            largest[name] = max(largest[name], float(value) if np.isfinite(value) else math.inf)
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


def _with_probes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy of the model whose outputs are scalars, and which value each is about."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
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

    for name in _values(model):
        if name.endswith(_SPECTRUM):
            continue
        output(add("ReduceMax", add("Abs", name), keepdims=0), name)
    spectra = [name for name in _values(model) if name.endswith(_SPECTRUM)]
    for node in model.graph.node:
        if node.name.endswith(_INPUT):
            # √(HW) · the largest mean|x| of a channel
            sides = add("Cast", add("ReduceProd", add("Shape", node.name, start=2, end=4), keepdims=0), to=1)
            mean = add("ReduceMean", add("Abs", node.name), "probe/axes", keepdims=0)
            bound = add("Mul", add("Pow", sides, "probe/half"), add("ReduceMax", mean, keepdims=0))
            for name in spectra:
                if name.startswith(node.name.removesuffix(_INPUT) + "/rfft/"):
                    output(add("Identity", bound), name)
    return copy, probes


def _values(model: onnx.ModelProto) -> list[str]:
    """The values that come from the image, other than by its shape, in order."""
    data = {value.name for value in model.graph.input}
    names = []
    for node in model.graph.node:
        if node.op_type != "Shape" and any(name in data for name in node.input):
            data.update(node.output)
            names += list(node.output)
    return names
