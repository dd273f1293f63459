"""Measure the parity of an engine: the distance of its outputs from those of the PyTorch reference.

The finished artifact is measured. If a half-precision TensorRT engine cannot run on this machine, its arithmetic is
emulated, and the manifest says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from glama_deploy.bundle import DROP_IN_ENDS, Bundle, Engine, Io, Parity, Precision, SizeRange
from glama_deploy.catalogue import ENGINES, Tolerance, find_tolerance
from glama_deploy.checkpoints.formats import Checkpoint, build_module
from glama_deploy.errors import EngineError
from glama_deploy.export.drop_in import DropInRunner
from glama_deploy.export.samples import Case
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.inpainting.tensors import to_images
from glama_deploy.node_names import INPAINTED, PREDICTED
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request, Runner, require
from glama_deploy.runtime.devices import CPU

if TYPE_CHECKING:
    import onnx

#: The default: the bounds of the catalogue.
_NO_TOLERANCES: Mapping[str, Tolerance] = MappingProxyType({})


@dataclass(frozen=True)
class ReferenceCase:
    """A case with the reference's prediction.

    Attributes:
        case: The case.
        predicted: The network's own output, before compositing, float32 [B, H, W, 3].
    """

    case: Case
    predicted: np.ndarray

    @property
    def inpainted(self) -> np.ndarray:
        """The prediction where pixels are missing, the image where they are known; float32 [B, H, W, 3] in 0…1."""
        return np.where(self.case.missing[..., None], self.predicted.clip(0, 1), self.case.image / np.float32(255))


def run_reference(checkpoint: Checkpoint, inputs: Sequence[Case]) -> list[ReferenceCase] | str:
    """Run the PyTorch reference on cases.

    Args:
        checkpoint: The checkpoint.
        inputs: The cases.

    Returns:
        The cases with the reference's predictions; the reason, if PyTorch is not usable.
    """
    try:
        torch = require("torch", "PyTorch, the reference,", "pip install torch", "inference_mode")
    except EngineError as error:
        return str(error)

    from glama_deploy.reference.generator import predict

    generator = build_module(checkpoint)
    measured = []
    with torch.inference_mode():
        for case in inputs:
            image, mask = (torch.from_numpy(array) for array in case.tensors())
            found = predict(generator, image, mask).numpy()
            measured.append(ReferenceCase(case, to_images(found, "float", *case.missing.shape[1:])))
    return measured


def measure(
    bundle: Bundle,
    engine: Engine,
    expected: Sequence[ReferenceCase] | str,
    output: str,
    tolerances: Mapping[str, Tolerance] = _NO_TOLERANCES,
) -> Parity:
    """Run an engine on every case, and compare its outputs with the reference.

    Args:
        bundle: The bundle.
        engine: The engine's entry in the manifest.
        expected: The cases with the reference's predictions; the reason, if there are none.
        output: The output to compare, `predicted` or `inpainted`.
        tolerances: Bounds that replace the catalogue's, by precision.

    Returns:
        The parity. If the engine does not start on this machine, the emulated parity of its graph, or the reason why
        the parity is not measured.
    """
    if isinstance(expected, str):
        return Parity(measured=False, reason=expected)
    io = "uint8" if bundle.manifest.io in DROP_IN_ENDS else bundle.manifest.io  # as DropInRunner takes images
    expected = _select_cases(expected, engine.sizes, io)
    if not expected:
        return Parity(measured=False, reason=f"no sample is of sizes {engine.sizes}")
    try:
        return max(
            _measure_forms(bundle, engine, expected, output, tolerances), key=lambda found: found.max_abs_error or 0
        )
    except EngineError as error:
        graph = bundle.manifest.graphs.get(engine.precision)
        if not ENGINES[engine.name].is_strongly_typed or graph is None or graph.parity is None:
            return Parity(measured=False, reason=str(error))
        return graph.parity.model_copy(update={"reason": f"{graph.parity.reason}: {error}"})


def _measure_forms(
    bundle: Bundle, engine: Engine, expected: Sequence[ReferenceCase], output: str, tolerances: Mapping[str, Tolerance]
) -> Iterator[Parity]:
    """Measure the engine, and once more with a compiled model for a size if the engine makes one."""
    if bundle.manifest.io in DROP_IN_ENDS:
        yield compare(DropInRunner(bundle), expected, INPAINTED, engine.precision, tolerances)
        return
    # The export has just built the engine, so its code can be trusted.
    device = CPU if CPU.kind in ENGINES[engine.name].devices else None
    request = Request(device=device, compile_sizes=False, allow_engine_code=True)
    runner = choice.open_engine(bundle, engine.name, request)
    yield compare(runner, expected, output, engine.precision, tolerances)
    if any(runner.has_compiled_form(_find_size(item)) for item in expected):
        runner = choice.open_engine(bundle, engine.name, replace(request, compile_sizes=True))
        yield compare(runner, expected, output, engine.precision, tolerances)


def emulate(
    model: onnx.ModelProto,
    precision: Precision,
    sizes: SizeRange,
    expected: Sequence[ReferenceCase],
    tolerances: Mapping[str, Tolerance] = _NO_TOLERANCES,
) -> Parity:
    """Emulate the arithmetic of a graph on a CPU, and compare its outputs with the reference.

    Args:
        model: The graph. It has an output `predicted`.
        precision: The precision of the graph.
        sizes: The sizes of the engine that is built from the graph. Other cases are left out.
        expected: The cases with the reference's predictions.
        tolerances: Bounds that replace the catalogue's, by precision.

    Returns:
        The parity, which is marked as emulated.
    """
    from glama_deploy.export.numerics.emulate import EmulatedRunner

    runner = EmulatedRunner(model, precision, sizes)
    cases = _select_cases(expected, sizes, runner.io)
    if not cases:
        return Parity(measured=False, reason=f"no sample is of sizes {sizes}")
    found = compare(runner, cases, PREDICTED, precision, tolerances)
    return found.model_copy(update={"emulated": True, "reason": "emulated on a CPU"})


def _select_cases(expected: Sequence[ReferenceCase], sizes: SizeRange, io: Io) -> list[ReferenceCase]:
    """Select the cases that an engine of these sizes takes."""
    return [item for item in (_cut_batch(item, sizes, io) for item in expected) if item]


def _find_size(item: ReferenceCase) -> tuple[int, int]:
    """Return the height and width of a case."""
    _, height, width = item.case.missing.shape
    return height, width


def _cut_batch(item: ReferenceCase, sizes: SizeRange, io: Io) -> ReferenceCase | None:
    """Cut a case to the engine's largest batch. Return None if the engine does not take its size."""
    height, width = item.case.missing.shape[1:]
    bottom, right = compute_padding(height, width, io, sizes)
    if not sizes.covers(height + bottom, width + right):
        return None
    most = sizes.max_batch
    case = Case(item.case.name, item.case.image[:most], item.case.missing[:most])
    return ReferenceCase(case, item.predicted[:most])


