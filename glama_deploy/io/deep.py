"""Decode and encode pictures of 16 bits a channel, which Pillow does not hold. The package imagecodecs does."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from glama_deploy.errors import ImageError
from glama_deploy.io.metadata.tiff_directories import SHORT, Entry

#: The extra that installs the readers of further formats.
INSTALL = "run pip install 'glama-deploy[formats]'"

#: The packages of the modules that may be missing, for messages.
_PACKAGES = {
    "imagecodecs": "the package imagecodecs",
    "pillow_heif": "the package pillow-heif",
    "PIL.GifImagePlugin": "Pillow",
    "PIL.Jpeg2KImagePlugin": "Pillow",
    "PIL.AvifImagePlugin": "Pillow 11.3 or later",
}

#: Values of a 16-bit channel for each value of an 8-bit channel.
STEPS_PER_BYTE = 257

#: Channels of the arrays: gray, gray with alpha, RGB, RGBA.
_CHANNELS = (1, 2, 3, 4)

#: Pillow's modes of as many channels.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_WIDTH, _BITS, _PREDICTOR = 0x0100, 0x0102, 0x013D


def require(package: str, what: str) -> ModuleType:
    """Import a reader of the extra `formats`.

    Args:
        package: the module of the reader.
        what: what needs the package, for messages.

    Returns:
        The module.

    Raises:
        ImageError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImageError(f"{what} needs {_PACKAGES[package]}: {INSTALL}") from error


def is_deep(image: ImageFile) -> bool:
    """Tell whether a picture has 16 bits a channel.

    Args:
        image: the picture, of which only the header is read.

    Returns:
        Whether it has.
    """
    return any(";16" in str(tile[3]) for tile in image.tile)


def decode_deep(image: ImageFile, file: BinaryIO, name: object) -> np.ndarray:
    """Decode a picture of 16 bits a channel.

    Args:
        image: the picture, of which only the header is read.
        file: the picture's file.
        name: name of the picture in messages.

    Returns:
        uint16 H×W×C, C from 1 to 4: gray, gray with alpha, RGB, RGBA. EXIF orientation is not applied.

    Raises:
        ImageError: imagecodecs is not installed, or the picture is not of one of these kinds.
    """
    codecs = require("imagecodecs", f"{name} has 16 bits a channel, and")
    is_usual = image.format == "PNG" or getattr(image, "tag_v2", {}).get(262) in (1, 2)
    if image.format not in ("PNG", "TIFF") or not is_usual or "transparency" in image.info:
        raise ImageError(
            f"{name} is a {image.format} of 16 bits a channel; a 16-bit PNG or TIFF in gray or RGB is expected, "
            "without a transparent colour: convert the image first"
        )
    if any("RGBa" in str(tile[3]) or "La" in str(tile[3]) for tile in image.tile):
        raise ImageError(
            f"{name} has 16 bits a channel, and colors that are multiplied by their alpha; save the picture with "
            "straight (unassociated) alpha"
        )
    if image.format == "PNG" and image.tell():
        raise ImageError(
            f"{name} is an animated PNG of 16 bits a channel, of which frame 0 alone is read; split the file"
        )
    file.seek(0)
    data = file.read()
    try:
        pixels = codecs.png_decode(data) if image.format == "PNG" else codecs.tiff_decode(data, index=image.tell())
    except Exception as error:  # each format has an exception of its own
        raise ImageError(f"{name} is damaged ({error}); check the file") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS:
        raise ImageError(
            f"{name} has {pixels.dtype} values of shape {list(pixels.shape)}; uint16 in gray or RGB is expected"
        )
    return np.ascontiguousarray(pixels)


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn the pixels of a picture upright.

    Args:
        pixels: H×W×C.
        orientation: the orientation as EXIF counts orientations, 1 to 8.

    Returns:
        The pixels of the upright picture.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def reduce_depth(values: np.ndarray) -> np.ndarray:
    """Round 16-bit values to 8 bits.

    Args:
        values: uint8 or uint16.

    Returns:
        uint8 of the same shape.
    """
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + STEPS_PER_BYTE // 2) // STEPS_PER_BYTE).astype(np.uint8)


def encode_png(pixels: np.ndarray, level: int) -> bytes:
    """Encode a PNG of 16 bits a channel.

    Args:
        pixels: uint16 H×W×C.
        level: how much the file is compressed, 0 to 9.

    Returns:
        The file.

    Raises:
        ImageError: imagecodecs is not installed.
    """
    codecs = require("imagecodecs", "a PNG of 16 bits a channel")
    return bytes(codecs.png_encode(pixels[..., 0] if pixels.shape[2] == 1 else pixels, level=level))


def spread_bytes(pixels: np.ndarray, *, has_predictor: bool = False) -> tuple[Image.Image, dict[int, Entry]]:
    """Return 16-bit values as an 8-bit picture of twice the width, which a TIFF stores in the same bytes.

    Pillow does not write 16 bits of several channels. The rows of such a picture, and compression without a predictor,
    are those of a 16-bit picture. Two tags of the file are then changed.

    Args:
        pixels: uint16 H×W×C.
        has_predictor: whether differences along the rows are stored (TIFF 6.0, section 14), which compress better.

    Returns:
        The picture for Pillow, and the entries of the file's directory.
    """
    height, width, channels = pixels.shape
    changes = {_WIDTH: Entry(SHORT, 1, np.array(width, "<u2").tobytes())}
    changes[_BITS] = Entry(SHORT, channels, np.full(channels, 16, "<u2").tobytes())
    if has_predictor:
        pixels = np.diff(pixels, axis=1, prepend=np.uint16(0))
        changes[_PREDICTOR] = Entry(SHORT, 1, np.array(2, "<u2").tobytes())
    values = np.ascontiguousarray(pixels, "<u2").view(np.uint8).reshape(height, 2 * width, channels)
    image = Image.fromarray(values[..., 0] if channels == 1 else values, MODES[channels])
    return image, changes
