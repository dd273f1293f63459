"""Between images and the tensors that a graph takes and gives: padding, layout, units; the same for every engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.bundle import Io, SizeRange
from glama_deploy.network import SIZE_MULTIPLE


def padding(height: int, width: int, io: Io, sizes: SizeRange) -> tuple[int, int]:
    """Rows and columns to add at the bottom and the right so that a graph takes an image of this size: to multiples of
    8, but none where it has uint8 tensors and any size (it then pads by itself)."""
    if io == "uint8" and not sizes.static:
        return 0, 0
    return -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE


def enter(image: np.ndarray, missing: np.ndarray, io: Io, pads: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
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


def leave(result: np.ndarray, io: Io, height: int, width: int) -> np.ndarray:
    """A graph's output as [B, H, W, 3] of the image's own size: float32 0…1, or uint8 (`inpainted` with io uint8)."""
    if io == "float":
        result = result.transpose(0, 2, 3, 1)
    return result[:, :height, :width]


class DeviceArray:
    """Memory on a GPU, by what `__cuda_array_interface__` (CuPy, PyCUDA, PyTorch) says of it, as a batch of one."""

    def __init__(self, array: Any) -> None:
        self._owner = array  # keeps the memory alive
        there = dict(array.__cuda_array_interface__)
        there["typestr"] = "|u1" if there["typestr"] == "|b1" else there["typestr"]  # a bool is a byte of 0 or 1
        strides = there.get("strides")
        self.shape = (1, *there["shape"])
        there["shape"] = self.shape
        if strides is not None:
            there["strides"] = (strides[0] * self.shape[1], *strides)
        self.__cuda_array_interface__ = there


def on_device(array: object) -> bool:
    """Whether an array offers its memory on a GPU."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")
