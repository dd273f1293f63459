"""Between images and the tensors that a graph takes and gives: padding, layout, units; the same for every engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.bundle import Io, SizeRange
from glama_deploy.errors import ImageError
from glama_deploy.network import SIZE_MULTIPLE
from glama_deploy.runtime.cuda.device_arrays import device_array
from glama_deploy.runtime.cuda.device_arrays import on_device as on_device


def compute_padding(height: int, width: int, io: Io, sizes: SizeRange) -> tuple[int, int]:
    """Rows and columns to add at the bottom and the right so that a graph takes an image of this size: to multiples of
    8, but none where it has uint8 tensors and any size (it then pads by itself), unless the next multiple of 8 is its
    least."""
    if io == "uint8" and not sizes.static and height >= sizes.min[0] and width >= sizes.min[1]:
        return 0, 0
    return -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE


def to_tensors(image: np.ndarray, missing: np.ndarray, io: Io, pads: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """image uint8 [B, H, W, 3] and missing bool [B, H, W] as the graph's `image` and `mask`, padded symmetrically."""
    bottom, right = pads
    if bottom or right:
        image = np.pad(image, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="symmetric")
        missing = np.pad(missing, ((0, 0), (0, bottom), (0, right)), mode="symmetric")
    if io == "uint8":
        return np.ascontiguousarray(image), np.ascontiguousarray(missing).view(np.uint8)
    planar = np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32)
    planar /= np.float32(255)
    return planar, missing[:, None].astype(np.float32)


def to_images(result: np.ndarray, io: Io, height: int, width: int) -> np.ndarray:
    """A graph's output as [B, H, W, 3] of the image's own size: float32 0…1, or uint8 (`inpainted` with io uint8)."""
    if io == "float":
        result = result.transpose(0, 2, 3, 1)
    return result[:, :height, :width]


class DeviceArray:
    """An image or, with `mask`, a mask that lies on a GPU (CuPy, PyCUDA, PyTorch), as a batch of one."""

    def __init__(self, array: Any, *, mask: bool = False) -> None:
        """Raises ImageError for an image of bool, EngineError for an array that has gaps or is not in C order."""
        self._owner = array  # keeps the memory alive
        there = device_array("mask" if mask else "image", array)
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
