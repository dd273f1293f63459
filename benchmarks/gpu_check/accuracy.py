"""Compare an engine with ONNX Runtime on the CPU, at the tuned size of each optimization profile. Prints JSON.

    python -m glama_deploy.benchmarks.gpu_check.accuracy BUNDLE ENGINE

Each size runs plainly, as the replay of a CUDA graph, and again after its execution context was evicted by other sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
from pydantic import ConfigDict

from glama_deploy import memory
from glama_deploy.bundle import Bundle, EngineName, Size, SizeRange
from glama_deploy.catalogue import Tolerance, find_tolerance
from glama_deploy.engines.tensorrt.device_check import choose_output, compute_errors, make_case, open_reference
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.tensors import to_images, to_tensors
from glama_deploy.network import SIZE_MULTIPLE
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime.base import Request, Runner
from glama_deploy.runtime.tensorrt import runner as tensorrt
from glama_deploy.runtime.tensorrt.contexts import MAX_CONTEXTS


class Comparison(FrozenModel):
    """One output of an engine against the reference's.

    Attributes:
        size: height and width in pixels.
        run: `plain`, `replay` or `after eviction`.
        max_abs_error: the largest error of a value, of outputs in 0…1.
        psnr: dB, peak 1; None where the two are identical.
        tolerance: the bound of the engine's precision.
        passed: whether the error is within the bound.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # an output that is not finite

    size: Size
    run: str
    max_abs_error: float
    psnr: float | None
    tolerance: str
    passed: bool


class Accuracy(FrozenModel):
    """All comparisons of an engine, and what was left out, with the reason."""

    comparisons: tuple[Comparison, ...]
    left_out: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether there are comparisons, and all are within the bound."""
        return bool(self.comparisons) and all(each.passed for each in self.comparisons)


def compare_engine(bundle: Bundle, name: EngineName) -> Accuracy:
    """Compare an engine of a bundle with ONNX Runtime, which runs the fp32 graph on the CPU.

    Args:
        bundle: the bundle.
        name: the engine's name.

    Returns:
        The comparisons.

    Raises:
        EngineError: the engine or the reference does not run here.
    """
    engine = bundle.manifest.engines[name]
    tolerance = find_tolerance(engine.precision, {})
    reference, runner = open_reference(bundle), tensorrt.open(bundle, Request(engine=name, allow_engine_code=True))
    profiles = engine.profiles or (engine.sizes,)
    comparisons: list[Comparison] = []
    left_out: list[str] = []
    try:
        for size in dict.fromkeys(profile.opt for profile in profiles):
            shown = f"{size[0]}x{size[1]}"
            needed = memory.estimate(*size, bundle.manifest.network)
            if not memory.fits(needed):
                left_out.append(f"{shown}: ONNX Runtime needs about {needed / 1e9:.1f} GB")
                continue
            others = list(islice(_list_other_sizes(profiles[0], size), MAX_CONTEXTS + 1))
            if len(others) <= MAX_CONTEXTS:
                left_out.append(f"{shown}, after eviction: the engine takes too few other sizes")
                others = []
            comparisons += _compare_size(bundle, runner, reference, size, others, tolerance)
    finally:
        runner.close()
    return Accuracy(comparisons=tuple(comparisons), left_out=tuple(left_out))


def _list_other_sizes(profile: SizeRange, size: Size) -> Iterator[Size]:
    """Yield sizes of the smallest profile, the small ones first, which run fast."""
    heights, widths = (range(low, high + 1, SIZE_MULTIPLE) for low, high in zip(profile.min, profile.max, strict=True))
    return (other for other in product(heights, widths) if other != size)


def _compare_size(
    bundle: Bundle, runner: Runner, reference: Runner, size: Size, others: list[Size], tolerance: Tolerance
) -> Iterator[Comparison]:
    """Yield the comparisons at one size. The second run has another picture: a graph that does not run is noticed."""
    io, output = bundle.manifest.io, choose_output(bundle)
    image, missing = make_case(1, size)
    inputs, mirrored = (to_tensors(each, missing, io, (0, 0)) for each in (image, image[:, ::-1].copy()))
    wanted = to_images(reference.run(*inputs, output), io, *size)

    def compare(run: str) -> Comparison:
        return _judge(size, run, to_images(runner.run(*inputs, output), io, *size), wanted, tolerance)

    yield compare("plain")
    runner.run(*mirrored, output)
    yield compare("replay")
    for other in others:
        runner.run(*to_tensors(*make_case(1, other), io, (0, 0)), output)
    if others:
        yield compare("after eviction")


def _judge(size: Size, run: str, found: np.ndarray, wanted: np.ndarray, tolerance: Tolerance) -> Comparison:
    errors = compute_errors(found, wanted)
    largest, square = float(errors.max()), float((errors**2).mean())
    psnr = None if square == 0 else compute_psnr(square)
    if tolerance.least_psnr is not None:
        passed = psnr is None or psnr >= tolerance.least_psnr
    else:
        assert tolerance.max_abs_error is not None
        passed = largest <= tolerance.max_abs_error
    return Comparison(size=size, run=run, max_abs_error=largest, psnr=psnr, tolerance=str(tolerance), passed=passed)


def main() -> int:
    """Compare the engine, and print the comparisons.

    Returns:
        The exit code: 0 all outputs are within the bound, 1 they are not, 2 the engine does not run.
    """
    try:
        folder, name = sys.argv[1:]
        found = compare_engine(Bundle.open(Path(folder)), name)
    except GlamaError as error:
        print(error, file=sys.stderr)
        return 2
    print(found.model_dump_json(indent=1))
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
