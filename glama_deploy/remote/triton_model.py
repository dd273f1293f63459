"""The model of Triton's Python backend: a bundle on this package's runtime, with boxes, tiles and compositing.

`glama package` writes a folder whose `model.py` imports this class. The server's Python must have this package.

The interpreter inside the server has ASCII as its encoding of files and paths, whatever the locale is. This package
reads its files as UTF-8. A repository must lie at a path in ASCII, because the backend cannot import `model.py` from
another one.

Tensors cross by DLPack. Python backends that were built for NumPy 1 (seen in Triton 2.51) read a wrong item size from
arrays of NumPy 2, without an error: `as_numpy()` then has wrong pixels, and `Tensor(name, array)` has no bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

import glama_deploy
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.inpainting.inpainter import Inpainter, Region, check_region
from glama_deploy.node_names import IMAGE, INPAINTED, MASK

#: The folder of the bundle, in the folder of the model's version.
BUNDLE_FOLDER = "bundle"

#: The parameters of `config.pbtxt` that choose the engine, as `glama_deploy.load` takes them, with their defaults. No
#: number of threads stands for all.
SETTINGS = {"load_backend": "auto", "load_precision": "auto", "load_threads": ""}

#: The parameter of a request that says what the network is shown, as :class:`Inpainter` takes it.
REGION = "region"


class TritonPythonModel:
    """The class that Triton's Python backend looks for. One object is one instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle.

        Args:
            args: What Triton says of the model: its configuration as JSON, its folder and its version.
        """
        import triton_python_backend_utils as backend_utils

        given = json.loads(args["model_config"])["parameters"]
        settings = {name: given.get(name, {}).get("string_value", usual) for name, usual in SETTINGS.items()}
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE_FOLDER
        try:
            self._inpainter = _open(folder, **settings)
        except GlamaError as error:
            raise backend_utils.TritonModelException(str(error)) from error
        backend_utils.Logger.log_info(f"{args['model_name']}: {self._inpainter.description}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Fill the images of requests.

        Args:
            requests: Requests with `image` uint8 [N, H, W, 3] and `mask` uint8 [N, H, W], above 0 where a pixel is
                missing. The parameter `region` is optional.

        Returns:
            A response for each request: `inpainted` uint8 [N, H, W, 3], or an error of one line.
        """
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        import triton_python_backend_utils as backend_utils

        inputs = [backend_utils.get_input_tensor_by_name(request, name) for name in (IMAGE, MASK)]
        images, masks = map(np.from_dlpack, inputs)
        try:
            filled = fill(self._inpainter, images, masks, json.loads(request.parameters() or "{}").get(REGION, "auto"))
        except GlamaError as error:
            kinds = backend_utils.TritonError
            kind = kinds.INTERNAL if isinstance(error, EngineError) else kinds.INVALID_ARG
            return backend_utils.InferenceResponse(error=backend_utils.TritonError(str(error), kind))
        return backend_utils.InferenceResponse([backend_utils.Tensor.from_dlpack(INPAINTED, filled)])

    def finalize(self) -> None:
        """Give back the engine."""
        self._inpainter.close()


def _open(folder: Path, load_backend: str, load_precision: str, load_threads: str) -> Inpainter:
    """Open the bundle. Raises GlamaError if a setting or the bundle cannot be used."""
    if load_threads and not load_threads.isdecimal():
        raise GlamaError(f"the parameter load_threads is {load_threads!r}; a whole number is expected")
    return glama_deploy.load(folder, load_backend, load_precision, int(load_threads) if load_threads else None)


def fill(inpainter: Inpainter, images: np.ndarray, masks: np.ndarray, region: str) -> np.ndarray:
    """Fill the images of a request.

    Args:
        inpainter: The inpainter.
        images: uint8 [N, H, W, 3].
        masks: uint8 [N, H, W], above 0 where a pixel is missing.
        region: What the network is shown. With `full`, several images run at once.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        GlamaError: The region is unknown, or the images cannot be filled.
    """
    check_region(region)
    if len(images) != len(masks) or not len(images):
        raise ImageError(f"the request has {len(images)} images and {len(masks)} masks; as many are expected")
    if region == "full" and len(images) > 1:
        return inpainter.batch(images, masks)
    pairs = zip(images, masks, strict=True)
    return np.stack([inpainter(image, mask, region=cast(Region, region)) for image, mask in pairs])
