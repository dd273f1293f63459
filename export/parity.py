"""How far an engine is from the PyTorch reference, measured on the artifact itself.

Photos (the sample that the package ships), several sizes with odd originals among them, batches, and the masks that
break things: none, all, one pixel, strokes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glama_deploy import images, runtime
from glama_deploy.bundle import Bundle, Engine, Parity, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.masks import by_name
from glama_deploy.reference.checkpoint import Checkpoint, module
from glama_deploy.runtime.base import Request, Runner, installed

SAMPLE = Path(__file__).parent.parent / "glama_deploy" / "assets" / "sample.jpg"

#: Largest absolute error on outputs of 0…1. fp32: rounding in another order of summation, through 9 to 18 blocks.
#: The others: a quarter of one 8-bit step per rounding would be lost in it; what is visible is not.
TOLERANCE = {"fp32": 2e-5, "fp16": 2e-2, "bf16": 4e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Case:
    """One input: image float32 [B, 3, H, W], mask float32 [B, 1, H, W], and what to call it."""

    name: str
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Measured:
    """A case with the reference's output."""

    case: Case
    expected: np.ndarray


def cases(sizes: SizeRange) -> list[Case]:
    """What an engine of these sizes is measured on."""
    if sizes.static:
        plan = [(1, sizes.min, kind) for kind in ("strokes", "one pixel", "full", "empty")]
    else:
        plan = [
            (1, (64, 64), "one pixel"),
            (3, (64, 96), "full"),
            (1, (256, 256), "strokes"),
            (1, (200, 312), "empty"),
            (1, (264, 248), "strokes"),
            (1, (512, 512), "strokes"),
        ]
        plan = [(b, s, kind) for b, s, kind in plan if sizes.covers(*s)] or [(1, sizes.opt, "strokes")]
    batches = sizes.max_batch or 3
    return [_case(min(b, batches), s, kind, seed) for seed, (b, s, kind) in enumerate(plan)]


def _case(batch: int, size: tuple[int, int], kind: str, seed: int) -> Case:
    photo = images.read_image(SAMPLE).rgb
    rng = np.random.default_rng(seed)
    height, width = size
    tiles = -(-height // photo.shape[0]) + 1, -(-width // photo.shape[1]) + 1
    photo = np.pad(
        photo, ((0, photo.shape[0] * (tiles[0] - 1)), (0, photo.shape[1] * (tiles[1] - 1)), (0, 0)), "symmetric"
    )
    crops, masks = [], []
    for _ in range(batch):
        y = int(rng.integers(photo.shape[0] - height + 1))
        x = int(rng.integers(photo.shape[1] - width + 1))
        crops.append(photo[y : y + height, x : x + width].transpose(2, 0, 1))
        mask = np.zeros(size, bool)
        if kind == "full":
            mask[:] = True
        elif kind == "one pixel":
            mask[height // 2, width // 3] = True
        elif kind == "strokes":
            mask = by_name("MediumStrokes")(height, width, rng)
        masks.append(mask[None])
    image = np.stack(crops).astype(np.float32) / np.float32(255)
    return Case(
        f"{height}x{width} {kind}" + (f" ×{batch}" if batch > 1 else ""), image, np.stack(masks).astype(np.float32)
    )


def reference(checkpoint: Checkpoint, inputs: Sequence[Case], output: str) -> list[Measured] | str:
    """The reference's output for each case, or why there is none."""
    if not installed("torch"):
        return "PyTorch, the reference, is not installed"
    import torch

    from glama_deploy.reference.generator import inpaint, predict

    generator = module(checkpoint)
    measured = []
    with torch.inference_mode():
        for case in inputs:
            image, mask = torch.from_numpy(case.image), torch.from_numpy(case.mask)
            run = inpaint if output == "inpainted" else predict
            measured.append(Measured(case, run(generator, image, mask).numpy()))
    return measured


def measure(bundle: Bundle, engine: Engine, expected: Sequence[Measured] | str, output: str) -> Parity:
    """Run the engine on every case and compare; an engine that does not start here is said to be unmeasured."""
    if isinstance(expected, str):
        return Parity(measured=False, reason=expected)
    try:
        runner = runtime.open_engine(bundle, engine.name, Request(device="cpu" if engine.name == "onnx" else "any"))
    except EngineError as error:
        return Parity(measured=False, reason=str(error))
    return compare(runner, expected, output, TOLERANCE[engine.precision])


def compare(runner: Runner, expected: Sequence[Measured], output: str, tolerance: float) -> Parity:
    """Largest error and PSNR (dB, peak 1, over all values of all cases) of a runner against the reference.

    A value that is not finite counts as an infinite error.
    """
    worst, largest, squares, count = "", 0.0, 0.0, 0
    for item in expected:
        error = runner.run(item.case.image, item.case.mask, output).astype(np.float64) - item.expected
        peak = float(np.abs(error).max()) if np.isfinite(error).all() else float("inf")
        if peak >= largest:
            worst, largest = item.case.name, peak
        squares, count = squares + float((error**2).sum()), count + error.size
    psnr = None if squares == 0 else float(-10 * np.log10(squares / count))
    return Parity(
        measured=True,
        output=output,
        max_abs_error=largest,
        psnr=psnr if psnr is None or np.isfinite(psnr) else float("-inf"),
        tolerance=tolerance,
        cases=tuple(item.case.name for item in expected),
        worst=worst,
    )
