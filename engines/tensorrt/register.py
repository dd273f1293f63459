"""Register an engine that another tool, such as trtexec on a Jetson, built from the bundle's graph."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from glama_deploy.bundle import Bundle, Engine, SizeRange, Tensor
from glama_deploy.catalogue import TENSORRT, Tolerance, find_target
from glama_deploy.engines import base, build
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.tensorrt.deserialization import deserialize
from glama_deploy.runtime.tensorrt.package import explain_install

#: TensorRT's names of the types that a bundle's tensors have.
_TYPES = {"float32": "FLOAT", "uint8": "UINT8"}


def register_engine(
    bundle: Bundle,
    target: str,
    engine: Path,
    precision: str | None = None,
    options: Options | None = None,
    tolerances: Mapping[str, Tolerance] = MappingProxyType({}),
    *,
    check: bool = True,
) -> Bundle:
    """Copy a TensorRT engine into a bundle.

    The installed TensorRT opens the engine and reads its optimization profiles, inputs and outputs. Call this function
    on the device that runs the engine.

    Args:
        bundle: The bundle.
        target: The target, which is `trt`.
        engine: The file of the engine.
        precision: The precision that the engine was built in; None: the precision of the bundle's export.
        options: The settings that the engine was built with; None: the defaults. Profiles and timing cache are ignored.
        tolerances: Bounds, by precision, for the parity that was emulated at the export.

        check: Whether the engine is run, and refused where its output differs from that of ONNX Runtime.

    Returns:
        The bundle with the engine.

    Raises:
        EngineError: There is no driver, the engine is for another TensorRT or another graph, or computes wrong values.
        GlamaError: The target is not TensorRT, the file does not exist, or its profiles cannot be used.
    """
    if find_target(target) is not TENSORRT:
        raise GlamaError(f"`engine` takes an engine of TensorRT, the target is {target}; give `target=trt`")
    if not engine.is_file():
        raise GlamaError(f"`engine={engine}` is not a file; give the engine that trtexec wrote (--saveEngine)")
    options = options or Options()
    options.check(TENSORRT)
    built = build.choose_precision(bundle, TENSORRT, precision)
    bundle.graph(built)  # the bundle has the graph that the engine was built from
    bound = build.find_bound(bundle, TENSORRT, built, tolerances)
    gpu = gpus.find_local_capability()
    if gpu is None:
        raise EngineError("no NVIDIA driver or GPU here; an engine is registered on the device that runs it")
    trt = require(TENSORRT.package, TENSORRT.title, explain_install(TENSORRT))
    found = _read_profiles(trt, bundle, engine, options)
    capability = "8.0+" if options.settings.hardware_compatible else gpu

    def make(work: Path) -> Engine:
        (path,) = (work / TENSORRT.name / name for name in TENSORRT.files)
        path.parent.mkdir()
        shutil.copyfile(engine, path)
        sizes = found[-1].model_copy(update={"opt": found[(len(found) - 1) // 2].opt})
        update = {"profiles": found, "settings": options.settings, "compute_capabilities": (capability,)}
        versions = {TENSORRT.package: trt.__version__}
        return base.describe_engine(work, TENSORRT.name, built, sizes, [path], versions).model_copy(update=update)

    checked = build.make_check(bundle, TENSORRT, tolerances, is_asked=check)
    return build.install_engine(bundle, TENSORRT.name, make, bound, checked)


def _read_profiles(trt: Any, bundle: Bundle, file: Path, options: Options) -> tuple[SizeRange, ...]:
    """Read the engine's profiles in its own order. Raise GlamaError unless the last one covers the others."""
    engine = _open_engine(trt, bundle, file, options)
    _check_tensors(trt, engine, bundle, file)
    tensor = bundle.manifest.inputs[0]
    try:
        found = tuple(_read_profile(engine, tensor, index) for index in range(engine.num_optimization_profiles))
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise GlamaError(
            f"{file} has a profile that the runtime cannot use ({message}); build it with build.sh"
        ) from error
    last = found[-1]
    if not all(last.covers(*size) for profile in found for size in (profile.min, profile.max)):
        raise GlamaError(f"{file} has profiles of which the last does not take all sizes; build it with build.sh")
    return found


def _open_engine(trt: Any, bundle: Bundle, file: Path, options: Options) -> Any:
    """Open the engine, an ICudaEngine. Raise EngineError if this TensorRT and GPU cannot."""
    logger = trt.Logger(trt.Logger.ERROR)
    # The user names the file, and allows the code in it with `version_compatible`.
    allowed = options.settings.version_compatible
    engine = deserialize(
        trt, logger, file.read_bytes(), options.settings, bundle.manifest.fft, allow_engine_code=allowed
    )
    if engine is None:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot open {file} on this GPU; build the engine here, with build.sh or "
            f"`build({bundle.path}, target=trt)`"
        )
    return engine


def _check_tensors(trt: Any, engine: Any, bundle: Bundle, file: Path) -> None:
    """Raise EngineError unless the engine has the inputs and outputs of the bundle's graph."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {(name, engine.get_tensor_dtype(name).name) for name in names}
    expected = {(tensor.name, _TYPES[tensor.dtype]) for tensor in (*bundle.manifest.inputs, *bundle.manifest.outputs)}
    if found != expected:
        has, wants = (", ".join(sorted(f"{name} {dtype}" for name, dtype in those)) for those in (found, expected))
        raise EngineError(f"{file} has the tensors {has}; this bundle's graph has {wants}: build it from that graph")


def _read_profile(engine: Any, tensor: Tensor, index: int) -> SizeRange:
    """Read one profile of the engine from its first input."""
    low, opt, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(tensor.name, index))
    batch, height, width = (tensor.layout.index(axis) for axis in "NHW")
    return SizeRange(
        min=(low[height], low[width]),
        opt=(opt[height], opt[width]),
        max=(high[height], high[width]),
        max_batch=high[batch],
    )
