"""Fill raw video frames: RGB of 8 bits without a header, as `ffmpeg -f rawvideo -pix_fmt rgb24` writes them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from glama_deploy.errors import ImageError
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
    under_way: deque[Future[np.ndarray]] = deque()
    count = 0
    pool = ThreadPoolExecutor(at_once, "glama-fill")
    try:
        while len(data := source.read(frame_bytes)) == frame_bytes:
            under_way.append(pool.submit(fill, np.frombuffer(data, np.uint8).reshape(height, width, 3), mask))
            count += 1
            if len(under_way) > at_once:
                _write(target, under_way.popleft())
        while under_way:
            _write(target, under_way.popleft())
    finally:
        for begun in under_way:
            begun.cancel()
        pool.shutdown(wait=False)
    if data:
        raise ImageError(
            f"standard input ends in frame {count + 1}, which has {len(data)} of {frame_bytes} bytes; {count} whole "
            f"frames were written: check that the frames are {width} wide and {height} high, in rgb24"
        )
    if not count:
        raise ImageError(f"standard input has no frame; raw frames of {width}x{height} pixels in rgb24 are expected")
    return count


def _write(target: BinaryIO, filled: Future[np.ndarray]) -> None:
    target.write(filled.result().tobytes())
    target.flush()
