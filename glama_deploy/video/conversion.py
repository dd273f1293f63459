"""Convert frames of numbered pictures, which are RGB or gray, to a pixel format of videos.

Few players show a video in RGB, so lossy codecs get YUV of BT.709 in limited range. Lossless codecs get a format that
holds the same samples in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glama_deploy.video.clip import Clip
from glama_deploy.video.package import import_av
from glama_deploy.video.planes import FULL_RANGE, PixelFormat

if TYPE_CHECKING:
    from av import VideoFrame

#: The formats to which pictures are converted, the most widely played first. Pictures with an odd side need a format
#: whose pixels all have chroma samples of their own.
PLAYED_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv422p10le", "yuv444p", "yuvj444p")

#: The formats that hold the samples of another one in another order.
EXACT_FORMATS = (
    "rgb24",
    "bgr24",
    "bgr0",
    "gbrp",
    "rgba",
    "bgra",
    "gbrap",
    "rgb48le",
    "rgb48be",
    "gbrp16le",
    "rgba64le",
    "rgba64be",
    "gbrap16le",
    "gray",
    "gray16le",
    "gray16be",
)

#: The numbers of BT.709, and of the colour space in which JPEG's matrix is (BT.601), of ISO/IEC 23091-2.
_BT709, _BT601 = 1, 5

#: The number of the limited range.
_LIMITED_RANGE = 1


def choose_colours(format: str, clip: Clip) -> tuple[int, int, int, int]:
    """Choose the numbers of the colour space, range, primaries and transfer characteristics of encoded frames.

    Args:
        format: the pixel format of the encoded frames.
        clip: the source.

    Returns:
        Those of the clip, or of BT.709 where RGB or gray becomes YUV.
    """
    if clip.format.kind == "yuv" or _read(format).kind != "yuv":
        return clip.colours
    is_full = format.startswith("yuvj")
    return (_BT601, FULL_RANGE, _BT709, _BT709) if is_full else (_BT709, _LIMITED_RANGE, _BT709, _BT709)


def is_exact(format: PixelFormat, other: str) -> bool:
    """Return whether another format holds the same samples.

    Args:
        format: the format.
        other: FFmpeg's name of the other format.

    Returns:
        True if both are RGB or both are gray, with the same bits, with transparency or without.
    """
    return _sort(format.name) == _sort(other)


def drops_alpha(clip: Clip, format: str) -> bool:
    """Return whether a conversion leaves out the transparency.

    Args:
        clip: the source.
        format: the pixel format of the encoded frames.

    Returns:
        True if only the source has transparency.
    """
    return _has_alpha(clip.format.name) and not _has_alpha(format)


def convert(frame: VideoFrame, clip: Clip, format: str) -> VideoFrame:
    """Convert a frame.

    Args:
        frame: a frame of the clip.
        clip: the clip.
        format: FFmpeg's name of the pixel format.

    Returns:
        The frame in this format. Its times are not set.
    """
    if is_exact(clip.format, format):
        return frame.reformat(format=format)
    space, color_range, *_ = choose_colours(format, clip)
    return frame.reformat(
        format=format,
        dst_colorspace=space,
        src_color_range=FULL_RANGE,
        dst_color_range=color_range,
        interpolation="AREA",  # the mean of each block is its chroma
    )


def _read(format: str) -> PixelFormat:
    """Return the pixel format of a name."""
    return PixelFormat.read(import_av().VideoFormat(format, 2, 2))


def _sort(format: str) -> tuple[bool, int, int, bool]:
    """Return whether a format is RGB, its number of colours, its bits, and whether it has transparency."""
    found = import_av().VideoFormat(format)
    colours = [each for each in found.components if not each.is_alpha]
    return found.is_rgb, len(colours), max(each.bits for each in colours), _has_alpha(format)


def _has_alpha(format: str) -> bool:
    """Return whether a format has transparency."""
    return any(each.is_alpha for each in import_av().VideoFormat(format).components)
