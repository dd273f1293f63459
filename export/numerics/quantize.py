"""int8 written into the graph: NNCF calibrates it, and what costs accuracy goes back to fp32, by measurement.

Only convolutions compute in int8, each on a quantized input: nine tenths of the work is theirs. Sums and transforms in
int8 cost digits (5 dB in LaMa) and win no time. The graph that comes out has QuantizeLinear and DequantizeLinear nodes,
which ONNX Runtime takes as they are and OpenVINO compiles to its own int8; TensorRT takes them without zero points
(:mod:`glama_deploy.export.numerics.symmetric`).
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from glama_deploy.catalogue import INT8_LEAST_PSNR_DB, INT8_PARITY_MARGIN_DB, INT8_PHOTOS_MARGIN_DB
from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime.base import require
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

#: What stays as it is: everything but convolutions. (A quantizer may move up over a Pad, which then moves bytes.)
UNTOUCHED = ("Add", "Concat", "MatMul", "Mul", "Reshape", "Shape", "DepthToSpace")

#: What may compute in int8.
CONVOLUTIONS = ("Conv", "ConvTranspose")

#: Groups are ranked on so many samples; what is decided by them is measured on all.
_RANKED_ON = 3


@dataclass(frozen=True)
class Sample:
    """What a graph takes, by the names of its inputs, and which pixels of which output are measured, bool [B, H, W]."""

    inputs: dict[str, np.ndarray]
    measured: np.ndarray
    output: str = INPAINTED


@dataclass(frozen=True)
class Quantized:
    """A graph with int8 in it, the convolutions that stay fp32, each with the reason, and the PSNR against fp32 (dB, of
    what is measured of all checks)."""

    model: onnx.ModelProto
    kept: dict[str, str]
    psnr: float


def quantize(
    model: onnx.ModelProto,
    calibration: Sequence[Sample],
    checks: Sequence[Sample],
    parity: Sequence[Sample] = (),
    *,
    ignore: Iterable[str] = (),
    least: float = INT8_LEAST_PSNR_DB + INT8_PHOTOS_MARGIN_DB,
    least_parity: float = INT8_LEAST_PSNR_DB + INT8_PARITY_MARGIN_DB,
    step: Callable[[str], None] = lambda text: None,
) -> Quantized:
    """Quantize the convolutions of an fp32 graph, but for those called `ignore`.

    Ranges are those of `calibration`. Where `checks` then are further than `least` dB from the fp32 graph's, or those
    of `parity` than `least_parity` dB, each quantizer is tried alone, and those with the most error for the work that
    they make cheap are taken out again, as many as it takes. Raises EngineError where NNCF or ONNX Runtime is not
    installed, or NNCF does not take the graph.
    """
    full = _calibrated(model, calibration, ignore)
    groups = _groups(full)
    reference = _runner(model)
    expected, of_parity = ([reference(sample) for sample in several] for several in (checks, parity))

    def reached(taken_out: Iterable[_Group]) -> tuple[float, bool]:
        """The PSNR of the checks without these, and whether it is enough, and parity's too."""
        run = _runner(_without(full, model, taken_out))
        psnr = compute_psnr(_error(run, checks, expected))
        return psnr, psnr >= least and (not parity or compute_psnr(_error(run, parity, of_parity)) >= least_parity)

    step("measuring int8 against fp32")
    psnr, enough_as_it_is = reached(())
    if enough_as_it_is:
        return Quantized(full, {}, psnr)
    work = _multiply_adds(model, checks[0])
    alone = {}
    for number, group in enumerate(groups, 1):
        step(f"measuring int8 in one place, {number} of {len(groups)}")
        only = _runner(_without(full, model, [other for other in groups if other is not group]))
        alone[group] = _error(only, checks[:_RANKED_ON], expected[:_RANKED_ON])
    ranked = sorted(groups, key=lambda group: alone[group] / sum(work[c] for c in group.convolutions), reverse=True)
    few, enough, there = 0, len(groups), math.inf
    while enough - few > 1:  # `few` taken out are too few, `enough` are enough
        number = (few + enough) // 2
        step(f"measuring int8 with {number} of {len(groups)} places in fp32")
        psnr, will_do = reached(ranked[:number])
        if will_do:
            enough, there = number, psnr
        else:
            few = number
    kept = {
        name: f"its error for its work: int8 there alone leaves {compute_psnr(alone[group]):.1f} dB"
        for group in ranked[:enough]
        for name in group.convolutions
    }
    return Quantized(_without(full, model, ranked[:enough]), kept, there)


@dataclass(frozen=True)
class _Group:
    """A quantizer of an activation: its two nodes, the tensor that it quantizes, the convolutions that it serves."""

    quantize: str
    dequantize: str
    tensor: str
    convolutions: tuple[str, ...]


