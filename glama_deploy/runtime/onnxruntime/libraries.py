"""The shared libraries of NVIDIA that ONNX Runtime's providers link: which are missing, and TensorRT's from pip."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import platform
import re
from pathlib import Path

from glama_deploy.runtime.cuda.driver import NO_DRIVER, find_driver_version, has_driver
from glama_deploy.runtime.onnxruntime.provider_records import SYSTEM_TITLES, ProviderRecord

#: The names that a provider's file has for the libraries it links. The dynamic linker finds them by these names.
_LINKED_NAME = re.compile(
    rb"lib(?:nvinfer(?:_plugin)?|nvonnxparser|cudart|cublas|cublasLt|cudnn|cufft|curand)\.so\.\d+"
)

#: The Python package that brings TensorRT's libraries, in its folder.
_TENSORRT_LIBRARIES = "tensorrt_libs"

#: What to do on machines for which ONNX Runtime publishes no TensorRT provider.
_NO_PROVIDER_ON_ARM = (
    "ONNX Runtime's wheels for aarch64 have no TensorRT provider; use the backend tensorrt, with an engine of "
    "`build(BUNDLE, target=trt)`"
)


def explain_install(provider: ProviderRecord) -> str:
    """Say how an ONNX Runtime with a provider is installed.

    Args:
        provider: A provider that the installed ONNX Runtime does not have.

    Returns:
        The rest of a sentence.
    """
    if provider.system not in ("", platform.system()):
        return f"{provider.label} is for {SYSTEM_TITLES[provider.system]}; take another `backend`"
    on_arm = provider.name == "tensorrt" and platform.machine() == "aarch64"
    return _NO_PROVIDER_ON_ARM if on_arm else provider.install_remedy


def preload_tensorrt(provider: ProviderRecord) -> None:
    """Load TensorRT's libraries from pip's package, where they are of the version that a provider links.

    The dynamic linker does not look into Python packages. Libraries of another version are not loaded.

    Args:
        provider: The provider. Only TensorRT's links such libraries.
    """
    folders = _find_folders(_TENSORRT_LIBRARIES)
    if provider.name != "tensorrt" or not folders:
        return
    for name in _list_linked(provider):
        for path in (folder / name for folder in folders):
            if path.is_file() and _is_missing(name):
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def explain_failure(provider: ProviderRecord) -> str:
    """Say why an installed provider does not start.

    Args:
        provider: The provider.

    Returns:
        The libraries that are missing, with the command that installs them; or that the driver is missing or too old;
        or, where neither is so, what was looked at.
    """
    if provider.device != "cuda":
        return provider.device_remedy
    linked = _list_linked(provider)
    missing = [name for name in linked if _is_missing(name)]
    if missing:
        return f"it needs {', '.join(missing)}; {_find_remedy(missing, linked)}"
    if not has_driver():
        return NO_DRIVER
    driver, cuda = find_driver_version(), _find_cuda(linked)
    if driver is None:
        return "the NVIDIA driver does not answer; `nvidia-smi` shows whether it works"
    supports = f"the NVIDIA driver supports CUDA {driver[0]}.{driver[1]}"
    if cuda and driver[0] < int(cuda):
        remedy = f"update the driver, or install an ONNX Runtime for CUDA {driver[0]}"
        return f"{supports}, and it is built for CUDA {cuda}; {remedy}"
    return f"its libraries are here, {supports}, and ONNX Runtime gives no other reason; try another provider"


def _find_remedy(missing: list[str], linked: list[str]) -> str:
    """Return the command that installs missing libraries."""
    commands = []
    wanted = next((name.rpartition(".")[2] for name in missing if name.startswith(("libnvinfer", "libnvonnx"))), None)
    if wanted is not None:
        cuda = _find_cuda(linked)
        package = f"tensorrt-cu{cuda}" if cuda else "tensorrt"
        there = sorted(
            {path.name for folder in _find_folders(_TENSORRT_LIBRARIES) for path in folder.glob("*infer.so*")}
        )
        note = f" (the installed TensorRT has {', '.join(there)})" if there else ""
        commands.append(f"pip install '{package}=={wanted}.*'{note}")
    if any(not name.startswith(("libnvinfer", "libnvonnx")) for name in missing):
        commands.append("pip install 'onnxruntime-gpu[cuda,cudnn]'")
    return ", and ".join(commands)


def _find_cuda(linked: list[str]) -> str | None:
    """Return the major version of CUDA that a provider links."""
    return next((name.rpartition(".")[2] for name in linked if name.startswith("libcudart.")), None)


def find_provider_files(provider: ProviderRecord) -> list[Path]:
    """Find the files in ONNX Runtime's folder that a provider is loaded from.

    Args:
        provider: The provider.

    Returns:
        The files; none for a provider without a library, or where ONNX Runtime does not have it.
    """
    if not provider.library:
        return []
    return [path for folder in _find_folders("onnxruntime") for path in (folder / "capi").glob(f"*{provider.library}*")]


def _list_linked(provider: ProviderRecord) -> list[str]:
    """List the libraries of NVIDIA that a provider's file links, CUDA's before TensorRT's; none without a file."""
    names: set[str] = set()
    for path in find_provider_files(provider):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names |= {match.decode() for match in _LINKED_NAME.findall(content)}
    return sorted(names, key=lambda name: (name.startswith(("libnvinfer", "libnvonnx")), name))


def _is_missing(name: str) -> bool:
    """Return whether the dynamic linker does not find a library, and this process has not loaded it."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


def _find_folders(package: str) -> list[Path]:
    """Return the folders of a package, without an import of it; none where the package is not installed."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or []]
