"""Convert CMYK to sRGB, and tell values that are not those of a display."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from glama_deploy.io.metadata.record import Metadata

#: Code points of ITU-T H.273 in a PNG's chunk cICP: linear, PQ, HLG.
_TRANSFERS = {8: "linear light", 16: "HDR (PQ)", 18: "HDR (HLG)"}

#: A gamma of a PNG above this, of 100,000, is about linear.
_LINEAR_GAMMA = 80_000


def convert_cmyk(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert a CMYK picture to sRGB.

    Args:
        image: the picture, mode CMYK.
        profile: the colour profile of the file.

    Returns:
        The picture, mode RGB, and the profile of sRGB. Without a usable profile of CMYK, the conversion is Pillow's
        plain one, and the profile None.
    """
    from PIL import ImageCms

    if not profile or profile[16:20] != b"CMYK":
        return image.convert("RGB"), None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB"), None
    assert converted is not None  # only a conversion in place returns None
    return converted, srgb.tobytes()


def describe_values(metadata: Metadata) -> str | None:
    """Describe values that are not those of a display.

    Args:
        metadata: the metadata of a picture.

    Returns:
        The kind of the values, for people; None for values of a display.
    """
    chunks = dict(metadata.chunks)
    if (coding := chunks.get(b"cICP")) and len(coding) == 4:
        return _TRANSFERS.get(coding[1])
    if metadata.icc_profile:
        return "linear light" if _is_linear(metadata.icc_profile) else None
    gamma = chunks.get(b"gAMA", b"")
    is_linear = len(gamma) == 4 and struct.unpack(">L", gamma)[0] >= _LINEAR_GAMMA and b"sRGB" not in chunks
    return "linear light" if is_linear else None


def _is_linear(profile: bytes) -> bool:
    """Return whether the curve of a colour profile (ICC.1, sections 7 and 10) is a straight line."""
    if len(profile) < 132:
        return False
    (count,) = struct.unpack_from(">L", profile, 128)
    for start in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        tag, offset, size = struct.unpack_from(">4sLL", profile, start)
        if tag in (b"gTRC", b"kTRC"):
            return _is_line(profile[offset : offset + size])
    return False


def _is_line(curve: bytes) -> bool:
    kind, number = curve[:4], curve[8:12]
    if kind == b"para" and len(curve) >= 16:
        return number[:2] == b"\0\0" and curve[12:16] == b"\0\1\0\0"
    if kind != b"curv" or len(number) < 4:
        return False
    (count,) = struct.unpack(">L", number)
    if count < 2:
        return count == 0 or curve[12:14] == b"\1\0"
    values = np.frombuffer(curve[12 : 12 + 2 * min(count, (len(curve) - 12) // 2)], ">u2").astype(np.float64)
    return len(values) == count and bool(np.abs(values - np.linspace(0, 65535, count)).max() < 256)