def compare(
    runner: Runner,
    expected: Sequence[ReferenceCase],
    output: str,
    precision: Precision,
    tolerances: Mapping[str, Tolerance] = _NO_TOLERANCES,
) -> Parity:
    """Compare a runner's outputs with the reference.

    For the output `predicted`, the output `inpainted` of the first case is compared too. A value that is not finite has
    an infinite error, and so does a known pixel that a uint8 graph changes. Rounding to 8 bits is not an error.

    Args:
        runner: The runner.
        expected: The cases with the reference's predictions, at least one.
        output: The output to compare, `predicted` or `inpainted`.
        precision: The precision of the engine, for its tolerance.
        tolerances: Bounds that replace the catalogue's, by precision.

    Returns:
        The largest absolute error of values in 0…1, and the PSNR over all values of all cases (dB, peak 1).
    """
    worst, largest, squares, count = "", 0.0, 0.0, 0
    pairs = [(item, output) for item in expected]
    if output == PREDICTED:
        pairs.append((expected[0], INPAINTED))
    for item, name in pairs:
        error = _compute_errors(runner, item, name)
        if not np.isfinite(error).all():
            error = np.full_like(error, np.inf)
        if error.max() >= largest:
            worst, largest = f"{item.case.name}, {name}", float(error.max())
        squares, count = squares + float((error**2).sum()), count + error.size
    tolerance = find_tolerance(precision, tolerances)
    return Parity(
        measured=True,
        output=output,
        max_abs_error=largest,
        psnr=None if squares == 0 else compute_psnr(squares / count),
        tolerance=tolerance.max_abs_error,
        least_psnr=tolerance.least_psnr,
        cases=tuple(item.case.name for item in expected),
        worst=worst,
    )


def _compute_errors(runner: Runner, item: ReferenceCase, output: str) -> np.ndarray:
    """Compute the absolute error of each value of an output, float64 [B, H, W, 3]."""
    case = item.case
    found = to_images(runner.run(*case.tensors(runner.io, runner.sizes), output), runner.io, *case.missing.shape[1:])
    wanted = item.predicted if output == PREDICTED else item.inpainted
    if found.dtype != np.uint8:
        return np.abs(found.astype(np.float64) - wanted)
    error = np.maximum(np.abs(found / 255.0 - wanted) - 0.5 / 255, 0)
    known = ~case.missing
    error[known] = np.where(found[known] == case.image[known], 0, np.inf)
    return error
