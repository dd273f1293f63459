"""How other tools fill a picture with the same network, written anew after their public descriptions and source code.

- `whole` is simple-lama-inpainting: the whole picture, padded by mirroring to multiples of 8.
- `crop` is IOPaint (1.6, its default `Crop`): above 800 pixels, each outer contour of the mask is filled from a crop of
  its bounding box with 128 pixels of margin. Crops are filled one by one, and pasted as they are.
- `resized` is the public ONNX export of LaMa by Carve: a graph of 512×512 alone. Pictures are resized there and back.
- `telea` is OpenCV's classical inpainting, without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from glama_deploy.network import SIZE_MULTIPLE

#: IOPaint's defaults: the longer side above which it crops, and the margin around a mask's contour.
CROP_TRIGGER_PIXELS, CROP_MARGIN_PIXELS = 800, 128

#: The side of the only size that Carve's graph takes.
RESIZED_SIDE = 512

#: OpenCV's usual radius for Telea's method, in pixels.
_TELEA_RADIUS = 3

#: Fills a picture: uint8 [H, W, 3] and bool [H, W] → uint8 [H, W, 3].
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fill_whole(run: Fill) -> Fill:
    """Return a fill that shows the network the whole picture.

    Args:
        run: the network on a picture whose sides are multiples of 8.

    Returns:
        The fill for pictures of any size.
    """

    def fill(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        height, width = missing.shape
        pads = (0, -height % SIZE_MULTIPLE), (0, -width % SIZE_MULTIPLE)
        padded = np.pad(image, (*pads, (0, 0)), mode="symmetric"), np.pad(missing, pads, mode="symmetric")
        return run(*padded)[:height, :width]

    return fill


def fill_crops(run: Fill) -> Fill:
    """Return a fill by IOPaint's crop strategy.

    Args:
        run: the network on a picture whose sides are multiples of 8.

    Returns:
        The fill for pictures of any size.
    """
    whole = fill_whole(run)

    def fill(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        if max(missing.shape) <= CROP_TRIGGER_PIXELS:
            return whole(image, missing)
        result = image.copy()
        for rows, columns in list_crops(missing):
            result[rows, columns] = whole(image[rows, columns], missing[rows, columns])
        return result

    return fill


def list_crops(missing: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """List the crops of IOPaint's strategy.

    Args:
        missing: bool [H, W].

    Yields:
        Rows and columns of each crop. A crop at an edge of the picture is moved inside, as far as the picture goes.
    """
    import cv2

    contours, _ = cv2.findContours(missing.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        left, top, width, height = cv2.boundingRect(contour)
        yield _widen(top, height, missing.shape[0]), _widen(left, width, missing.shape[1])


def _widen(first: int, side: int, extent: int) -> slice:
    """Return a range with the margin on both sides, moved to lie within 0…extent as far as that goes."""
    half = (side + 2 * CROP_MARGIN_PIXELS) // 2
    middle = (2 * first + side) // 2
    start, stop = middle - half, middle + half
    if start < 0:
        start, stop = 0, stop - start
    if stop > extent:
        start, stop = max(0, start - (stop - extent)), extent
    return slice(start, stop)


def open_torch(network: Path, threads: int | None, *, script: bool) -> Fill:
    """Open the network in PyTorch.

    Args:
        network: the TorchScript file, or the checkpoint.
        threads: CPU threads; None for PyTorch's default.
        script: whether the file is TorchScript.

    Returns:
        The network on a picture whose sides are multiples of 8.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if script:
        module = torch.jit.load(network, map_location="cpu").eval()
    else:
        from glama_deploy.benchmarks.bench.contenders import compose_network

        module = compose_network(network)

    def run(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255
        mask = missing[None].astype(np.float32)
        with torch.inference_mode():
            filled = module(torch.from_numpy(pixels)[None], torch.from_numpy(mask)[None])[0].numpy()
        return (filled.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)

    return run


def open_resized(graph: Path, threads: int | None) -> Fill:
    """Open a graph of one size in ONNX Runtime.

    Args:
        graph: the ONNX file, of 512×512.
        threads: CPU threads; None for ONNX Runtime's default.

    Returns:
        The fill for pictures of any size, which are resized to 512×512 and back.
    """
    import cv2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def fill(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        side = (RESIZED_SIDE, RESIZED_SIDE)
        small = cv2.resize(image, side, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(missing.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)
        pixels = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32)[None] / 255
        filled = session.run(None, dict(zip(names, (pixels, mask[None, None].astype(np.float32)), strict=True)))[0][0]
        found = (filled.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)
        large = cv2.resize(found, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
        return np.where(missing[..., None], large, image)

    return fill


def fill_telea(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Fill a picture by Telea's method.

    Args:
        image: uint8 [H, W, 3].
        missing: bool [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    import cv2

    return np.asarray(cv2.inpaint(image, missing.astype(np.uint8), _TELEA_RADIUS, cv2.INPAINT_TELEA))
