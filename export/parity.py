"""How far an engine is from the PyTorch reference, measured on the artifact itself; a half-precision TensorRT engine
that cannot run here is measured by emulation, and said to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glama_deploy import runtime
from glama_deploy.bundle import Bundle, Engine, Parity, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.export.samples import Case
from glama_deploy.reference.checkpoint import Checkpoint, module
from glama_deploy.runtime.base import Request, Runner, installed

#: Largest absolute error on outputs of 0…1. fp32: rounding in another order of summation, through 9 to 18 blocks.
#: fp16: five steps of 8 bits at the worst pixel of all. bf16 has an eighth of fp16's digits.
TOLERANCE = {"fp32": 2e-5, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1}


@dataclass(frozen=True)
class Measured:
    """A case with the reference's output."""

    case: Case
    expected: np.ndarray


def reference(checkpoint: Checkpoint, inputs: Sequence[Case], output: str) -> list[Measured] | str:
    """The reference's output for each case, or why there is none."""
    if not installed("torch"):
        return "PyTorch, the reference, is not installed"
    import torch

    from glama_deploy.reference.generator import inpaint, predict

    generator = module(checkpoint)
    run = inpaint if output == "inpainted" else predict
    measured = []
    with torch.inference_mode():
        for case in inputs:
            image, mask = torch.from_numpy(case.image), torch.from_numpy(case.mask)
            measured.append(Measured(case, run(generator, image, mask).numpy()))
    return measured


def measure(bundle: Bundle, engine: Engine, expected: Sequence[Measured] | str, output: str) -> Parity:
    """Run the engine on every case and compare; an engine that does not start here is said to be unmeasured."""
    if isinstance(expected, str):
        return Parity(measured=False, reason=expected)
    expected = [item for item in (_within(item, engine.sizes) for item in expected) if item]
    if not expected:
        return Parity(measured=False, reason=f"no sample is of sizes {engine.sizes}")
    tolerance = TOLERANCE[engine.precision]
    try:
        runner = runtime.open_engine(bundle, engine.name, Request(device="cpu" if engine.name == "onnx" else "any"))
        return compare(runner, expected, output, tolerance)
    except EngineError as error:
        if engine.name in ("onnx", "openvino") or engine.precision == "fp32":
            return Parity(measured=False, reason=str(error))
        emulated = _emulate(bundle.graph(engine.precision), engine)
        parity = compare(emulated, expected, output, tolerance)
        return parity.model_copy(update={"emulated": True, "reason": f"emulated on a CPU: {error}"})


def _within(item: Measured, sizes: SizeRange) -> Measured | None:
    """The case as an engine of these sizes takes it: as many of its images as the batch holds, or None."""
    if not sizes.covers(*item.case.image.shape[2:]):
        return None
    most = sizes.max_batch
    case = Case(item.case.name, item.case.image[:most], item.case.mask[:most])
    return Measured(case, item.expected[:most])


def _emulate(graph: Path, engine: Engine) -> Runner:
    import onnx

    from glama_deploy.export.emulate import EmulatedRunner

    return EmulatedRunner(onnx.load(str(graph)), engine.precision, engine.sizes)


def compare(runner: Runner, expected: Sequence[Measured], output: str, tolerance: float) -> Parity:
    """Largest error and PSNR (dB, peak 1, over all values of all cases) of a runner against the reference.

    Where the output is `predicted`, the first case's `inpainted` is compared too. A value that is not finite counts as
    an infinite error.
    """
    worst, largest, squares, count = "", 0.0, 0.0, 0
    pairs = [(item, output, item.expected) for item in expected]
    if output == "predicted":
        case = expected[0].case
        composed = case.mask * expected[0].expected + (1 - case.mask) * case.image
        pairs.append((expected[0], "inpainted", composed))
    for item, name, values in pairs:
        error = runner.run(item.case.image, item.case.mask, name).astype(np.float64) - values
        if not np.isfinite(error).all():
            error = np.full_like(error, np.inf)
        if np.abs(error).max() >= largest:
            worst, largest = f"{item.case.name}, {name}", float(np.abs(error).max())
        squares, count = squares + float((error**2).sum()), count + error.size
    return Parity(
        measured=True,
        output=output,
        max_abs_error=largest,
        psnr=None if squares == 0 else float(-10 * np.log10(squares / count)),
        tolerance=tolerance,
        cases=tuple(item.case.name for item in expected),
        worst=worst,
    )
