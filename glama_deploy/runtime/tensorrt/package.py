"""How the packages of TensorRT and TensorRT-RTX are installed. JetPack brings TensorRT as Debian packages."""

from __future__ import annotations

from glama_deploy.catalogue import TENSORRT, EngineRecord

#: How a Jetson gets TensorRT's Python package. The package of the extra does not run there.
_ON_JETSON = (
    "on Jetson (JetPack 6.1 or newer): sudo apt install python3-libnvinfer, in an environment made with "
    "--system-site-packages"
)


def explain_install(record: EngineRecord) -> str:
    """Say how the package of an engine is installed, with the packages beside it.

    Args:
        record: TensorRT's or TensorRT-RTX's.

    Returns:
        The command for pip. For TensorRT also what to do on a Jetson.
    """
    command = f"pip install 'glama-deploy[{record.extra}]'"
    return f"{command} ({_ON_JETSON})" if record is TENSORRT else command
