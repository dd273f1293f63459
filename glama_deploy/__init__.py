"""GLaMa and LaMa inpainting networks on the engine that is installed.

>>> import glama_deploy
>>> inpainter = glama_deploy.load("bundle")
>>> out = inpainter(image, mask)  # uint8 H×W×3 RGB, mask H×W (> 0 = missing) → uint8 H×W×3

Importing this package turns off the telemetry of ONNX Runtime, OpenVINO, NNCF and Ray
(:mod:`glama_deploy.system.privacy`). The import loads neither torch nor any engine. NumPy is loaded with the first use,
so that commands respond to Ctrl-C from the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glama_deploy.errors import BundleError, CheckpointError, EngineError, GlamaError, ImageError
from glama_deploy.system.privacy import opt_out_of_telemetry

if TYPE_CHECKING:
    from glama_deploy.inpainting.inpainter import Inpainter

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
    """Import a class at its first use: `glama_deploy.Inpainter`.

    Args:
        name: name of the class.

    Returns:
        The class.
    """
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
    device: str | None = None,
) -> Inpainter:
    """Open a network on an engine.

    The end of the process waits for a run that is under way in a daemon thread. The thread's next run raises
    EngineError.

    Args:
        model: the folder of a bundle, a checkpoint, or `default` for the embedded network. A checkpoint is exported
            once into the user's cache. Also the name of a published checkpoint (`big-lama`), `hf://OWNER/REPO/FILE`, or
            `https://HOST/FILE#sha256=HASH`. Such a file is downloaded at the first use, verified and kept in the cache.
        backend: the engine. `auto` takes the first that is installed and opens: TensorRT, ONNX Runtime with CUDA,
            OpenVINO, ONNX Runtime on the CPU, PyTorch. Others are `openvino`, `onnxruntime`, `tensorrt`, and `torch`,
            which runs a checkpoint in PyTorch. A colon selects a provider of ONNX Runtime: `onnxruntime:cpu`, `:cuda`,
            `:tensorrt`, `:tensorrt-rtx`, `:webgpu`, `:directml`, `:coreml`, `:openvino`. Capital and small letters mean
            the same.
        precision: what the engine computes in, if it has a choice (OpenVINO, PyTorch on a GPU). `auto` is fp32, or int8
            for a bundle in int8. Others are `fp32`, `bf16`, `fp16`, `int8`, `int8+bf16` and `int8+fp16`. The part
            behind the plus is the type of the layers that are not int8. `fastest` is the fastest of them on this
            machine that has at least 40 dB against fp32 in the missing pixels. It is measured once, and kept in the
            cache.
        threads: number of CPU threads; None for all.
        compile_sizes: whether OpenVINO compiles a model for a size where it need not. The compiled model is faster for
            wide networks and large images in fp32. True compiles before the first run of a size. None compiles after
            some seconds of runs of a size, and before the first run of a size of two megapixels or more. False
            never compiles, so that results do not depend on earlier runs.
        streams: number of threads that may call the inpainter at once. OpenVINO serves each with its share of the CPU
            threads: more images a second, but each takes longer. Other engines serve one thread after the other.
        allow_engine_code: whether a version-compatible TensorRT engine may be opened. Such an engine contains native
            code, which TensorRT runs when it opens the engine. Allow it only for a bundle whose origin you trust.
        device: where the engine computes: `cpu`, `cuda` (the first NVIDIA GPU) or `cuda:N`; for OpenVINO also `GPU`,
            `GPU.N` and `NPU` of Intel, and `AUTO` or `AUTO:GPU,CPU`, with which OpenVINO chooses. `GPU` is also for the
            providers of ONNX Runtime on other GPUs. Capital and small letters mean the same. With the backend `auto`,
            only engines that compute there are opened. None: the engine chooses.

    Returns:
        The inpainter.

    Raises:
        GlamaError: `model` is not a path.
        BundleError: the bundle is damaged, or is not a bundle.
        CheckpointError: the checkpoint cannot be read, cannot be downloaded, or is not supported.
        EngineError: no engine can be opened, or an argument is not supported.
    """
    from glama_deploy.checkpoints import embedded
    from glama_deploy.loading import load_model
    from glama_deploy.runtime.base import Request
    from glama_deploy.runtime.devices import parse_device

    place = parse_device(device)
    request = Request(
        precision,
        threads,
        place,
        compile_sizes=compile_sizes,
        streams=streams,
        allow_engine_code=allow_engine_code,
    )
    inpainter = load_model(model, backend, request)
    path = model if embedded.is_embedded(model) else Path(model).absolute()
    again = (path, backend, precision, threads, compile_sizes, streams, allow_engine_code)
    inpainter.remember_opening(load, *again, None if place is None else str(place))
    return inpainter
