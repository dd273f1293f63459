"""The planes of a frame: what the network is shown of them, and how a filled part gets into them.

A frame stays in the pixel format of its video. The network is shown RGB, and only the samples of missing pixels are
written back, so every other sample keeps its value.

In formats with chroma subsampling, a chroma sample belongs to a block of pixels (2×2 in 4:2:0). Where a block has a
missing pixel, its chroma shows the object that is to be removed. So the network is shown the whole block as missing,
and fills the block's chroma. Of luma, only missing pixels are written:

- the luma of a known pixel is never changed;
- the chroma of a block without missing pixels is never changed.

For RGB, a chroma sample is repeated over its block, and the mean of the block is written back. A block that nobody
changes would come back with its own value. The matrices are those of ITU-R BT.601, BT.709 and BT.2020 (non-constant
luminance), FCC and SMPTE 240M, in limited or full range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glama_deploy.errors import ImageError
from glama_deploy.inpainting.boxes import Span

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.format import VideoFormat

#: Weights of red and blue in luma, by the number of the colour space (ISO/IEC 23091-2). An unspecified space is read as
#: BT.601, as FFmpeg does.
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}

#: Names of colour spaces that are not supported, for messages.
_OTHER_SPACES = {8: "YCgCo", 10: "BT.2020 constant luminance", 11: "SMPTE 2085", 14: "ICtCp"}

#: The number of the full range, where 0 and the greatest value are black and white.
FULL_RANGE = 2

#: Formats with all channels in one plane: the places of red, green and blue, and the number of channels.
_PACKED = {
    "rgb24": ((0, 1, 2), 3),
    "bgr24": ((2, 1, 0), 3),
    "rgba": ((0, 1, 2), 4),
    "bgra": ((2, 1, 0), 4),
    "argb": ((1, 2, 3), 4),
    "abgr": ((3, 2, 1), 4),
    "rgb0": ((0, 1, 2), 4),
    "bgr0": ((2, 1, 0), 4),
    "0rgb": ((1, 2, 3), 4),
    "0bgr": ((3, 2, 1), 4),
    "rgb48le": ((0, 1, 2), 3),
    "rgb48be": ((0, 1, 2), 3),
    "rgba64le": ((0, 1, 2), 4),
    "rgba64be": ((0, 1, 2), 4),
    "ya8": ((0, 0, 0), 2),
    "ya16be": ((0, 0, 0), 2),
    "ya16le": ((0, 0, 0), 2),
}

#: The greatest number of bits of a sample.
_MAX_BITS = 16


@dataclass(frozen=True)
class PixelFormat:
    """A pixel format whose frames can be filled.

    Attributes:
        name: FFmpeg's name, such as yuv420p.
        bits: bits of a sample.
        dtype: type of a sample in memory.
        kind: yuv, gray, gbr (planes of green, blue and red) or packed.
        block: height and width in pixels of the block that shares a chroma sample.
    """

    name: str
    bits: int
    dtype: np.dtype
    kind: str
    block: tuple[int, int] = (1, 1)

    @property
    def shown_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of the RGB image that the network is shown."""
        return np.uint8 if self.bits == 8 else np.uint16

    @classmethod
    def read(cls, found: VideoFormat) -> PixelFormat:
        """Read a format of PyAV.

        Args:
            found: the format, with the size of its frames.

        Returns:
            The format.

        Raises:
            ImageError: frames of this format cannot be filled.
        """
        components = found.components
        bits = max(each.bits for each in components)
        dtype = np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if found.is_big_endian else "<u2")
        refused = ImageError(
            f"the frames have the pixel format {found.name}, which is not supported; convert the video first, for "
            "example to yuv420p or yuv420p10le"
        )
        equal = len({each.bits for each in components}) == 1 and 8 <= bits <= _MAX_BITS
        if not equal or found.has_palette or found.is_bit_stream or found.is_bayer:
            raise refused
        if found.name in _PACKED:
            return cls(found.name, bits, dtype, "packed")
        if sorted(each.plane for each in components) != list(range(len(components))):
            raise refused
        if found.is_rgb:
            return cls(found.name, bits, dtype, "gbr")
        if len(components) == 1:
            return cls(found.name, bits, dtype, "gray")
        block = tuple(1 << round(np.log2(whole / part)) for whole, part in _list_sides(found))
        return cls(found.name, bits, dtype, "yuv", (block[0], block[1]))

    def check_space(self, space: int) -> None:
        """Check the colour space of a frame.

        Args:
            space: the number of the colour space (ISO/IEC 23091-2).

        Raises:
            ImageError: the colour space is not supported.
        """
        if self.kind == "yuv" and space not in _LUMA_WEIGHTS:
            name = _OTHER_SPACES.get(space, f"number {space}")
            raise ImageError(
                f"the frames have the colour space {name}, which is not supported; convert the video first, for "
                "example to BT.709"
            )

    def cover_blocks(self, missing: np.ndarray) -> np.ndarray:
        """Return the mask with every block missing that has a missing pixel.

        Args:
            missing: bool H×W, True where a pixel is missing.

        Returns:
            bool H×W.
        """
        if self.block == (1, 1):
            return missing
        blocks = self._find_blocks(missing)
        return _repeat(blocks, self.block, missing.shape)

    def show(self, frame: VideoFrame, span: Span) -> np.ndarray:
        """Return a part of a frame in RGB.

        Args:
            frame: the frame.
            span: the part, which begins with a block.

        Returns:
            uint8 h×w×3, or uint16 h×w×3 (0…65535) for more than 8 bits.
        """
        white = 255 if self.bits == 8 else 65535
        if self.kind == "packed":
            values = _view(frame.planes[0], self.dtype, _PACKED[self.name][1])[span.slices][..., _PACKED[self.name][0]]
            return values.astype(self.shown_dtype)
        planes = self._view_planes(frame)
        if self.kind == "gbr":
            levels = np.stack([planes[place][span.slices] for place in (2, 0, 1)], axis=-1).astype(np.float32)
            return _round(levels * np.float32(white / ((1 << self.bits) - 1)), self.shown_dtype)
        black, steps, chroma_steps = self._range(frame)
        luma = (planes[0][span.slices].astype(np.float32) - np.float32(black)) * np.float32(white / steps)
        if self.kind == "gray":
            return np.repeat(_round(luma, self.shown_dtype)[..., None], 3, axis=2)
        red_weight, blue_weight = _LUMA_WEIGHTS[frame.colorspace]
        middle, scale = np.float32(1 << (self.bits - 1)), np.float32(white / chroma_steps)
        blue, red = (
            _repeat((plane[self._slice_blocks(span)].astype(np.float32) - middle) * scale, self.block, span.size)
            for plane in planes[1:3]
        )
        green_weight = 1 - red_weight - blue_weight
        result = np.empty((*span.size, 3), self.shown_dtype)
        result[..., 0] = _round(luma + np.float32(2 * (1 - red_weight)) * red, self.shown_dtype)
        result[..., 2] = _round(luma + np.float32(2 * (1 - blue_weight)) * blue, self.shown_dtype)
        luma -= np.float32(2 * (1 - red_weight) * red_weight / green_weight) * red
        luma -= np.float32(2 * (1 - blue_weight) * blue_weight / green_weight) * blue
        result[..., 1] = _round(luma, self.shown_dtype)
        return result

    def write(self, frame: VideoFrame, span: Span, filled: np.ndarray, missing: np.ndarray) -> None:
        """Write the missing pixels of a part into a frame. All other samples, and transparency, stay as they are.

        Args:
            frame: the frame, whose planes are changed.
            span: the part, which begins with a block.
            filled: the part in RGB, as `show` returns it. Whole blocks that have missing pixels are filled.
            missing: bool h×w, the missing pixels of the part.
        """
        white = 255 if self.bits == 8 else 65535
        if self.kind == "packed":
            part = _view(frame.planes[0], self.dtype, _PACKED[self.name][1])[span.slices]
            for channel, place in enumerate(_PACKED[self.name][0]):
                part[..., place][missing] = filled[..., channel][missing]
            return
        planes = self._view_planes(frame)
        most = (1 << self.bits) - 1
        if self.kind == "gbr":
            for channel, place in enumerate((2, 0, 1)):
                levels = filled[..., channel][missing] * np.float32(most / white)
                planes[place][span.slices][missing] = _round(levels, self.dtype.type, most)
            return
        black, steps, chroma_steps = self._range(frame)
        red_weight, blue_weight = _LUMA_WEIGHTS.get(frame.colorspace, _LUMA_WEIGHTS[2])
        red, green, blue = (filled[..., channel].astype(np.float32) / np.float32(white) for channel in range(3))
        luma = (
            np.float32(red_weight) * red
            + np.float32(1 - red_weight - blue_weight) * green
            + np.float32(blue_weight) * blue
        )
        levels = luma[missing] * np.float32(steps) + np.float32(black)
        planes[0][span.slices][missing] = _round(levels, self.dtype.type, most)
        if self.kind == "gray":
            return
        blocks, middle = self._find_blocks(missing), np.float32(1 << (self.bits - 1))
        for plane, colour, weight in ((planes[1], blue, blue_weight), (planes[2], red, red_weight)):
            chroma = _average((colour - luma) / np.float32(2 * (1 - weight)), self.block)
            levels = chroma[blocks] * np.float32(chroma_steps) + middle
            plane[self._slice_blocks(span)][blocks] = _round(levels, self.dtype.type, most)

    def _range(self, frame: VideoFrame) -> tuple[int, int, int]:
        """Return the level of black, and the steps from black to white and of all chroma."""
        if frame.color_range == FULL_RANGE or self.name.startswith("yuvj"):
            most = (1 << self.bits) - 1
            return 0, most, most
        scale = 1 << (self.bits - 8)
        return (0, (1 << self.bits) - 1, 0) if self._is_full_gray(frame) else (16 * scale, 219 * scale, 224 * scale)

    def _is_full_gray(self, frame: VideoFrame) -> bool:
        """Return whether a gray frame without a range has the full one, as FFmpeg reads it."""
        return self.kind == "gray" and frame.color_range == 0

    def _view_planes(self, frame: VideoFrame) -> list[np.ndarray]:
        """Return the samples of each plane (H×W), where they lie."""
        return [_view(plane, self.dtype) for plane in frame.planes]

    def _slice_blocks(self, span: Span) -> tuple[slice, slice]:
        """Return the rows and columns of the chroma samples of a part that begins with a block."""
        high, wide = self.block
        return slice(span.top // high, -(-span.bottom // high)), slice(span.left // wide, -(-span.right // wide))

    def _find_blocks(self, missing: np.ndarray) -> np.ndarray:
        """Return the blocks that have a missing pixel (bool h×w)."""
        padded = _pad_to_blocks(missing, self.block)
        return np.asarray(_split_blocks(padded, self.block).any(axis=(1, 3)))


def _list_sides(found: VideoFormat) -> list[tuple[float, float]]:
    """Return the sides of the luma and of the chroma plane, height and width."""
    return [(1 << 10, found.chroma_height(1 << 10)), (1 << 10, found.chroma_width(1 << 10))]


def _view(plane: Any, dtype: np.dtype, channels: int = 1) -> np.ndarray:
    """Return the samples of a plane where they lie: H×W, or H×W×C for several channels."""
    row = plane.line_size // dtype.itemsize
    rows = np.frombuffer(plane, dtype, plane.height * row).reshape(plane.height, row)[:, : plane.width * channels]
    return rows if channels == 1 else rows.reshape(plane.height, plane.width, channels)


def _round(values: np.ndarray, dtype: Any, most: int | None = None) -> np.ndarray:
    """Return values as whole numbers of a type, from 0 to `most`, by default the greatest of the type."""
    limit = np.iinfo(dtype).max if most is None else most
    return np.asarray(np.clip(np.rint(values), 0, limit).astype(dtype))


def _repeat(values: np.ndarray, block: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Return values of blocks for each pixel, cut to a shape."""
    return np.asarray(values.repeat(block[0], axis=0)[: shape[0]].repeat(block[1], axis=1)[:, : shape[1]])


def _pad_to_blocks(values: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return values with their last row and column repeated to whole blocks."""
    padding = [(0, -side % size) for side, size in zip(values.shape, block, strict=True)]
    return np.pad(values, padding, mode="edge") if any(after for _, after in padding) else values


def _split_blocks(values: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return values of whole blocks as rows × block height × columns × block width."""
    return values.reshape(values.shape[0] // block[0], block[0], values.shape[1] // block[1], block[1])


def _average(values: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return the mean of each block."""
    return values if block == (1, 1) else _split_blocks(_pad_to_blocks(values, block), block).mean(axis=(1, 3))
