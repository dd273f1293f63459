"""Image files in and out: what is converted, what is refused, and nothing silently wrong.

Colour, grayscale and palette files of 8 bits are taken, with their alpha and colour profile kept for the output;
16-bit, CMYK and animated files are refused, because the known pixels could not come back bit-exact.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from glama_deploy.errors import ImageError
from glama_deploy.files import atomic_file

#: What Pillow opens as one of these is taken as it is or converted without loss.
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}

#: What is opened: decoders that run no other program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

#: Of those that are written, what has no transparency (Pillow writes a BMP's, and reads it back without).
_OPAQUE = ("JPEG", "BMP")

#: What is written, and what folders are searched for.
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Picture:
    """A decoded image: `rgb` uint8 H×W×3, upright; the rest is kept so that the output is of the same kind."""

    rgb: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    icc_profile: bytes | None


def read_image(path: Path) -> Picture:
    """Decode an image file. Raises ImageError: missing, damaged, no image, or of a kind that is refused."""
    image = opened(path)
    has_alpha = "A" in image.mode or "transparency" in image.info
    gray = image.mode in ("1", "L", "LA")
    profile = image.info.get("icc_profile")
    rgba = image.convert("RGBA") if has_alpha else image.convert("RGB")
    pixels = np.asarray(rgba)
    alpha = np.ascontiguousarray(pixels[..., 3]) if has_alpha else None
    return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, gray, profile)


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask file: bool H×W, True = missing. Any colour channel above 0 is missing; in a JPEG or WebP, which may
    ring around edges, above 127.

    Raises ImageError as :func:`read_image` does, and for a mask with transparency, which may mean either thing.
    """
    image = opened(path)
    if "A" in image.mode or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise ImageError(
                f"{path}: the mask has transparent pixels, which may mean missing or known; "
                "save it as black (known) and white (missing)"
            )
    lossy = image.format in ("JPEG", "WEBP")
    values = np.asarray(image.convert("RGB")).max(axis=2)
    between = (values > 8) & (values < 247)
    if between.mean() > 0.5 and np.unique(values[between]).size > 16:
        raise ImageError(
            f"{path} looks like a photo, not a mask (most of it is neither black nor white); "
            "are image and mask exchanged?"
        )
    return values > (127 if lossy else 0)


def write_image(path: Path, picture: Picture, rgb: np.ndarray, mask: np.ndarray) -> None:
    """Write the inpainted `rgb` (uint8 H×W×3) as the kind of image `picture` was; missing pixels become opaque.

    The format follows the suffix; `.jpg` is written at quality 95 and is lossy like any JPEG. Raises ImageError for a
    suffix Pillow cannot write, GlamaError where the place cannot be written; a half-written file never appears.
    """
    image = Image.fromarray(rgb, "RGB")
    if picture.gray:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(np.where(mask, np.uint8(255), picture.alpha)))
    encoder = check_takes(path, picture)
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
    """Raise ImageError for a name whose ending is no image format that is written."""
    if path.suffix.lower() not in SUFFIXES:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise ImageError(f"{path} {found}; one of {', '.join(sorted(SUFFIXES))} is expected: .png is a good choice")


def check_takes(path: Path, picture: Picture) -> str:
    """Pillow's name of the format that a file of this name is written in. Raises ImageError where its ending is none
    that is written, or one that cannot hold what the picture has."""
    check_suffix(path)
    Image.init()
    encoder = Image.registered_extensions()[path.suffix.lower()]
    if encoder in _OPAQUE and picture.alpha is not None:
        raise ImageError(f"{path}: {encoder} has no transparency, and the input has; write a .png")
    return encoder


def pixels(path: Path) -> int:
    """How many an image file says that it has; 0 where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0


def opened(file: Path | BinaryIO, name: object = None) -> Image.Image:
    """A decoded image file, upright; errors call it by the name. Raises ImageError as :func:`read_image` does."""
    name = name or file
    if isinstance(file, Path) and not file.is_file():
        raise ImageError(f"no image at {name}; check the path")
    Image.init()  # or only the commonest of the formats are looked at
    try:
        image = Image.open(file, formats=_FORMATS)
        raw_modes = {str(tile[3]) for tile in image.tile}
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a phone's second lens is no second frame
            raise ImageError(f"{name} has {image.n_frames} frames; split it into single images first")  # type: ignore[attr-defined]
        if image.mode not in _MODES or any(";16" in raw for raw in raw_modes):
            kind = "16 bits a channel" if any("16" in raw for raw in raw_modes) else f"mode {image.mode}"
            raise ImageError(
                f"{name} is an image of {kind}; 8-bit gray, RGB, RGBA or palette is expected: convert it first"
            )
        file_format = image.format
        upright = ImageOps.exif_transpose(image)
        upright.format = file_format
        upright.load()
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is larger than an image should be ({error}); scale it down first") from error
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(
            f"{name} is damaged or no image ({error}); a PNG, JPEG, WebP, BMP or TIFF is expected"
        ) from error
    return upright
