"""GLaMa and LaMa inpainting networks on whichever engine is there.

>>> import glama_deploy
>>> inpainter = glama_deploy.load("bundle")
>>> out = inpainter(image, mask)  # uint8 H×W×3 RGB, mask H×W (> 0 = missing) → uint8 H×W×3

Importing this package turns off the telemetry of ONNX Runtime, OpenVINO and NNCF (:mod:`glama_deploy.system.privacy`).
The import loads neither torch nor any engine. NumPy is loaded with the first use, so that commands answer Ctrl-C
before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glama_deploy.errors import BundleError, CheckpointError, EngineError, GlamaError, ImageError
from glama_deploy.system.privacy import opt_out_of_telemetry

if TYPE_CHECKING:
    from glama_deploy.inpainting.inpainter import Inpainter
    from glama_deploy.runtime.base import Request

opt_out_of_telemetry()  # here, because every module that imports an engine imports this package first

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "CheckpointError",
    "EngineError",
    "GlamaError",
    "ImageError",
    "Inpainter",
    "__version__",
    "load",
]


def __getattr__(name: str) -> type:
    """Import the class that users only name: `glama_deploy.Inpainter`."""
    if name == "Inpainter":
        from glama_deploy.inpainting.inpainter import Inpainter

        return Inpainter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    model: str | Path = "default",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    compile_sizes: bool | None = None,
    streams: int = 1,
    allow_engine_code: bool = False,
) -> Inpainter:
    """Open a network on an engine.

    model: a bundle's folder; or a checkpoint, or `default` (the embedded network), which are exported once into the
    user's cache. backend: auto (TensorRT, ONNX Runtime CUDA, OpenVINO, ONNX Runtime CPU, torch: the first that is
    there), openvino, onnxruntime (or one of its providers: onnxruntime:cpu, :cuda, :tensorrt, :tensorrt-rtx), tensorrt,
    or torch (a checkpoint, in PyTorch itself). precision: what the engine computes in, where it can choose (OpenVINO):
    auto (fp32; of a bundle in int8, that), fp32, bf16, fp16, int8, int8+bf16, int8+fp16 (what is not int8 in that).
    threads: of the CPU; None is all. compile_sizes: whether OpenVINO compiles a size for itself where it need not but
    is faster then (in fp32, wide networks and large images): True, before its first run; False, never, so that results
    do not depend on what came before; None, once the runs of a size took some seconds.
    streams: how many threads may call the inpainter at once, each of which OpenVINO serves with its share of the CPU's
    threads (more images a second, each later); other engines serve one after the other. The end of the process waits
    for the engine's run that is under way in a daemon thread; the thread's next run raises EngineError.
    allow_engine_code: whether a version-compatible TensorRT engine may be opened. Such an engine contains native code,
    which TensorRT runs when it opens the engine. Allow it for a bundle whose origin you trust.

    Raises GlamaError (BundleError, CheckpointError, EngineError), one line that says what to do.
    """
    if not isinstance(model, str | Path):
        raise GlamaError(
            f"model is a {type(model).__name__}; the path of a bundle or checkpoint, or 'default' is expected"
        )
    from glama_deploy.runtime import check_request
    from glama_deploy.runtime.base import Request
    from glama_deploy.runtime.calls import native_call

    request = Request(
        precision, threads, compile_sizes=compile_sizes, streams=streams, allow_engine_code=allow_engine_code
    )
    check_request(backend, request)
    with native_call():
        return _open(model, backend, request)


def _open(model: str | Path, backend: str, request: Request) -> Inpainter:
    from glama_deploy.bundle import MANIFEST, Bundle
    from glama_deploy.inpainting.inpainter import Inpainter
    from glama_deploy.io.files import check_path
    from glama_deploy.runtime import open_folder

    path = Path(model)
    check_path(path)
    if str(model) != "default" and (path / MANIFEST).is_file():
        bundle, runner = open_folder(path, backend, request)
        return Inpainter(runner, bundle.manifest.network)
    if str(model) != "default" and path.is_dir() and not (path / "config.yaml").is_file():
        Bundle.open(path)  # says what is wrong with it
    from glama_deploy.loading import load_checkpoint

    return load_checkpoint(model, backend, request)
