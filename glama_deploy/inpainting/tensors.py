"""Convert images to the tensors of a graph, and back: padding, layout and units. The same for every engine."""

from __future__ import annotations

import numpy as np

from glama_deploy.bundle import Io
from glama_deploy.errors import ImageError
from glama_deploy.io.deep import STEPS_PER_BYTE, reduce_depth


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


def measure_frames(image: tuple[int, ...], mask: tuple[int, ...], io: Io) -> tuple[int, int, int]:
    """Find the batch, the height and the width of frames in the layout of a graph.

    Args:
        image: shape of the image: [H, W, 3] with io uint8, and [3, H, W] with io float; a batch axis may come first.
        mask: shape of the mask: [H, W] with io uint8, and [1, H, W] with io float; a batch axis may come first.
        io: whether the graph's tensors are float or uint8.

    Returns:
        The number of images, and their height and width in pixels.

    Raises:
        ImageError: the shapes are others.
    """
    batch = image[:-3]
    size, channels = (image[-3:-1], image[-1:]) if io == "uint8" else (image[-2:], image[-3:-2])
    if len(batch) > 1 or channels != (3,) or mask != (*batch, *(() if io == "uint8" else (1,)), *size):
        forms = (
            ("height × width × 3", "height × width") if io == "uint8" else ("3 × height × width", "1 × height × width")
        )
        raise ImageError(
            f"image and mask have shapes {list(image)} and {list(mask)}; {forms[0]} and {forms[1]} are expected, or "
            "batches of them"
        )
    return (batch[0] if batch else 1), size[0], size[1]
