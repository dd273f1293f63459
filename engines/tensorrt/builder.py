"""Build TensorRT and TensorRT-RTX engines from ONNX with Polygraphy.

The packages `tensorrt` (from version 10.3) and `tensorrt_rtx` share the code. Networks are strongly typed: every layer
computes in the type that the graph gives it. The types are checked before the build. TF32 is off, so an fp32 graph
makes an fp32 engine.

The build runs in a process of its own, for two reasons. Polygraphy binds a process to one of the two packages. A parser
that aborts would end the export, too.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from glama_deploy.bundle import BuildSettings, Lowering, Precision, Size, SizeRange
from glama_deploy.catalogue import TENSORRT, TENSORRT_RTX, EngineRecord
from glama_deploy.engines import base
from glama_deploy.engines.tensorrt import gpus, inspection
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.io.files import atomic_file
from glama_deploy.node_names import BATCH, HEIGHT, WIDTH
from glama_deploy.runtime.base import installed
from glama_deploy.runtime.tensorrt.deserialization import deserialize, prepare_plugins
from glama_deploy.runtime.tensorrt.package import explain_install

#: The GPUs of a hardware-compatible TensorRT engine: Ampere and later.
_AMPERE_AND_LATER = "8.0+"

#: The first compute capability that a TensorRT-RTX engine is built for where no GPU is named: Ampere.
_FIRST_UNNAMED = (8, 0)

#: The first TensorRT that this package is written for. JetPack 6.1 has it.
_FIRST_VERSION = (10, 3)

#: The first TensorRT-RTX that this package is written for. It has `REQUIRE_USER_ALLOCATION`.
_FIRST_RTX_VERSION = (1, 7)

#: Parts of the messages that TensorRT and CUDA print without an NVIDIA driver.
_NO_DRIVER_MESSAGES = ("CUDA initialization failure", "no CUDA-capable device", "insufficient driver")


@dataclass(frozen=True)
class Task:
    """One build.

    Attributes:
        package: The Python package that builds, `tensorrt` or `tensorrt_rtx`.
        onnx: The ONNX model.
        engine: The file that is written.
        precision: The precision of the model's nodes.
        profiles: The optimization profiles.
        fft: The lowering of the FFT in the model.
        kept: The names of the nodes that do not have the precision.
        settings: The builder's settings.
        capabilities: The compute capabilities that a TensorRT-RTX engine is for; (): all from Ampere on that the
            installed TensorRT-RTX builds for.
        timing_cache: A file of TensorRT's kernel timings, which is read and written.
        inspect: Whether the report is of the finished engine, if there is a driver, and not of the network.
    """

    package: str
    onnx: Path
    engine: Path
    precision: Precision
    profiles: tuple[SizeRange, ...]
    fft: Lowering = "matmul"
    kept: tuple[str, ...] = ()
    settings: BuildSettings = field(default_factory=BuildSettings)
    capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None
    inspect: bool = False

    @property
    def record(self) -> EngineRecord:
        """The engine in the catalogue."""
        return TENSORRT_RTX if self.is_rtx else TENSORRT

    @property
    def is_rtx(self) -> bool:
        """Whether TensorRT-RTX builds the engine."""
        return self.package == TENSORRT_RTX.package


@dataclass(frozen=True)
class BuildResult:
    """The result of a build.

    Attributes:
        versions: The version of each package that built the engine.
        capabilities: The compute capabilities of the GPUs that the engine runs on, such as `8.9` or `8.0+`.
        report: The report of the engine.
    """

    versions: dict[str, str]
    capabilities: tuple[str, ...]
    report: Report


def build(task: Task) -> BuildResult:
    """Build the engine, and make its folder.

    TensorRT-RTX does not need a GPU to build. TensorRT tunes on the GPU that it finds.

    Args:
        task: The build.

    Returns:
        The result. The engine is at `task.engine`.

    Raises:
        EngineError: A package or the driver is missing, the package does not support an option, a layer has a wrong
            type, or the parser or the builder fails.
    """
    package = task.package
    if task.fft not in task.record.lowerings:  # TensorRT-RTX's parser would abort the process
        raise EngineError(base.explain_lowering(task.record, task.fft))
    if not installed(package):
        elsewhere = "" if task.is_rtx else ", or build on the device"
        raise EngineError(f"{package} is not installed; {explain_install(task.record)}{elsewhere}")
    if not installed("polygraphy"):
        raise EngineError("polygraphy is not installed; pip install polygraphy")
    task.engine.parent.mkdir(parents=True, exist_ok=True)
    child = subprocess.run(
        [sys.executable, "-c", _child_program(), TypeAdapter(Task).dump_json(task).decode()],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    said = _parse_last_line(child.stdout)
    if "error" in said:
        raise EngineError(said["error"])
    if child.returncode != 0 or not task.engine.is_file():
        raise EngineError(_explain(task, child.returncode, child.stdout + child.stderr))
    return TypeAdapter(BuildResult).validate_python(said)


def _child_program() -> str:
    """Return the child's program, which looks for modules where this process does, and last in the current folder.

    `python -m` and `python -c` look in the current folder first, and would run a file `json.py` there. The program
    sets the search path before it imports anything but `sys`, which is built in. Python's isolated mode (`-I`) is not
    used: the child would not find packages that this process has through PYTHONPATH or the user's site-packages.
    """
    here = {"", os.curdir, os.getcwd()}
    places = [place for place in sys.path if place not in here]
    places += [os.getcwd()] if len(places) < len(sys.path) else []
    return f"import sys; sys.path[:] = {places!r}; from {__name__} import main; sys.exit(main(sys.argv[1]))"


def _parse_last_line(output: str) -> dict[str, Any]:
    """Parse the JSON object in the last line. Return an empty one if the process ended before it wrote the line."""
    try:
        said = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return said if isinstance(said, dict) else {}


def _explain(task: Task, status: int, output: str) -> str:
    """Return one line for a build that failed: the first error that the builder logged, and what to do."""
    name = task.record.title
    if any(sign in output for sign in _NO_DRIVER_MESSAGES):
        return f"{name} found no NVIDIA driver here; build on the device"
    workspace = task.settings.workspace_mib
    if workspace is not None and ("OutOfMemory" in output or "workspace limit" in output):
        return (
            f"{name} cannot do with `workspace_mib={workspace}` MiB at these sizes; give more, or a smaller `max_size`"
        )
    if sys.platform != "win32" and status == -signal.SIGKILL:
        return (
            f"the system killed the builder of {name}, as Linux does where memory is short; free memory, or build with "
            "a smaller `max_size`, with `profiles=one`, with `workspace_mib`, or in fp16"
        )
    errors = [line.strip() for line in output.splitlines() if "[E]" in line or "[!]" in line or "Error" in line]
    what = errors[0] if errors else f"the builder's process ended with status {status}"
    return f"{name} did not build the engine ({what[:300]}); see the sizes and the package's version"


def _build_here(task: Task) -> BuildResult:
    """Build the engine in this process, the child: check, parse, inspect, configure, build, write."""
    package = importlib.import_module(task.package)
    _check_version(task, package)
    _check_gpus(task, package)
    if task.fft in ("dft", "plugin"):
        prepare_plugins(package, package.Logger(package.Logger.ERROR), task.fft)
    began = time.monotonic()
    polygraphy = _import_polygraphy(task.package)
    network = polygraphy.network_from_onnx_path(str(task.onnx), strongly_typed=True)
    inspection.check_types(package, network[1], task.precision, task.kept)
    config = _make_config(task, package, polygraphy, network)
    data = memoryview(polygraphy.engine_bytes_from_network(network, config=config))
    task.engine.write_bytes(data)
    if task.timing_cache is not None:
        _write_timing_cache(config, task.timing_cache)
    seconds = time.monotonic() - began
    contents = _inspect_finished(task, package, data) if task.inspect else None
    report = Report(contents or inspection.inspect_network(package, network[1]), data.nbytes, task.profiles, seconds)
    versions = {task.package: package.__version__, "polygraphy": importlib.import_module("polygraphy").__version__}
    return BuildResult(versions, _list_capabilities(task, package), report)


def _check_version(task: Task, package: Any) -> None:
    """Raise EngineError if this version of TensorRT or TensorRT-RTX is too old, or does not support the graph."""
    version = tuple(int(part) for part in re.findall(r"\d+", package.__version__)[:2])
    if task.is_rtx:
        if version < _FIRST_RTX_VERSION:
            first = ".".join(map(str, _FIRST_RTX_VERSION))
            raise EngineError(
                f"TensorRT-RTX {package.__version__} is installed, {first} or later is needed; pip install "
                f"'tensorrt-rtx>={first}'"
            )
        return
    if version < _FIRST_VERSION:
        first = ".".join(map(str, _FIRST_VERSION))
        raise EngineError(
            f"TensorRT {package.__version__} is installed, {first} or later is needed; on Jetson, JetPack 6.1 and "
            "later have it"
        )
    if task.fft == "dft" and version < (11, 2):
        raise EngineError(
            f"TensorRT {package.__version__} has no DFT operator, 11.2 and later have; export the bundle again with "
            "`fft=matmul` or `fft=plugin`"
        )


def _check_gpus(task: Task, package: Any) -> None:
    """Raise EngineError if TensorRT-RTX cannot build for the given GPUs, or needs a GPU on this machine."""
    if not task.is_rtx:
        return
    name = f"TensorRT-RTX {package.__version__}"
    known = _list_known_capabilities(package)
    for wanted in task.capabilities:
        if wanted not in known:
            raise EngineError(
                f"{name} builds for compute capabilities {', '.join(known)}, not for {wanted}"
                f"{_list_asked_names(task, wanted)}; build on that GPU with `target=trt`"
            )
        if task.precision != "fp16" and gpus.split_capability(wanted) < (8, 0):  # Turing's matrix products
            raise EngineError(
                f"{name} computes in {task.precision} from compute capability 8.0 up, {wanted}"
                f"{_list_asked_names(task, wanted)} is below: export with `precision=fp16`, and build that"
            )
    if (task.settings.stripped or task.settings.refittable) and gpus.find_local_capability() is None:
        raise EngineError(
            f"{name} builds refittable engines and those without weights only where an NVIDIA GPU is, and finds none; "
            "build on a machine with one, or leave out `refittable` and `stripped`"
        )


def _list_known_capabilities(package: Any) -> list[str]:
    """List the compute capabilities that TensorRT-RTX builds for, the lowest first."""
    names = [name for name in dir(package.ComputeCapability) if name[:2] == "SM"]
    return sorted((f"{name[2:-1]}.{name[-1]}" for name in names), key=gpus.split_capability)


def _choose_capabilities(task: Task, package: Any) -> tuple[str, ...]:
    """Choose the compute capabilities that the builder of TensorRT-RTX is asked for.

    All are named, because TensorRT-RTX documents an engine that names none for 8.6, 8.9 and 12.0 alone.
    """
    known = _list_known_capabilities(package)
    return task.capabilities or tuple(each for each in known if gpus.split_capability(each) >= _FIRST_UNNAMED)


def _list_asked_names(task: Task, capability: str) -> str:
    """List the names that the user gave for a compute capability, in brackets; empty without names."""
    names = [gpu for gpu in task.settings.gpus if gpu != capability and gpus.find_capability(gpu) == capability]
    return f" ({', '.join(names)})" if names else ""


def _list_capabilities(task: Task, package: Any) -> tuple[str, ...]:
    """List the compute capabilities of the GPUs that the engine is for, as in the manifest."""
    if task.is_rtx:
        return _choose_capabilities(task, package)
    here = gpus.find_local_capability()
    if here is None:
        return ()
    return (_AMPERE_AND_LATER,) if task.settings.hardware_compatible else (here,)


def _import_polygraphy(package: str) -> Any:
    """Import Polygraphy's TensorRT module, and bind it to the package. A process can do this once."""
    from polygraphy import config

    # Polygraphy reads this when its TensorRT modules are first imported.
    config.USE_TENSORRT_RTX = package == TENSORRT_RTX.package
    from polygraphy.backend import trt

    return trt


