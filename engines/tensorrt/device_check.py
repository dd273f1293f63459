"""Run an engine on the GPU that it was built on, and compare its outputs with ONNX Runtime's on the CPU.

TensorRT has built engines that run and compute wrong values: 10.3 with dynamic sizes, several profiles before 10.8, and
some fusions of 11. Such an engine must not come into a bundle. The reference is the bundle's fp32 graph, so the bound
is that of parity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from glama_deploy import memory
from glama_deploy.bundle import Bundle, DeviceCheck, EngineName, Size, SizeRange
from glama_deploy.catalogue import ENGINES, Tolerance, find_tolerance
from glama_deploy.errors import EngineError
from glama_deploy.inpainting.tensors import to_images, to_tensors
from glama_deploy.io import images
from glama_deploy.io.files import link_or_copy
from glama_deploy.network import SIZE_MULTIPLE
from glama_deploy.node_names import INPAINTED, PREDICTED
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime.base import Request, Runner
from glama_deploy.runtime.cuda.device import open_device
from glama_deploy.runtime.cuda.interface import OutOfMemory
from glama_deploy.runtime.devices import CPU
from glama_deploy.runtime.tensorrt import runner as tensorrt

#: The sample photo of the package.
_SAMPLE = Path(images.__file__).parents[1] / "assets" / "sample.jpg"

#: What each case runs, in order. The second run of a size is captured as a CUDA graph, which later runs replay. It has
#: another picture, so a graph that does not run leaves a wrong output.
_RUNS = ("first run", None, "repeated run")


def check_engine(
    bundle: Bundle, built: Bundle, name: EngineName, tolerances: Mapping[str, Tolerance] = MappingProxyType({})
) -> DeviceCheck:
    """Run an engine at the corners of each optimization profile, and compare each output with ONNX Runtime's.

    Args:
        bundle: The bundle, whose fp32 graph ONNX Runtime runs on the CPU.
        built: A bundle in another folder, with the engine that is checked. Links to graphs are added to the folder.
        name: The engine's name.
        tolerances: Bounds that replace the catalogue's, by precision.

    Returns:
        The measurement; or the reason why there is none, such as a machine without a GPU or ONNX Runtime.

    Raises:
        EngineError: The engine does not run, or an output differs by more than the tolerance of its precision.
    """
    try:
        gpu = _find_gpu(built, name)
        reference = open_reference(bundle)
    except EngineError as error:
        return DeviceCheck(measured=False, reason=str(error))
    for graph in bundle.manifest.graphs.values():
        if not (built.path / graph.file.path).exists():
            link_or_copy(bundle.path / graph.file.path, built.path / graph.file.path)
    runner = tensorrt.open(built, Request(engine=name, allow_engine_code=True))
    try:
        found = _compare(bundle, built, name, runner, reference, tolerances)
    finally:
        runner.close()
    if found.measured and not found.passed:
        raise EngineError(_explain_miss(found, built, name))
    return found.model_copy(update={"gpu": gpu})


def list_corners(profiles: tuple[SizeRange, ...]) -> list[tuple[int, Size]]:
    """List the batches and sizes that an engine is checked at.

    The runtime runs a size with the smallest profile that takes it. So a profile is checked at the smallest size that
    no smaller profile takes, at its tuned size, and at its largest size; and at the smallest size in the largest batch.

    Args:
        profiles: The engine's optimization profiles, the smallest first.

    Returns:
        Pairs of a batch and a size (height, width), each once.
    """
    found: dict[tuple[int, Size], None] = {}
    below: Size | None = None
    for profile in profiles:
        low = profile.min
        if below is not None:
            behind = [min(side + SIZE_MULTIPLE, high) for side, high in zip(below, profile.max, strict=True)]
            low = max(low[0], behind[0]), max(low[1], behind[1])
        cases = [(1, low), (profile.max_batch or 1, low), (1, profile.opt), (1, profile.max)]
        found.update(dict.fromkeys(cases))
        below = profile.max
    return list(found)


def _find_gpu(built: Bundle, name: EngineName) -> str:
    """Return the name of the GPU. Raise EngineError if there is none, or if the engine is for other GPUs."""
    device = open_device()
    try:
        with device.active():
            target = ENGINES[name].target
            tensorrt.check_gpu(built.manifest.engines[name], device, f"`build(BUNDLE, target={target})`")
            return device.name()
    finally:
        device.close()


def open_reference(bundle: Bundle) -> Runner:
    """Open the fp32 graph with ONNX Runtime on the CPU.

    Args:
        bundle: The bundle.

    Returns:
        The reference.

    Raises:
        EngineError: This is not possible here.
    """
    from glama_deploy.runtime.onnxruntime import runner as onnxruntime

    return onnxruntime.open(bundle, Request(precision="fp32", device=CPU))


def _compare(
    bundle: Bundle,
    built: Bundle,
    name: EngineName,
    runner: Runner,
    reference: Runner,
    tolerances: Mapping[str, Tolerance],
) -> DeviceCheck:
    """Run all cases. The result is measured if at least one case ran."""
    engine, io = built.manifest.engines[name], bundle.manifest.io
    output = choose_output(bundle)
    tolerance = find_tolerance(engine.precision, tolerances)
    ran, left_out, worst, largest, squares, count = [], [], "", 0.0, 0.0, 0
    for batch, size in list_corners(engine.profiles or (engine.sizes,)):
        label = f"{size[0]}x{size[1]}" + (f", batch {batch}" if batch > 1 else "")
        needed = memory.estimate(*size, bundle.manifest.network, batch)
        if not memory.fits(needed):
            left_out.append(f"{label}: ONNX Runtime needs about {needed / 1e9:.1f} GB")
            continue
        image, missing = make_case(batch, size)
        inputs, others = to_tensors(image, missing, io, (0, 0)), to_tensors(image[:, ::-1], missing, io, (0, 0))
        wanted = to_images(reference.run(*inputs, output), io, *size)
        try:
            outputs = [(run, runner.run(*(inputs if run else others), output)) for run in _RUNS]
        except EngineError as error:
            if not isinstance(error.__cause__, OutOfMemory):
                raise
            left_out.append(f"{label}: {error}")
            continue
        ran.append(label)
        for run, found in outputs:
            if run is None:
                continue
            errors = compute_errors(to_images(found, io, *size), wanted)
            squares, count = squares + float((errors**2).sum()), count + errors.size
            if errors.max() >= largest:
                worst, largest = f"{label}, {run}", float(errors.max())
    if not ran:
        return DeviceCheck(measured=False, reason=f"no size could be checked ({'; '.join(left_out)})")
    return DeviceCheck(
        measured=True,
        output=output,
        max_abs_error=largest,
        psnr=None if squares == 0 else compute_psnr(squares / count),
        tolerance=tolerance.max_abs_error,
        least_psnr=tolerance.least_psnr,
        cases=tuple(ran),
        not_checked=tuple(left_out),
        worst=worst,
    )


def choose_output(bundle: Bundle) -> str:
    """Choose the output that is compared.

    Args:
        bundle: The bundle.

    Returns:
        `predicted`, which shows errors of all pixels; `inpainted` where the graph lacks the former.
    """
    return PREDICTED if PREDICTED in {tensor.name for tensor in bundle.manifest.outputs} else INPAINTED


def make_case(batch: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Make pictures and masks: the sample photo and a hole in its middle.

    Args:
        batch: The number of pictures B, each moved to the side.
        size: Height H and width W in pixels.

    Returns:
        Pictures, uint8 [B, H, W, 3], and masks, bool [B, H, W], True where a pixel is missing.
    """
    height, width = size
    photo = np.asarray(Image.fromarray(images.read_image(_SAMPLE).rgb).resize((width, height)))
    missing = np.zeros((batch, height, width), bool)
    missing[:, height // 4 : height // 2, width // 3 : width // 2] = True
    return np.stack([np.roll(photo, turn * 8, 1) for turn in range(batch)]), missing


def compute_errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Compute the absolute error of each value.

    Bytes of both sides are rounded, so one step of them is not an error.

    Args:
        found: The engine's output: uint8, or float32 in 0…1.
        wanted: The reference's output, of the same shape and type.

    Returns:
        float64 in 0…1; infinity where a value is not finite.
    """
    if found.dtype == np.uint8:
        return np.maximum(np.abs(found.astype(np.float64) - wanted) - 1, 0) / 255
    errors = np.abs(found.astype(np.float64) - wanted)
    return np.where(np.isfinite(errors), errors, np.inf)


def _explain_miss(found: DeviceCheck, built: Bundle, name: EngineName) -> str:
    engine = built.manifest.engines[name]
    if found.least_psnr is not None:
        miss = f"{found.psnr:.1f} dB where at least {found.least_psnr:g} dB are expected"
    else:
        miss = f"by {found.max_abs_error:.2g} where at most {found.tolerance:g} is expected"
    remedies = ["`profiles=one`"] if len(engine.profiles) > 1 else []
    remedies += [] if engine.sizes.static else ["a bundle that is exported with `size`"]
    remedies += [] if engine.precision == "fp32" else ["`precision=fp32` at the export"]
    tried = " or ".join(remedies) or "another version of TensorRT"
    return (
        f"the engine runs, and its output differs from ONNX Runtime's on this machine ({miss} in {engine.precision}; "
        f"worst at {found.worst}), so it is not registered; try {tried}"
    )
