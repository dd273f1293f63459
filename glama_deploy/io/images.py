"""Read and write pictures. Colour mode, alpha and colour profile of the input are kept, known pixels bit-exact.

8-bit colour, grayscale and palette files are supported. 16-bit, CMYK and animated files are not supported, because
their known pixels could not be written back bit-exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glama_deploy.errors import ImageError
from glama_deploy.io.decoding import decode_file
from glama_deploy.io.files import atomic_file

#: Pillow's names of formats without transparency. (Pillow writes an alpha channel to a BMP, but does not read it back.)
_OPAQUE = ("JPEG", "BMP")

#: Pillow's names of formats by the suffix of a written file. Pillow has such a table, too, and imports all of its 40
#: plugins to fill the table, which takes longer than to decode a photo.
_ENCODERS = {
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

#: Suffixes of the images that are written, and that are read from folders.
SUFFIXES = frozenset(_ENCODERS)


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        rgb: uint8 H×W×3, upright.
        alpha: uint8 H×W, or None for a picture without transparency.
        gray: Whether the file is grayscale. The output is then grayscale, too.
        icc_profile: The colour profile, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    icc_profile: bytes | None


def read_image(path: Path) -> Picture:
    """Read an image file.

    Args:
        path: The image file.

    Returns:
        The picture, with EXIF orientation applied.

    Raises:
        ImageError: The file is missing, damaged, too large, or its format is not supported.
    """
    image = decode_file(path)
    has_alpha = "A" in image.mode or "transparency" in image.info
    gray = image.mode in ("1", "L", "LA")
    mode = "RGBA" if has_alpha else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    alpha = np.ascontiguousarray(pixels[..., 3]) if has_alpha else None
    return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, gray, image.info.get("icc_profile"))


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
    image = Image.fromarray(picture.rgb, "RGB")
    if picture.gray:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, object] = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    if encoder == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    elif encoder == "WEBP":
        options |= {"lossless": True, "exact": True}
    try:
        with atomic_file(path) as temporary:
            image.save(temporary, format=encoder, **options)
    except ValueError as error:
        raise ImageError(f"{path}: {encoder} does not support this image ({error}); write a .png") from error


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
    encoder = _ENCODERS[path.suffix.lower()]
    if encoder in _OPAQUE and picture.alpha is not None:
        raise ImageError(f"{path}: {encoder} does not support the input's transparency; write a .png")
    return encoder
