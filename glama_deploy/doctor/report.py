"""The report of a machine: hardware, packages, engines and targets."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import psutil

from glama_deploy import catalogue, memory
from glama_deploy.doctor.probe import EngineReport, list_engines, probe_engine
from glama_deploy.frozen import FrozenModel
from glama_deploy.io import cache
from glama_deploy.runtime.base import installed
from glama_deploy.runtime.cuda.driver import list_gpus
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS
from glama_deploy.system import cpu, gpus
from glama_deploy.system.packages import read_versions
from glama_deploy.system.processors import count_processors

#: The packages whose versions are reported, by the names that pip knows.
_PACKAGES = (
    "glama-deploy",
    "numpy",
    "pillow",
    *(record.package.replace("_", "-") for record in catalogue.ENGINES.values()),
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    *(record.plugin_package.replace("_", "-") for record in PROVIDERS.values() if record.plugin_package),
    "cuda-python",
    "polygraphy",
    "torch",
    "onnx",
    "nncf",
)

#: Environment variables that change what engines do. Their values are reported where they are set.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "GLAMA_CACHE",
    "GLAMA_MODELS_MIRROR",
    "GLAMA_OFFLINE",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "ATEN_CPU_CAPABILITY",
)

#: Modules that every target needs, each with the extra that installs it.
_EXPORT_MODULES = {"onnx": "export", "ml_dtypes": "export"}

#: A module that strongly typed engines need beside their package.
_TYPED_BUILDER = "polygraphy"


class Machine(FrozenModel):
    """The hardware and the system.

    Attributes:
        cpu: the CPU's model.
        cores: cores that this process may use.
        features: the CPU's features that decide how fast a network runs, by Linux's names.
        memory_bytes: main memory.
        free_memory_bytes: memory that this process can take, within the limits of a container; None if unknown.
        gpus: the names of the NVIDIA GPUs of this machine or container.
        cuda: the names of the NVIDIA GPUs that CUDA shows to this process, by their numbers in `cuda:N`.
        system: operating system, architecture and Python.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_bytes: int
    free_memory_bytes: int | None
    gpus: tuple[str, ...]
    cuda: tuple[str, ...]
    system: str


class TargetReport(FrozenModel):
    """Whether `glama-export` can make a target here.

    Attributes:
        name: what `--target` takes.
        builds: whether all packages are installed.
        reason: the packages that are missing, with the line that installs them.
    """

    name: str
    builds: bool
    reason: str = ""


class Diagnosis(FrozenModel):
    """The report of a machine.

    Attributes:
        machine: hardware and system.
        packages: versions by package; a package that is not installed is left out.
        variables: environment variables that change what engines do, where they are set.
        cache: the cache folder; empty without one.
        engines: whether each engine runs.
        targets: whether each target can be made.
    """

    machine: Machine
    packages: dict[str, str]
    variables: dict[str, str]
    cache: str
    engines: tuple[EngineReport, ...]
    targets: tuple[TargetReport, ...]


def diagnose(engines: Iterable[str] | None = None) -> Diagnosis:
    """Examine this machine, and try its engines, each in a process of its own.

    Args:
        engines: the names of the engines to try; None: all (:func:`glama_deploy.doctor.probe.list_engines`).

    Returns:
        The report.
    """
    with ThreadPoolExecutor(max(1, min(2, count_processors()))) as probes:
        found = tuple(probes.map(probe_engine, list_engines() if engines is None else engines))
    folder = cache.folder("bundles")
    return Diagnosis(
        machine=_read_machine(),
        packages=read_versions(*_PACKAGES),
        variables={name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        cache=str(folder.parent) if folder is not None else "",
        engines=found,
        targets=tuple(_check_targets()),
    )


def _read_machine() -> Machine:
    return Machine(
        cpu=cpu.read_model(),
        cores=count_processors(),
        features=tuple(name for name in cpu.SPEED_FEATURES if name in cpu.features()),
        memory_bytes=psutil.virtual_memory().total,
        free_memory_bytes=memory.available(),
        gpus=gpus.read_names(),
        cuda=list_gpus(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    )


def _check_targets() -> Iterable[TargetReport]:
    """Yield whether the packages of each target are installed."""
    for record in catalogue.ENGINES.values():
        modules = dict(_EXPORT_MODULES)
        if record.builder:
            modules[record.package] = record.extra
        if record.is_strongly_typed:
            modules[_TYPED_BUILDER] = record.extra
        yield _check_target(record.target, modules)
    site = _check_target(catalogue.WEB.target, _EXPORT_MODULES)
    if site.builds and shutil.which("npm") is None:
        reason = "npm, which fetches onnxruntime-web, is not installed; install npm, or give `ort_web` a folder or cdn"
        site = TargetReport(name=site.name, builds=False, reason=reason)
    yield site


def _check_target(name: str, modules: dict[str, str]) -> TargetReport:
    missing = {module: extra for module, extra in modules.items() if not installed(module)}
    if not missing:
        return TargetReport(name=name, builds=True)
    verb = "is" if len(missing) == 1 else "are"
    extras = ",".join(dict.fromkeys(missing.values()))
    reason = f"{catalogue.join_names(missing, 'and')} {verb} not installed; pip install 'glama-deploy[{extras}]'"
    return TargetReport(name=name, builds=False, reason=reason)
