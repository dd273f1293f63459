"""How far an engine is from the PyTorch reference, measured on the artifact itself; a half-precision TensorRT engine
that cannot run here is measured by emulation, and said to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from glama_deploy.bundle import Bundle, Engine, Io, Parity, Precision, SizeRange
from glama_deploy.catalogue import ENGINES, Tolerance, find_tolerance
from glama_deploy.checkpoints.formats import Checkpoint, build_module
from glama_deploy.errors import EngineError
from glama_deploy.export.samples import Case
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.inpainting.tensors import to_images
from glama_deploy.node_names import INPAINTED, PREDICTED
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request, Runner, require

if TYPE_CHECKING:
    import onnx

#: No bounds but the catalogue's.
_CATALOGUE: Mapping[str, Tolerance] = MappingProxyType({})


@dataclass(frozen=True)
class Measured:
    """A case with the reference's prediction, float32 [B, H, W, 3], 0…1, before compositing."""

    case: Case
    predicted: np.ndarray

    @property
    def inpainted(self) -> np.ndarray:
        """The prediction where pixels are missing, the image where they are known."""
        return np.where(self.case.missing[..., None], self.predicted, self.case.image / np.float32(255))


def reference(checkpoint: Checkpoint, inputs: Sequence[Case]) -> list[Measured] | str:
    """The reference's prediction for each case, or why there is none."""
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
            measured.append(Measured(case, to_images(found, "float", *case.missing.shape[1:])))
    return measured


def measure(
    bundle: Bundle,
    engine: Engine,
    expected: Sequence[Measured] | str,
    output: str,
    tolerances: Mapping[str, Tolerance] = _CATALOGUE,
) -> Parity:
    """Run the engine on every case and compare. One that does not start here is said to be unmeasured, or where its
    graph's arithmetic was emulated, to be that. `tolerances` replace the catalogue's bounds, by precision."""
    if isinstance(expected, str):
        return Parity(measured=False, reason=expected)
    expected = _cases(expected, engine.sizes, bundle.manifest.io)
    if not expected:
        return Parity(measured=False, reason=f"no sample is of sizes {engine.sizes}")
    try:
        return max(_forms(bundle, engine, expected, output, tolerances), key=lambda found: found.max_abs_error or 0)
    except EngineError as error:
        graph = bundle.manifest.graphs.get(engine.precision)
        if not ENGINES[engine.name].is_strongly_typed or graph is None or graph.parity is None:
            return Parity(measured=False, reason=str(error))
        return graph.parity.model_copy(update={"reason": f"{graph.parity.reason}: {error}"})


def _forms(
    bundle: Bundle, engine: Engine, expected: Sequence[Measured], output: str, tolerances: Mapping[str, Tolerance]
) -> Iterator[Parity]:
    """The engine's parity, and that of what it does with sizes that it has compiled where that is something else."""
    # The export has just built the engine: code in it is not from elsewhere.
    device = ENGINES[engine.name].device.replace("any", "cpu")
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
    expected: Sequence[Measured],
    tolerances: Mapping[str, Tolerance] = _CATALOGUE,
) -> Parity:
    """The arithmetic of a graph with an output `predicted`, emulated on a CPU, on the cases that an engine of these
    sizes takes. `tolerances` replace the catalogue's bounds, by precision."""
    from glama_deploy.export.numerics.emulate import EmulatedRunner

    runner = EmulatedRunner(model, precision, sizes)
    cases = _cases(expected, sizes, runner.io)
    if not cases:
        return Parity(measured=False, reason=f"no sample is of sizes {sizes}")
    found = compare(runner, cases, PREDICTED, precision, tolerances)
    return found.model_copy(update={"emulated": True, "reason": "emulated on a CPU"})


def _cases(expected: Sequence[Measured], sizes: SizeRange, io: Io) -> list[Measured]:
    """Those that an engine of these sizes takes."""
    return [item for item in (_within(item, sizes, io) for item in expected) if item]


def _find_size(item: Measured) -> tuple[int, int]:
    """Return the height and width of a case."""
    _, height, width = item.case.missing.shape
    return height, width


def _within(item: Measured, sizes: SizeRange, io: Io) -> Measured | None:
    """The case as an engine of these sizes takes it: as many of its images as the batch holds, or None."""
    height, width = item.case.missing.shape[1:]
    bottom, right = compute_padding(height, width, io, sizes)
    if not sizes.covers(height + bottom, width + right):
        return None
    most = sizes.max_batch
    case = Case(item.case.name, item.case.image[:most], item.case.missing[:most])
    return Measured(case, item.predicted[:most])


def compare(
    runner: Runner,
    expected: Sequence[Measured],
    output: str,
    precision: Precision,
    tolerances: Mapping[str, Tolerance] = _CATALOGUE,
) -> Parity:
    """Largest error and PSNR (dB, peak 1, over all values of all cases) of a runner against the reference.

    Where the output is `predicted`, the first case's `inpainted` is compared too. A value that is not finite, or a
    known pixel of a uint8 graph that is not the image's, counts as an infinite error; rounding to 8 bits as none.
    """
    worst, largest, squares, count = "", 0.0, 0.0, 0
    pairs = [(item, output) for item in expected]
    if output == PREDICTED:
        pairs.append((expected[0], INPAINTED))
    for item, name in pairs:
        error = _errors(runner, item, name)
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


def _errors(runner: Runner, item: Measured, output: str) -> np.ndarray:
    """|error| of each value of an output, float64 [B, H, W, 3]."""
    case = item.case
    found = to_images(runner.run(*case.tensors(runner.io, runner.sizes), output), runner.io, *case.missing.shape[1:])
    wanted = item.predicted if output == PREDICTED else item.inpainted
    if found.dtype != np.uint8:
        return np.abs(found.astype(np.float64) - wanted)
    error = np.maximum(np.abs(found / 255.0 - wanted) - 0.5 / 255, 0)
    known = ~case.missing
    error[known] = np.where(found[known] == case.image[known], 0, np.inf)
    return error
