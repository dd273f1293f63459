"""Quantization of a graph to int8. NNCF calibrates; convolutions that cost too much accuracy return to fp32.

Only convolutions compute in int8, each on a quantized input: they have nine tenths of the multiplications. Sums and
transforms in int8 cost accuracy (5 dB in LaMa) and save no time. The graph has QuantizeLinear and DequantizeLinear
nodes. ONNX Runtime runs these nodes, and OpenVINO compiles them to its own int8. TensorRT supports them without zero
points (:mod:`glama_deploy.export.numerics.symmetric`).
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

#: Operators that are not quantized: all but convolutions. (A quantizer may move up over a Pad, which then moves bytes.)
UNTOUCHED = ("Add", "Concat", "MatMul", "Mul", "Reshape", "Shape", "DepthToSpace")

#: Operators that may compute in int8.
CONVOLUTIONS = ("Conv", "ConvTranspose")

#: The number of samples on which groups are ranked. The choice of groups is measured on all samples.
_RANKING_SAMPLES = 3


@dataclass(frozen=True)
class Sample:
    """The inputs of a graph, and the pixels that are measured.

    Attributes:
        inputs: The inputs by name.
        measured: bool [B, H, W], True where the output is compared.
        output: The name of the output.
    """

    inputs: dict[str, np.ndarray]
    measured: np.ndarray
    output: str = INPAINTED


@dataclass(frozen=True)
class Quantized:
    """A graph with int8 in it.

    Attributes:
        model: The graph.
        kept: The convolutions that stay fp32, each with the reason.
        psnr: PSNR against fp32 in dB, over the measured pixels of all checks.
    """

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
    """Quantize the convolutions of an fp32 graph.

    If a PSNR is below its bound, each quantizer is measured alone. Those with the largest error for the multiplications
    that they serve are removed, as few as the bounds allow (a bisection).

    Args:
        model: The fp32 graph, which is not changed.
        calibration: Samples from which NNCF takes the ranges.
        checks: Samples that are measured against the fp32 graph.
        parity: Samples of the parity check, which have a bound of their own.
        ignore: Names of nodes that stay fp32.
        least: The least PSNR of the checks, in dB.
        least_parity: The least PSNR of the parity samples, in dB.
        step: Called with a text at each step.

    Returns:
        The quantized graph.

    Raises:
        EngineError: NNCF or ONNX Runtime is not installed, or NNCF does not support the graph.
    """
    full = _calibrate(model, calibration, ignore)
    groups = _find_groups(full)
    reference = _make_runner(model)
    expected, of_parity = ([reference(sample) for sample in several] for several in (checks, parity))

    def measure(taken_out: Iterable[_Group]) -> tuple[float, bool]:
        # the PSNR of the checks without these, and whether this PSNR and parity's are enough
        run = _make_runner(_restore_groups(full, model, taken_out))
        psnr = compute_psnr(_measure_error(run, checks, expected))
        return psnr, psnr >= least and (
            not parity or compute_psnr(_measure_error(run, parity, of_parity)) >= least_parity
        )

    step("measuring int8 against fp32")
    psnr, enough_as_it_is = measure(())
    if enough_as_it_is:
        return Quantized(full, {}, psnr)
    work = _count_multiply_adds(model, checks[0])
    alone = {}
    for number, group in enumerate(groups, 1):
        step(f"measuring int8 in one place, {number} of {len(groups)}")
        only = _make_runner(_restore_groups(full, model, [other for other in groups if other is not group]))
        alone[group] = _measure_error(only, checks[:_RANKING_SAMPLES], expected[:_RANKING_SAMPLES])
    ranked = sorted(groups, key=lambda group: alone[group] / sum(work[c] for c in group.convolutions), reverse=True)
    few, enough, there = 0, len(groups), math.inf
    while enough - few > 1:  # `few` taken out are too few, `enough` are enough
        number = (few + enough) // 2
        step(f"measuring int8 with {number} of {len(groups)} places in fp32")
        psnr, will_do = measure(ranked[:number])
        if will_do:
            enough, there = number, psnr
        else:
            few = number
    kept = {
        name: f"its error for its work: int8 there alone leaves {compute_psnr(alone[group]):.1f} dB"
        for group in ranked[:enough]
        for name in group.convolutions
    }
    return Quantized(_restore_groups(full, model, ranked[:enough]), kept, there)


@dataclass(frozen=True)
class _Group:
    """The quantizer of an activation: its two nodes, the quantized tensor, and the convolutions behind it."""

    quantize: str
    dequantize: str
    tensor: str
    convolutions: tuple[str, ...]


def measure_channel_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Sample]
) -> dict[str, np.ndarray]:
    """Measure the largest magnitude of each channel.

    Args:
        model: The graph.
        tensors: Names of tensors [B, C, H, W] in the graph.
        samples: Inputs of the graph.

    Returns:
        float32 [C] by the tensor's name, over all samples.
    """
    reduced = {f"{name}/largest": name for name in tensors}
    probed = _with_outputs(model, reduced)
    axes = onnx.numpy_helper.from_array(np.array([0, 2, 3]), "largest/axes")
    probed.graph.initializer.append(axes)
    for output, name in reduced.items():  # in the graph, which need not keep the tensors then
        magnitude = f"{name}/magnitude"
        probed.graph.node.append(onnx.helper.make_node("Abs", [name], [magnitude]))
        probed.graph.node.append(onnx.helper.make_node("ReduceMax", [magnitude, axes.name], [output], keepdims=0))
    session = _open_session(probed)
    found: dict[str, np.ndarray] = {}
    for sample in samples:
        for output, largest in zip(reduced, session.run(list(reduced), sample.inputs), strict=True):
            name = reduced[output]
            found[name] = np.maximum(found.get(name, largest), largest)
    return found


def _with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the graph with other outputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return probed


def _calibrate(model: onnx.ModelProto, samples: Sequence[Sample], ignore: Iterable[str]) -> onnx.ModelProto:
    nncf: Any = require("nncf", "NNCF", "pip install nncf")
    # Not nncf.set_log_level: it also sets every handler on NNCF's logger, and one that the program shares between
    # loggers would drop this package's own warnings from then on.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    untouched = {node.name for node in model.graph.node if node.op_type in UNTOUCHED}
    scope = nncf.IgnoredScope(names=sorted(untouched | set(ignore)))
    data = nncf.Dataset([sample.inputs for sample in samples])
    # NNCF gets the default of an optional input as a constant: in its sessions ONNX Runtime would warn of the input
    stored = {tensor.name for tensor in model.graph.initializer}
    optional = [value for value in model.graph.input if value.name in stored]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in optional:
        copy.graph.input.remove(value)
    try:
        preset = nncf.QuantizationPreset.MIXED  # activations with a zero point: the sums of spectra have two signs
        quantized = nncf.quantize(copy, data, preset=preset, subset_size=len(samples), ignored_scope=scope)
    except RuntimeError as error:
        raise EngineError(f"NNCF does not quantize the graph: {first_line(error, MAX_ENGINE_LINE)}") from error
    quantized.graph.input.extend(optional)
    return quantized


def _find_groups(full: onnx.ModelProto) -> list[_Group]:
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


def _count_multiply_adds(model: onnx.ModelProto, sample: Sample) -> dict[str, int]:
    """Count the multiplications of each convolution for a sample."""
    convolutions = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    names = [node.output[0] for node in convolutions]
    session = _open_session(_with_outputs(model, names))
    shapes = {name: found.shape for name, found in zip(names, session.run(names, sample.inputs), strict=True)}
    weights = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    counts = {}
    for node in convolutions:
        (strides,) = [a.ints for a in node.attribute if a.name == "strides"] or [[1, 1]]
        each = math.prod(strides) if node.op_type == "ConvTranspose" else 1
        counts[node.name] = weights[node.input[1]] * math.prod(shapes[node.output[0]][2:]) // each
    return counts


def restore_fp32(quantized: onnx.ModelProto, model: onnx.ModelProto, convolutions: Collection[str]) -> onnx.ModelProto:
    """Return convolutions of a quantized graph to fp32, and those that share a quantizer with them.

    Args:
        quantized: The graph that was quantized, which is not changed.
        model: The fp32 graph.
        convolutions: Names of the convolutions.

    Returns:
        The changed graph.
    """
    wanted = set(convolutions)
    return _restore_groups(
        quantized, model, [group for group in _find_groups(quantized) if wanted & set(group.convolutions)]
    )


def find_int8_convolutions(quantized: onnx.ModelProto) -> set[str]:
    """Find the convolutions whose weights are stored in int8.

    Args:
        quantized: A quantized graph.

    Returns:
        The convolutions' names.
    """
    dequantized = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    return {n.name for n in quantized.graph.node if n.op_type in CONVOLUTIONS and n.input[1] in dequantized}


def _restore_groups(full: onnx.ModelProto, model: onnx.ModelProto, groups: Iterable[_Group]) -> onnx.ModelProto:
    """Remove quantizers from a copy of the quantized graph, and restore the fp32 weights and biases behind them."""
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
    """Remove nodes and stored tensors that are not read, from the end of the graph on."""
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


def _measure_error(
    run: Callable[[Sample], np.ndarray], samples: Sequence[Sample], expected: Sequence[np.ndarray]
) -> float:
    """Return the mean squared difference of the measured pixels; values are from 0 to 1."""
    total, count = 0.0, 0
    for sample, wanted in zip(samples, expected, strict=True):
        difference = (run(sample) - wanted)[sample.measured]
        total, count = total + float((difference**2).sum()), count + difference.size
    return total / count


def _make_runner(model: onnx.ModelProto) -> Callable[[Sample], np.ndarray]:
    """Return a function that gives a sample's output, float64 [B, H, W, 3] from 0 to 1."""
    session = _open_session(model)

    def run(sample: Sample) -> np.ndarray:
        found = session.run([sample.output], sample.inputs)[0]
        if sample.inputs[IMAGE].dtype == np.uint8:  # bytes in the order of an image, and so is what comes out
            return found / 255.0 if found.dtype == np.uint8 else found.astype(np.float64)
        return found.astype(np.float64).transpose(0, 2, 3, 1)

    return run


def _open_session(model: onnx.ModelProto) -> Any:
    """Open a session that computes quantizers in fp32. The result is the same on every CPU."""
    return open_cpu_session(model.SerializeToString(), multiplies_bytes=False)
