"""The kinds of images that callers pass: NumPy arrays, PIL images, and tensors of PyTorch and CuPy.

The packages are recognized by the module of a value's class, and are not imported for it. An image becomes an array
H×W (gray), H×W×3 (RGB) or H×W×4 (RGBA), and the result becomes what the caller passed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.errors import ImageError
from glama_deploy.network import MIN_SIDE

#: Modes of PIL images that are taken, and the array's mode. The result has the mode of the image.
_PIL_MODES = {"L": "L", "I;16": "I;16", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}

#: The dtypes that the network is shown as they are.
SHOWN_DTYPES = (np.uint8, np.uint16)

#: The dtypes of images, for messages.
_EXPECTED = "uint8 (0…255), uint16 (0…65535), or float16, float32 or float64 from 0 to 1, is expected"


@dataclass(frozen=True)
class Taken:
    """An image that was taken from the caller.

    Attributes:
        values: uint8, uint16 or float, H×W, H×W×3 or H×W×4.
        give_back: turns an array of this form, or a float32 H×W×3, into the caller's kind.
    """

    values: np.ndarray
    give_back: Callable[[np.ndarray], Any]


def is_plain(image: object) -> bool:
    """Return whether an image is a NumPy array as the network is shown it.

    Args:
        image: any object.

    Returns:
        True for uint8 and uint16 H×W×3.
    """
    if not isinstance(image, np.ndarray) or isinstance(image, np.ma.MaskedArray) or image.dtype not in SHOWN_DTYPES:
        return False
    return image.ndim == 3 and image.shape[2] == 3


def find_package(value: object) -> str:
    """Return the package of a value's class.

    Args:
        value: any object.

    Returns:
        The name of the top package, such as `torch`.
    """
    return type(value).__module__.partition(".")[0]


def take_image(image: Any) -> Taken:
    """Take an image from the caller.

    Args:
        image: an image as :meth:`glama_deploy.Inpainter.__call__` takes it.

    Returns:
        The image as an array, without a copy where none is needed.

    Raises:
        ImageError: the image is of another kind or form.
    """
    package = find_package(image)
    if package == "PIL" and hasattr(image, "getbands"):
        return _take_pil(image)
    if package == "torch":
        return _take_torch(image)
    if package == "cupy":
        return Taken(_check_form(image.get()), lambda array: sys.modules["cupy"].asarray(array))
    if not isinstance(image, np.ndarray) or isinstance(image, np.ma.MaskedArray):
        raise _refuse_kind(image)
    return Taken(_check_form(image), lambda array: array)


def take_mask(mask: Any) -> np.ndarray:
    """Take a mask from the caller.

    Args:
        mask: a mask as :meth:`glama_deploy.Inpainter.__call__` takes it.

    Returns:
        H×W: bool or uint8; what `check` refuses otherwise.

    Raises:
        ImageError: the mask is of another kind, or is float with other values than 0 and 1.
    """
    package = find_package(mask)
    if package == "PIL" and hasattr(mask, "getbands"):
        if mask.mode not in ("1", "L"):
            raise ImageError(f"the mask is a PIL image of mode {mask.mode}; convert('L') makes a mask")
        values = np.asarray(mask)
    elif package == "torch":
        values = _read_tensor(mask, "mask")
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
    elif package == "cupy":
        values = mask.get()
    elif isinstance(mask, np.ndarray) and not isinstance(mask, np.ma.MaskedArray):
        values = mask
    else:
        raise _refuse_kind(mask)
    if values.dtype.kind == "f":
        if not np.isin(values, (0, 1)).all():
            raise ImageError(
                f"the mask is {values.dtype} and has other values than 0 and 1; bool or uint8 (> 0 = missing) is "
                "expected: compare with a threshold"
            )
        return values == 1
    return values


def put_beside(image: Any, array: np.ndarray) -> Any:
    """Return an array in the kind of an image that lies on a GPU.

    Args:
        image: the image, H×W×3 in GPU memory.
        array: H×W×3.

    Returns:
        A tensor of PyTorch on the image's device, or an array of CuPy; for other packages the array.
    """
    array = np.ascontiguousarray(array)
    package = find_package(image)
    if package == "torch":
        return sys.modules["torch"].from_numpy(array).to(image.device)
    return sys.modules["cupy"].asarray(array) if package == "cupy" else array


def to_rgb(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the colours of an image as the network is shown them.

    Args:
        values: uint8, uint16 or float, H×W, H×W×3 or H×W×4.
        missing: bool H×W, True where a pixel is missing.

    Returns:
        H×W×3, uint16 for uint16 values, and else uint8.

    Raises:
        ImageError: a known value of a float image is not from 0 to 1.
    """
    colours = _to_integers(values, missing)
    return np.repeat(colours[..., None], 3, axis=2) if colours.ndim == 2 else colours[..., :3]


