"""Read and write pictures; the output is of the same kind as the input, and known pixels come back bit-exact.

8-bit colour, grayscale and palette files are supported, with their alpha and colour profile. 16-bit, CMYK and animated
files are refused, because their known pixels could not come back bit-exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glama_deploy.errors import ImageError
from glama_deploy.io.decoding import decode_file
from glama_deploy.io.files import atomic_file

#: Formats without transparency. (Pillow writes it to a BMP, and reads the BMP back without.)
_OPAQUE = ("JPEG", "BMP")

#: Endings of files that are written, and that folders are searched for.
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        rgb: uint8 H×W×3, upright.
        alpha: uint8 H×W, or None for a picture without transparency.
        gray: whether the file is grayscale, so that the output is.
        icc_profile: the colour profile, if the file has one.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    icc_profile: bytes | None


def read_image(path: Path) -> Picture:
    """Decode an image file.

    Raises:
        ImageError: the file is missing, damaged, too large, or of a kind that is not supported.
    """
    image = decode_file(path)
    has_alpha = "A" in image.mode or "transparency" in image.info
    gray = image.mode in ("1", "L", "LA")
    mode = "RGBA" if has_alpha else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    alpha = np.ascontiguousarray(pixels[..., 3]) if has_alpha else None
    return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, gray, image.info.get("icc_profile"))


def write_image(path: Path, picture: Picture) -> None:
    """Write a picture; a half-written file never appears.

    Args:
        path: its ending says the format. A JPEG is written at quality 95, and is lossy like any JPEG.
        picture: the picture.

    Raises:
        ImageError: the ending is not supported, or the format cannot hold the picture.
        GlamaError: the place cannot be written.
    """
    encoder = check_takes(path, picture)
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
        raise ImageError(f"{path}: {encoder} does not take this image ({error}); write a .png") from error


def check_suffix(path: Path) -> None:
    """Raise ImageError where the name's ending is not one of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise ImageError(f"{path} {found}; one of {', '.join(sorted(SUFFIXES))} is expected: .png is a good choice")


def check_takes(path: Path, picture: Picture) -> str:
    """Return Pillow's name of the format that a file of this name is written in.

    Raises:
        ImageError: the ending is not supported, or the format cannot hold the picture's transparency.
    """
    check_suffix(path)
    Image.init()
    encoder = Image.registered_extensions()[path.suffix.lower()]
    if encoder in _OPAQUE and picture.alpha is not None:
        raise ImageError(f"{path}: {encoder} has no transparency, and the input has; write a .png")
    return encoder