def ranges(model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Sample]) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel, [C], of tensors [B, C, H, W] of a graph over all samples."""
    reduced = {f"{name}/largest": name for name in tensors}
    probed = _giving(model, reduced)
    axes = onnx.numpy_helper.from_array(np.array([0, 2, 3]), "largest/axes")
    probed.graph.initializer.append(axes)
    for output, name in reduced.items():  # in the graph, which need not keep the tensors then
        magnitude = f"{name}/magnitude"
        probed.graph.node.append(onnx.helper.make_node("Abs", [name], [magnitude]))
        probed.graph.node.append(onnx.helper.make_node("ReduceMax", [magnitude, axes.name], [output], keepdims=0))
    session = _session(probed)
    found: dict[str, np.ndarray] = {}
    for sample in samples:
        for output, largest in zip(reduced, session.run(list(reduced), sample.inputs), strict=True):
            name = reduced[output]
            found[name] = np.maximum(found.get(name, largest), largest)
    return found


def _giving(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The graph with other outputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return probed


def _calibrated(model: onnx.ModelProto, samples: Sequence[Sample], ignore: Iterable[str]) -> onnx.ModelProto:
    nncf: Any = require("nncf", "NNCF", "pip install nncf")
    # Not nncf.set_log_level: it also sets every handler on NNCF's logger, and one that the program shares between
    # loggers would drop this package's own warnings from then on.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    untouched = {node.name for node in model.graph.node if node.op_type in UNTOUCHED}
    scope = nncf.IgnoredScope(names=sorted(untouched | set(ignore)))
    data = nncf.Dataset([sample.inputs for sample in samples])
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        preset = nncf.QuantizationPreset.MIXED  # activations with a zero point: the sums of spectra have two signs
        return nncf.quantize(copy, data, preset=preset, subset_size=len(samples), ignored_scope=scope)
    except RuntimeError as error:
        raise EngineError(f"NNCF does not quantize the graph: {first_line(error, MAX_ENGINE_LINE)}") from error


def _groups(full: onnx.ModelProto) -> list[_Group]:
    readers = defaultdict(list)
    for node in full.graph.node:
        for tensor in node.input:
            readers[tensor].append(node)
    stored = {tensor.name for tensor in full.graph.initializer}
    groups = []
    for node in full.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in stored:
            continue
        (back,) = readers[node.output[0]]
        served, reached = [], list(readers[back.output[0]])
        while reached:
            reader = reached.pop()
            if reader.op_type in CONVOLUTIONS:
                served.append(reader.name)
            else:
                reached += (further for output in reader.output for further in readers[output])
        groups.append(_Group(node.name, back.name, node.input[0], tuple(sorted(served))))
    return groups


def _multiply_adds(model: onnx.ModelProto, sample: Sample) -> dict[str, int]:
    """Those of each convolution for a sample."""
    convolutions = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    names = [node.output[0] for node in convolutions]
    session = _session(_giving(model, names))
    shapes = {name: found.shape for name, found in zip(names, session.run(names, sample.inputs), strict=True)}
    weights = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    counts = {}
    for node in convolutions:
        (strides,) = [a.ints for a in node.attribute if a.name == "strides"] or [[1, 1]]
        each = math.prod(strides) if node.op_type == "ConvTranspose" else 1
        counts[node.name] = weights[node.input[1]] * math.prod(shapes[node.output[0]][2:]) // each
    return counts


def without(quantized: onnx.ModelProto, model: onnx.ModelProto, convolutions: Collection[str]) -> onnx.ModelProto:
    """The graph that was quantized from `model`, with these convolutions in fp32 again, and those that share a
    quantizer with them."""
    wanted = set(convolutions)
    return _without(quantized, model, [group for group in _groups(quantized) if wanted & set(group.convolutions)])


def in_bytes(quantized: onnx.ModelProto) -> set[str]:
    """The convolutions of a graph whose weights are stored in bytes."""
    dequantized = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    return {n.name for n in quantized.graph.node if n.op_type in CONVOLUTIONS and n.input[1] in dequantized}


def _without(full: onnx.ModelProto, model: onnx.ModelProto, groups: Iterable[_Group]) -> onnx.ModelProto:
    """The quantized graph with these quantizers taken out, and the fp32 weights and biases back where they were."""
    groups = list(groups)
    result = onnx.ModelProto()
    result.CopyFrom(full)
    graph = result.graph
    before = {node.name: node for node in model.graph.node}
    back = {group.dequantize: group.tensor for group in groups}
    tensors = {node.output[0]: back[node.name] for node in graph.node if node.name in back}
    theirs = {name for group in groups for name in group.convolutions}
    for node in graph.node:
        if node.name in theirs:
            node.input[1:] = before[node.name].input[1:]
        for position, tensor in enumerate(node.input):
            node.input[position] = tensors.get(tensor, tensor)
    wanted = {tensor for node in graph.node if node.name in theirs for tensor in node.input[1:]}
    there = {tensor.name for tensor in graph.initializer}
    originals = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in wanted}
    for tensor in graph.initializer:
        if tensor.name in originals:  # NNCF corrects biases in place
            tensor.CopyFrom(originals[tensor.name])
    graph.initializer.extend(tensor for name, tensor in originals.items() if name not in there)
    _drop_unread(graph)
    return result


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and stored tensors that nothing reads, from the end of the graph on."""
    read = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if read.isdisjoint(node.output):
            continue
        read.update(node.input)
        nodes.append(node)
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(stored)


def _error(run: Callable[[Sample], np.ndarray], samples: Sequence[Sample], expected: Sequence[np.ndarray]) -> float:
    """Mean squared difference of the measured pixels' values, of 0…1."""
    total, count = 0.0, 0
    for sample, wanted in zip(samples, expected, strict=True):
        difference = (run(sample) - wanted)[sample.measured]
        total, count = total + float((difference**2).sum()), count + difference.size
    return total / count


def _runner(model: onnx.ModelProto) -> Callable[[Sample], np.ndarray]:
    """Runs a sample's output of a graph, float64 [B, H, W, 3] of 0…1."""
    session = _session(model)

    def run(sample: Sample) -> np.ndarray:
        found = session.run([sample.output], sample.inputs)[0]
        if sample.inputs[IMAGE].dtype == np.uint8:  # bytes in the order of an image, and so is what comes out
            return found / 255.0 if found.dtype == np.uint8 else found.astype(np.float64)
        return found.astype(np.float64).transpose(0, 2, 3, 1)

    return run


def _session(model: onnx.ModelProto) -> Any:
    """A session that computes quantizers as they stand, in fp32: the same on every CPU, int8 products or none."""
    return open_cpu_session(model.SerializeToString(), multiplies_bytes=False)
