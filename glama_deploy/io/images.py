"""Read and write pictures, in files or in memory. Known pixels are kept bit-exact.

Colour mode, alpha, colour profile and EXIF of the input are kept. Of the EXIF, the orientation and the preview picture
are left out: the output is upright, and the preview would show the picture before it was filled.

8-bit colour, grayscale and palette files are supported. 16-bit, CMYK and animated files are not supported, because
their known pixels could not be written back bit-exact.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from glama_deploy.errors import ImageError
from glama_deploy.io.decoding import decode, decode_file
from glama_deploy.io.files import atomic_file
from glama_deploy.io.pipes import Source

log = logging.getLogger("glama_deploy")

#: Pillow's names of formats without transparency. (Pillow writes an alpha channel to a BMP, but does not read it back.)
_OPAQUE = ("JPEG", "BMP")

#: Pillow's names of formats by the suffix of a written file. Pillow has such a table, too, and imports all of its 40
#: plugins to fill the table, which takes longer than to decode a photo.
ENCODERS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
#: The level at which PNGs are compressed. For three photographs of 512×512, level 3 took 40 to 50 % of the CPU time of
#: Pillow's default, 6, and gave 0.5 to 7 % fewer bytes; for a diagram 7 % fewer (Pillow 13.0 with zlib-ng, 2026-11-30).
_PNG_LEVEL = 3

#: Suffixes of the images that are written, and that are read from folders.
SUFFIXES = frozenset(ENCODERS)


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        rgb: uint8 H×W×3, upright.
        alpha: uint8 H×W, or None for a picture without transparency.
        gray: Whether the file is grayscale. The output is then grayscale, too.
        icc_profile: The colour profile, or None.
        exif: The EXIF block without orientation and preview, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    icc_profile: bytes | None
    exif: bytes | None = None


def read_image(path: Source) -> Picture:
    """Read an image file.

    Args:
        path: The image file.

    Returns:
        The picture, with EXIF orientation applied.

    Raises:
        ImageError: The file is missing, damaged, too large, or its format is not supported.
    """
    return _make_picture(decode_file(path), path)


def decode_image(data: bytes, name: object) -> Picture:
    """Decode an image file that lies in memory.

    Args:
        data: The bytes of the file.
        name: Name of the image in error messages.

    Returns:
        The picture, with EXIF orientation applied.

    Raises:
        ImageError: The image is damaged, too large, or its format is not supported.
    """
    return _make_picture(decode(io.BytesIO(data), name), name)


def _make_picture(image: Image.Image, name: object) -> Picture:
    has_alpha = "A" in image.mode or "transparency" in image.info
    gray = image.mode in ("1", "L", "LA")
    mode = "RGBA" if has_alpha else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    alpha = np.ascontiguousarray(pixels[..., 3]) if has_alpha else None
    profile, exif = image.info.get("icc_profile"), _read_exif(image, name)
    return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, gray, profile, exif)


def _read_exif(image: Image.Image, name: object) -> bytes | None:
    """Return the EXIF block of an upright image; None if there is none, or Pillow cannot write the block again."""
    if not image.info.get("exif"):
        return None
    try:
        tags = image.getexif()
        tags.pop(ExifTags.Base.Orientation, None)
        return tags.tobytes() if tags else None
    except (ValueError, TypeError, LookupError, OSError, SyntaxError, struct.error) as error:
        log.warning("%s has damaged EXIF data, which are left out: %s", name, error)
        return None


def write_image(path: Path, picture: Picture) -> None:
    """Write a picture completely or not at all.

    Args:
        path: The image file. The suffix selects the format. JPEG is lossy and has the quality 95.
        picture: The picture.

    Raises:
        ImageError: The suffix is not supported, or the format does not support the picture.
        GlamaError: The file cannot be written.
    """
    encoder = check_format(path, picture)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        _encode(file, picture, encoder, path)


def encode_image(picture: Picture, encoder: str, name: object, quality: int | None = None) -> bytes:
    """Encode a picture as an image file in memory.

    Args:
        picture: The picture.
        encoder: Pillow's name of the format: PNG, JPEG or WEBP.
        name: Name of the image in error messages.
        quality: The quality of a JPEG or a WebP, from 1 to 100. None: 95 for JPEG, lossless for WebP. A PNG is lossless
            always.

    Returns:
        The bytes of the file.

    Raises:
        ImageError: The format does not support the picture.
    """
    _check_transparency(encoder, picture, name)
    file = io.BytesIO()
    settings = {"quality": quality, "lossless": False} if encoder != "PNG" and quality is not None else {}
    _encode(file, picture, encoder, name, settings)
    return file.getvalue()


def _encode(
    file: BinaryIO, picture: Picture, encoder: str, name: object, settings: Mapping[str, object] = MappingProxyType({})
) -> None:
    image = Image.fromarray(picture.rgb, "RGB")
    if picture.gray:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, object] = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    if picture.exif and encoder != "BMP":
        options["exif"] = picture.exif
    if encoder == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    elif encoder == "WEBP":
        options |= {"lossless": True, "exact": True}
    elif encoder == "PNG":
        options["compress_level"] = _PNG_LEVEL
    try:
        image.save(file, format=encoder, **{**options, **settings})
    except ValueError as error:
        raise ImageError(f"{name}: {encoder} does not support this image ({error}); write a .png") from error


def check_suffix(path: Path) -> None:
    """Check that images with a suffix are written.

    Args:
        path: The image file. It need not exist.

    Raises:
        ImageError: The suffix is not one of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        found = f"has the suffix {path.suffix!r}" if path.suffix else "has no suffix"
        raise ImageError(f"{path} {found}; one of {', '.join(sorted(SUFFIXES))} is expected: .png is a good choice")


def check_format(path: Path, picture: Picture) -> str:
    """Check that a file can store a picture.

    Args:
        path: The image file. It need not exist.
        picture: The picture.

    Returns:
        Pillow's name of the file's format.

    Raises:
        ImageError: The suffix is not supported, or the format does not support the picture's transparency.
    """
    check_suffix(path)
    encoder = ENCODERS[path.suffix.lower()]
    _check_transparency(encoder, picture, path)
    return encoder


def _check_transparency(encoder: str, picture: Picture, name: object) -> None:
    if encoder in _OPAQUE and picture.alpha is not None:
        raise ImageError(f"{name}: {encoder} does not support the input's transparency; write a .png")
