"""Fill raw video frames: RGB of 8 bits without a header, as `ffmpeg -f rawvideo -pix_fmt rgb24` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from glama_deploy.errors import ImageError
from glama_deploy.inpainting.in_order import map_in_order
from glama_deploy.inpainting.transparency import Fill


def fill_frames(fill: Fill, source: BinaryIO, target: BinaryIO, mask: np.ndarray, *, at_once: int = 1) -> int:
    """Fill all frames of a stream with one mask, and write them in order.

    Args:
        fill: the inpainter.
        source: the frames, one after the other, each 3·W·H bytes.
        target: where the filled frames are written.
        mask: bool H×W, True where a pixel is missing.
        at_once: number of frames that are filled at once, each in a thread.

    Returns:
        The number of frames, at least 1.

    Raises:
        ImageError: the stream is empty, or ends within a frame. All whole frames were written before.
    """
    height, width = mask.shape
    frame_bytes = 3 * height * width
    rest = b""

    def read_frames() -> Iterator[np.ndarray]:
        nonlocal rest
        while len(rest := source.read(frame_bytes)) == frame_bytes:
            yield np.frombuffer(rest, np.uint8).reshape(height, width, 3)

    count = 0
    for filled in map_in_order(lambda frame: fill(frame, mask), read_frames(), at_once):
        target.write(filled.tobytes())
        target.flush()
        count += 1
    if rest:
        raise ImageError(
            f"standard input ends in frame {count + 1}, which has {len(rest)} of {frame_bytes} bytes; {count} whole "
            f"frames were written: check that the frames are {width} wide and {height} high, in rgb24"
        )
    if not count:
        raise ImageError(f"standard input has no frame; raw frames of {width}x{height} pixels in rgb24 are expected")
    return count
