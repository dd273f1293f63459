"""How the packages of TensorRT and TensorRT-RTX are installed. JetPack brings TensorRT as Debian packages."""

from __future__ import annotations

from glama_deploy.catalogue import TENSORRT

#: How a Jetson gets TensorRT's Python package. PyPI's package does not run there.
_ON_JETSON = (
    "on Jetson (JetPack 6.1 or newer): sudo apt install python3-libnvinfer, in an environment made with "
    "--system-site-packages"
)


def explain_install(package: str, *beside: str) -> str:
    """Say how a package is installed.

    Args:
        package: `tensorrt` or `tensorrt_rtx`.
        *beside: Further packages that are needed.

    Returns:
        The command for pip. For TensorRT also what to do on a Jetson.
    """
    command = f"pip install {' '.join((package.replace('_', '-'), *beside))}"
    return f"{command} ({_ON_JETSON})" if package == TENSORRT.package else command