def _make_config(task: Task, package: Any, polygraphy: Any, network: Any) -> Any:
    """Make the builder's configuration for the task, an IBuilderConfig."""
    settings = task.settings
    asked: dict[str, Any] = {
        "profiles": [_make_profile(polygraphy, network[1], sizes) for sizes in task.profiles],
        "builder_optimization_level": settings.optimization_level,
        "version_compatible": settings.version_compatible,
        "strip_plan": settings.stripped,
        "refittable": settings.refittable,
    }
    if settings.workspace_mib is not None:
        asked["memory_pool_limits"] = {package.MemoryPoolType.WORKSPACE: settings.workspace_mib << 20}
    if settings.hardware_compatible:
        asked["hardware_compatibility_level"] = package.HardwareCompatibilityLevel.AMPERE_PLUS
    if task.is_rtx:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX as CreateConfig

        asked["compute_capabilities"] = [gpus.split_capability(each) for each in _choose_capabilities(task, package)]
        asked["refittable"] = (
            settings.refittable or settings.stripped
        )  # TensorRT-RTX can add weights only if both are set
    else:
        from polygraphy.backend.trt import CreateConfig
    config = CreateConfig(**asked)(network[0], network[1])
    # TF32 is on by default. It would round an fp32 engine's products to ten bits.
    config.clear_flag(package.BuilderFlag.TF32)
    resize = getattr(package.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if resize is not None:  # a context then takes scratch memory for its own size, not for the profile's largest
        config.set_preview_feature(resize, True)
    if task.is_rtx:  # no run allocates memory on its own, which would end a capture as a CUDA graph
        config.set_flag(package.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if task.timing_cache is not None:
        _read_timing_cache(config, task.timing_cache)
    return config


def _make_profile(polygraphy: Any, network: Any, sizes: SizeRange) -> Any:
    """Make the optimization profile of all inputs."""
    profile = polygraphy.Profile()
    corners = ((1, sizes.min), (1, sizes.opt), (sizes.max_batch or 1, sizes.max))
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.add(tensor.name, *(_find_shape(tensor, batch, size) for batch, size in corners))
    return profile


def _find_shape(tensor: Any, batch: int, size: Size) -> tuple[int, ...]:
    """Find an input's shape for a batch and a size (height, width). The names of the free sides say which is which."""
    free = {BATCH: batch, HEIGHT: size[0], WIDTH: size[1]}
    return tuple(free[tensor.get_dimension_name(axis)] if side < 0 else side for axis, side in enumerate(tensor.shape))


def _read_timing_cache(config: Any, path: Path) -> None:
    """Give the builder the timings in the file; none if the file does not exist yet."""
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError(
            f"`timing_cache={path}` is damaged or of another GPU or TensorRT version; delete it, or give another file"
        )


def _write_timing_cache(config: Any, path: Path) -> None:
    """Write the builder's timings to the file."""
    data = bytes(memoryview(config.get_timing_cache().serialize()))
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def _inspect_finished(task: Task, package: Any, data: memoryview) -> inspection.Contents | None:
    """Inspect the finished engine. Return None without a driver that can open it."""
    if gpus.find_local_capability() is None:
        return None
    logger = package.Logger(package.Logger.ERROR)
    # This process has just built the engine.
    engine = deserialize(package, logger, data, task.settings, task.fft, allow_engine_code=True)
    return None if engine is None else inspection.inspect_engine(package, engine)


def main(argument: str) -> int:
    """Run the child process. Print the result, or `{"error": …}`, as the last line.

    Args:
        argument: The :class:`Task` in JSON.

    Returns:
        The exit code.
    """
    try:
        built = _build_here(TypeAdapter(Task).validate_json(argument))
    except GlamaError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    print(TypeAdapter(BuildResult).dump_json(built).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
