"""The int8 graphs of a bundle. One calibration and one choice of convolutions serve both graphs.

`model.int8.onnx` is for CPUs. It has NNCF's quantizers; the rest is float32. `model.int8+fp16.onnx` is for TensorRT. It
has the same quantizers without zero points (:mod:`glama_deploy.export.numerics.symmetric`); the rest is fp16. Its
transposed convolutions are not int8: TensorRT-RTX 1.7 converts their bytes back to fp16 and multiplies in fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from glama_deploy.bundle import Graph, Lowering, Precision, Size
from glama_deploy.catalogue import INT8_PARITY_MARGIN_DB, INT8_PHOTOS_MARGIN_DB, find_tolerance
from glama_deploy.checkpoints.formats import Checkpoint
from glama_deploy.export import graph_files, samples
from glama_deploy.export.graph import network
from glama_deploy.export.numerics import equalize, half, quantize, symmetric
from glama_deploy.node_names import IMAGE, INPAINTED, MASK, PREDICTED, SPECTRUM

if TYPE_CHECKING:
    from glama_deploy.export.pipeline import Request

#: The size at which a graph of any size is calibrated, and another size at which the graph is also measured. (The graph
#: is worse at both sizes if it is calibrated at 512×512: ranges are the mean of the images' largest values, which grow
#: with the images.)
SIZES: tuple[Size, Size] = ((256, 256), (512, 512))

#: The number of photos on which fp16's range is measured at the largest size. int8 has more photos of a smaller size.
_FP16_PHOTOS = 4

_SPECTRUM = "a spectrum: its largest value is the image's mean, and grows with the size"
_TRANSPOSED = "TensorRT-RTX 1.7 multiplies no bytes in transposed convolutions"
_SHARED = "its input is also read by one that is not int8"


def write(
    checkpoint: Checkpoint,
    request: Request,
    fft: Lowering,
    graphs: Collection[Precision],
    folder: Path,
    step: Callable[[str], None],
) -> dict[Precision, Graph]:
    """Calibrate int8 and write the int8 graphs.

    The graphs are calibrated at their own size, or at the first of :data:`SIZES` if they take any size. The weights are
    those of the same network with equalized channels.

    Args:
        checkpoint: The checkpoint.
        request: What is exported.
        fft: How FFTs are written.
        graphs: Which graphs to write: int8, int8+fp16 or both.
        folder: The bundle's folder.
        step: Called with a text at each step.

    Returns:
        The manifest's entries by precision.

    Raises:
        GlamaError: the photos are missing or too few, or memory is short.
        EngineError: NNCF or ONNX Runtime is not installed, or NNCF does not support the graph.
    """
    for_cpus, for_tensorrt = ("int8" in graphs), ("int8+fp16" in graphs)
    if for_tensorrt:
        graph_files.check_memory(checkpoint.config, request.size or request.profile.max)
    calibration, checks = _make_samples(checkpoint, request, step)
    whole = PREDICTED if PREDICTED in request.outputs else INPAINTED
    sizes = request.find_graph_sizes(checkpoint.config)
    parity = [_make_sample(case, request, whole) for case in samples.parity_cases(sizes, request.largest)]
    model = _build(checkpoint, request, fft)
    weights = equalize.equalize_channels(
        checkpoint.config, checkpoint.weights, lambda names: quantize.measure_channel_ranges(model, names, calibration)
    )
    checkpoint = replace(checkpoint, weights=weights)
    model = _build(checkpoint, request, fft)
    outside = [node.name for node in model.graph.node if half.is_always_fp32(node)]
    never = {node.name: _SPECTRUM for node in model.graph.node if node.name.endswith(f"/{SPECTRUM}")}
    lacking: dict[str, str] = {}
    if for_tensorrt:
        lacking = {node.name: _TRANSPOSED for node in model.graph.node if node.op_type == "ConvTranspose"}
    # what no target multiplies in bytes should not count against the other places
    ignored = [*outside, *never, *(() if for_cpus else lacking)]
    bound = find_tolerance("int8", request.tolerances).least_psnr
    assert bound is not None  # the request was checked
    found = quantize.quantize(
        model,
        calibration,
        checks,
        parity,
        ignore=ignored,
        least=bound + INT8_PHOTOS_MARGIN_DB,
        least_parity=bound + INT8_PARITY_MARGIN_DB,
        step=step,
    )
    kept = never | found.kept
    written: dict[Precision, Graph] = {}
    if for_cpus:
        written["int8"] = graph_files.write(folder, found.model, "int8", kept)
    if for_tensorrt:
        full = _find_out_of_fp16(checkpoint, model, request, fft, step)
        step("writing int8 and fp16 into the graph")
        quantized = quantize.restore_fp32(found.model, model, lacking.keys() | full.keys())
        mixed = half.convert_to_half(symmetric.make_symmetric(quantized), "fp16", full)
        kept = _explain_types(quantized, kept | lacking, full)
        written["int8+fp16"] = graph_files.write(folder, mixed, "int8+fp16", kept)
    return written


def _make_samples(
    checkpoint: Checkpoint, request: Request, step: Callable[[str], None]
) -> tuple[list[quantize.Sample], list[quantize.Sample]]:
    """Return photos for calibration and photos for measurements."""
    assert request.calibration is not None
    size, largest = (request.size,) * 2 if request.size else SIZES
    graph_files.check_memory(checkpoint.config, largest)
    step(f"calibrating int8 at {size[0]}x{size[1]}")
    calibration, checks = (
        [_make_sample(case, request) for case in cases]
        for cases in samples.int8_cases(request.calibration, size, largest, request.calibration_images)
    )
    return calibration, checks


def _make_sample(case: samples.Case, request: Request, whole: str | None = None) -> quantize.Sample:
    """Return a case as inputs of the graph.

    The missing pixels are measured, or with `whole` all pixels of that output without the padding.
    """
    image, mask = case.tensors(request.io)
    height, width = case.missing.shape[1:]
    measured = np.zeros(mask.shape if request.io == "uint8" else (mask.shape[0], *mask.shape[2:]), bool)
    measured[:, :height, :width] = True if whole else case.missing
    return quantize.Sample({IMAGE: image, MASK: mask}, measured, whole or INPAINTED)


def _build(checkpoint: Checkpoint, request: Request, fft: Lowering) -> onnx.ModelProto:
    return network.build(checkpoint.config, checkpoint.weights, request.size, request.outputs, fft, request.io)


def _find_out_of_fp16(
    checkpoint: Checkpoint, model: onnx.ModelProto, request: Request, fft: Lowering, step: Callable[[str], None]
) -> dict[str, str]:
    """Return the nodes that stay fp32 in TensorRT's graph, each with the reason."""
    height, width = request.size or request.profile.max
    step(f"calibrating fp16 at {height}x{width}")
    return graph_files.calibrate(checkpoint, model, "fp16", fft, (height, width), request.calibration, _FP16_PHOTOS)


def _explain_types(quantized: onnx.ModelProto, known: dict[str, str], full: dict[str, str]) -> dict[str, str]:
    """Return why each convolution is not int8, and why each node is fp32."""
    in_bytes = quantize.find_int8_convolutions(quantized)
    convolutions = [node.name for node in quantized.graph.node if node.op_type in quantize.CONVOLUTIONS]
    return {name: known.get(name, _SHARED) for name in convolutions if name not in in_bytes} | full
