"""Classes with the names and calls of other packages, for programs that change one line: the import.

>>> from glama_deploy.compat import SimpleLama  # instead of: from simple_lama_inpainting import SimpleLama
>>> result = SimpleLama()(image, mask)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glama_deploy.errors import GlamaError, ImageError

if TYPE_CHECKING:
    from glama_deploy.inpainting.planner import Region

#: The model where `LAMA_MODEL` is not set. simple-lama-inpainting takes the same one.
DEFAULT_MODEL = "big-lama"

#: The package's variables: the path of the model, and the address of its download.
_MODEL_VARIABLE, _URL_VARIABLE = "LAMA_MODEL", "LAMA_MODEL_URL"


class SimpleLama:
    """The class of the package simple-lama-inpainting, on any engine and without PyTorch.

    The environment variable `LAMA_MODEL` is the path of a checkpoint or bundle, or a name that
    :func:`glama_deploy.load` knows. Three things differ from the package. The result has the size of the image, not of
    the image padded to multiples of 8. Known pixels come back exactly. The network is shown boxes around the holes
    where they cost less, unless `region` is `full`.
    """

    def __init__(self, device: object = None, *, region: Region = "auto") -> None:
        """Open the model.

        Args:
            device: a device as :func:`glama_deploy.load` takes it, such as `cpu` or `cuda:1`, or a `torch.device`
                of such a name. None: a GPU if an engine can use one.
            region: what the network is shown, as :class:`glama_deploy.Inpainter` takes it.

        Raises:
            GlamaError: the model or the device cannot be used, or `LAMA_MODEL_URL` is set without `LAMA_MODEL`.
        """
        import glama_deploy
        from glama_deploy.inpainting.planner import check_region

        check_region(region)
        model = os.environ.get(_MODEL_VARIABLE)
        if not model and os.environ.get(_URL_VARIABLE):
            raise GlamaError(
                f"{_URL_VARIABLE} is set, and nothing is downloaded from it; download the file, and set "
                f"{_MODEL_VARIABLE} to its path"
            )
        self.model = glama_deploy.load(model or DEFAULT_MODEL, device=None if device is None else str(device))
        self.device = self.model.device
        self._region = region

    def __call__(self, image: Image.Image | np.ndarray, mask: Image.Image | np.ndarray) -> Image.Image:
        """Fill the missing pixels of an image.

        Args:
            image: RGB, as a PIL image or as uint8 H×W×3.
            mask: one channel of the image's size, as a PIL image or as an array H×W or H×W×1 of numbers. A pixel above
                0 is missing.

        Returns:
            The filled image, RGB, of the image's size.

        Raises:
            ImageError: the image or the mask is not as described, or does not fit the engine or the memory.
            EngineError: the engine fails.
        """
        return Image.fromarray(self.model(_read_image(image), _read_mask(mask), region=self._region))


def _read_image(image: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ImageError(f'the image has the mode {image.mode}; RGB is expected: image.convert("RGB")')
        return np.array(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image is a {type(image).__name__}; a PIL image or a numpy array is expected")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"the image is {image.dtype} of shape {list(image.shape)}; uint8 of shape [H, W, 3] is expected"
        )
    return image


def _read_mask(mask: Image.Image | np.ndarray) -> np.ndarray:
    """Return the missing pixels, bool H×W."""
    values = np.asarray(mask) if isinstance(mask, Image.Image) else mask
    if not isinstance(values, np.ndarray):
        raise ImageError(f"the mask is a {type(mask).__name__}; a PIL image or a numpy array is expected")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2:
        raise ImageError(f'the mask has shape {list(values.shape)}; one channel is expected: mask.convert("L")')
    if values.dtype.kind not in "buif":
        raise ImageError(f"the mask is {values.dtype}; an array of numbers is expected")
    return values > 0