def fill_values(
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray, missing: np.ndarray
) -> np.ndarray:
    """Fill an image that is not plain (:func:`is_plain`).

    Args:
        fill: fills uint8 or uint16 H×W×3, given bool H×W.
        values: uint8, uint16 or float, H×W, H×W×3 or H×W×4.
        missing: bool H×W, True where a pixel is missing.

    Returns:
        An array of the same form. Known values are those of `values`.

    Raises:
        ImageError: a known value of a float image is not from 0 to 1.
    """
    from glama_deploy.inpainting.transparency import fill_picture
    from glama_deploy.io.images import Picture, join_channels

    rgb = np.ascontiguousarray(to_rgb(values, missing))
    alpha = _to_integers(values, missing)[..., 3] if values.ndim == 3 and values.shape[2] == 4 else None
    filled = join_channels(fill_picture(fill, Picture(rgb, alpha, values.ndim == 2), missing))
    part = filled[..., 0][missing] if values.ndim == 2 else filled[missing]
    result = np.array(values, order="C")
    result[missing] = part if values.dtype in SHOWN_DTYPES else part.astype(np.float64) / 255
    return result


def _to_integers(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return float values as uint8, and others as they are. Missing values of a float image become 0."""
    if values.dtype in SHOWN_DTYPES:
        return values
    known = np.where(missing if values.ndim == 2 else missing[..., None], values.dtype.type(0), values)
    if not (known >= 0).all() or not (known <= 1).all():
        raise ImageError(
            f"the image is {values.dtype}, and known values are from {known.min():g} to {known.max():g}; 0 to 1 is "
            "expected: divide by the largest possible value"
        )
    return np.rint(known.astype(np.float32) * 255).astype(np.uint8)


def _check_form(values: np.ndarray) -> np.ndarray:
    """Return values of a supported shape and dtype. Raises ImageError for others."""
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ImageError(
            f"the image has shape {list(values.shape)}; height × width × 3 (RGB), × 4 (RGBA), or height × width (gray) "
            "is expected"
        )
    if values.dtype not in (*SHOWN_DTYPES, np.float16, np.float32, np.float64):
        raise ImageError(f"the image is {values.dtype}; {_EXPECTED}: scale and cast")
    return values


def _take_pil(image: Any) -> Taken:
    if image.mode not in _PIL_MODES:
        raise ImageError(
            f"the image is a PIL image of mode {image.mode}; {', '.join(_PIL_MODES)} is expected: convert('RGB') makes "
            "one"
        )
    mode = _PIL_MODES[image.mode]

    def give_back(array: np.ndarray) -> Any:
        from PIL import Image

        if array.dtype not in SHOWN_DTYPES:
            return array  # a prediction, which PIL cannot hold
        result = Image.fromarray(array).convert(image.mode)
        result.info = dict(image.info)
        return result

    return Taken(np.asarray(image if mode == image.mode else image.convert(mode)), give_back)


def _take_torch(image: Any) -> Taken:
    torch = sys.modules["torch"]
    values = _read_tensor(image, "image")
    is_planar = values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] >= MIN_SIDE

    def give_back(array: np.ndarray) -> Any:
        if is_planar:
            array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        result = torch.from_numpy(np.ascontiguousarray(array)).to(image.device)
        return result.to(image.dtype) if array.dtype == values.dtype else result

    if is_planar:
        values = values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)
    return Taken(_check_form(values), give_back)


def _read_tensor(tensor: Any, what: str) -> np.ndarray:
    """Return a tensor of PyTorch as an array; bfloat16 as float32."""
    if not hasattr(tensor, "detach") or tensor.is_sparse or tensor.is_quantized:
        raise ImageError(f"the {what} is a {type(tensor).__name__} that is not dense; pass a dense tensor")
    if tensor.requires_grad:
        raise ImageError(f"the {what} requires a gradient, which an engine does not give; pass {what}.detach()")
    here = tensor.cpu()
    return np.asarray((here.float() if str(here.dtype) == "torch.bfloat16" else here).numpy())


def _refuse_kind(value: object) -> ImageError:
    return ImageError(
        "image and mask must be numpy arrays, PIL images, or tensors of PyTorch or CuPy, not "
        f"{type(value).__name__}; np.asarray makes an array"
    )
