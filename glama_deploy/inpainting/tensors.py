"""Convert images to the tensors of a graph, and back: padding, layout and units. The same for every engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.bundle import Io
from glama_deploy.errors import ImageError
from glama_deploy.io.deep import STEPS_PER_BYTE, reduce_depth
from glama_deploy.node_names import IMAGE, MASK
from glama_deploy.runtime.cuda.exchange.device_arrays import is_on_device as is_on_device
from glama_deploy.runtime.cuda.exchange.device_arrays import read_device_array


def to_tensors(image: np.ndarray, missing: np.ndarray, io: Io, pads: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Convert images to a graph's inputs, padded symmetrically.

    Args:
        image: uint8 or uint16 [B, H, W, 3].
        missing: bool [B, H, W], True where a pixel is missing.
        io: whether the graph's tensors are float or uint8.
        pads: rows to add at the bottom, and columns to add at the right.

    Returns:
        The graph's `image` and `mask`, as :meth:`glama_deploy.runtime.base.Runner.run` takes them.
    """
    bottom, right = pads
    if bottom or right:
        image = np.pad(image, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="symmetric")
        missing = np.pad(missing, ((0, 0), (0, bottom), (0, right)), mode="symmetric")
    if io == "uint8":
        return np.ascontiguousarray(reduce_depth(image)), np.ascontiguousarray(missing).view(np.uint8)
    planar = np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32)
    planar /= np.float32(np.iinfo(image.dtype).max)
    return planar, missing[:, None].astype(np.float32)


def to_images(result: np.ndarray, io: Io, height: int, width: int) -> np.ndarray:
    """Convert a graph's output to images without padding.

    Args:
        result: the output, as :meth:`glama_deploy.runtime.base.Runner.run` returns it.
        io: whether the graph's tensors are float or uint8.
        height: height of the images in pixels, without padding.
        width: width of the images in pixels, without padding.

    Returns:
        [B, H, W, 3]: float32 from 0 to 1, or uint8 for `inpainted` with io uint8.
    """
    if io == "float":
        result = result.transpose(0, 2, 3, 1)
    return result[:, :height, :width]


def match_depth(filled: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Convert what the network filled to the depth of its image.

    Args:
        filled: uint8, or float32 from 0 to 1, which is taken over and changed.
        depth: uint8 or uint16.

    Returns:
        Values of this depth, of the same shape.
    """
    if filled.dtype == np.uint8:
        return filled if depth == np.uint8 else filled * depth.type(STEPS_PER_BYTE)
    most = np.iinfo(depth).max
    np.multiply(filled, most, out=filled)
    return np.rint(filled, out=filled).clip(0, most).astype(depth)


class DeviceArray:
    """An image or a mask in GPU memory (CuPy, PyCUDA, PyTorch), as a batch of one."""

    def __init__(self, array: Any, *, mask: bool = False) -> None:
        """Wrap an array.

        Args:
            array: an array with `__cuda_array_interface__`, which stays alive as long as this object.
            mask: whether the array is a mask.

        Raises:
            ImageError: the image is bool.
            EngineError: the array has gaps or is not in C order.
        """
        self._owner = array  # keeps the memory alive
        there = read_device_array(MASK if mask else IMAGE, array)
        dtype = there.dtype
        if dtype == np.bool_:
            if not mask:
                raise ImageError("the image is bool; uint8 (0…255) is expected: multiply by 255 and cast")
            dtype = np.dtype(np.uint8)  # a byte of 0 or 1
        self.shape = (1, *there.shape)
        self.__cuda_array_interface__ = {
            "shape": self.shape,
            "typestr": dtype.str,
            "data": (there.address, False),
            "version": 3,
            "stream": there.stream,
        }
