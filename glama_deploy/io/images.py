"""Read and write pictures, in files or in memory. Known pixels are kept bit-exact.

Colour mode, alpha and metadata of the input are kept as far as the output's format holds them. What the format does not
hold is named in a note. The output is upright: the EXIF orientation becomes 1. Preview pictures are left out, because
they would show the picture before it was filled.

Gray, RGB and palette files of 8 bits are supported, and gray and RGB of 16 bits. CMYK is converted to sRGB.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import colours, decoding, deep
from glama_deploy.io.files import atomic_file
from glama_deploy.io.metadata import writing
from glama_deploy.io.metadata.reading import correct_metadata, find_orientation, read_metadata
from glama_deploy.io.metadata.record import NO_METADATA, Metadata
from glama_deploy.io.metadata.tiff_directories import Entry
from glama_deploy.io.pipes import Source

log = logging.getLogger("glama_deploy")

#: Pillow's names of formats without transparency. (Pillow writes an alpha channel to a BMP, but does not read it back.)
_OPAQUE = ("JPEG", "BMP")

#: Pillow's names of formats that may have 16 bits a channel.
_DEEP = ("PNG", "TIFF")

#: Pillow's names of formats with a quality.
_LOSSY = ("JPEG", "WEBP")

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

#: The quality of a JPEG whose input is not a JPEG.
_JPEG_QUALITY = 95

#: Compressions of TIFF, by Pillow's names, that keep all values. Others are replaced by deflate.
_TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")
_TIFF_DEFLATE = "tiff_adobe_deflate"
_WITH_PREDICTOR = ("tiff_lzw", "tiff_adobe_deflate", "zstd")
_PREDICTOR_TAG = 0x013D

#: Suffixes of the images that are written.
SUFFIXES = frozenset(ENCODERS)

#: Suffixes of the images that are read from folders.
READ_SUFFIXES = SUFFIXES | decoding.FURTHER_SUFFIXES

#: What notes were given. Each is given once in a process, not once for each picture of a folder.
_noted: set[tuple[str, str]] = set()
_noting = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        rgb: uint8 or uint16 H×W×3, upright.
        alpha: H×W of the same type, or None for a picture without transparency.
        gray: Whether the file is grayscale. The output is then grayscale, too.
        metadata: What the file holds beside pixels, for an upright and filled picture.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    metadata: Metadata = NO_METADATA


@dataclass(frozen=True)
class FileRule:
    """How picture files are read and written.

    Attributes:
        frame: The frame of an animated or many-paged file, from 0. None: a file with several frames is refused.
        quality: The quality of a JPEG or a WebP, 1 to 100. None: a JPEG is as fine as its input (95 for an input of
            another format), and a WebP is lossless.

    Raises:
        GlamaError: A value is out of its range.
    """

    frame: int | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.frame is not None and self.frame < 0:
            raise GlamaError(f"`frame` is {self.frame}; 0 (the first frame) or more is expected")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise GlamaError(f"`quality` is {self.quality}; 1 to 100 is expected")

    def check_outputs(self, outputs: Iterable[Path]) -> None:
        """Check that a quality has a use.

        Args:
            outputs: The files that are written.

        Raises:
            GlamaError: A quality is set, and no output is a JPEG or a WebP. Without outputs, no error.
        """
        suffixes = {path.suffix.lower() for path in outputs}
        if self.quality is not None and suffixes and not any(ENCODERS.get(suffix) in _LOSSY for suffix in suffixes):
            raise GlamaError(
                f"`quality` is {self.quality}, and {', '.join(sorted(suffixes))} has no quality; write .jpg or .webp, "
                "or leave `quality` out"
            )


#: Files with one frame, JPEGs as fine as their inputs, lossless WebPs.
AS_THE_INPUT = FileRule()


def read_image(path: Source, rule: FileRule = AS_THE_INPUT) -> Picture:
    """Read an image file.

    Args:
        path: The image file.
        rule: How the file is read.

    Returns:
        The picture, with EXIF orientation applied.

    Raises:
        ImageError: The file is missing, damaged, too large, or its format is not supported.
    """
    with decoding.readable(path) as file:
        return _read_picture(file, path, rule, further=True)


def read_bytes(path: Path) -> np.ndarray:
    """Read the colours of an image file of 8 bits a channel.

    Args:
        path: The image file.

    Returns:
        uint8 H×W×3, upright.

    Raises:
        ImageError: The file cannot be read, or has 16 bits a channel.
    """
    rgb = read_image(path).rgb
    if rgb.dtype != np.uint8:
        raise ImageError(f"{path} has 16 bits a channel; 8 are expected: convert the image first")
    return rgb


def decode_image(data: bytes, name: object) -> Picture:
    """Decode a PNG, JPEG, WebP, BMP or TIFF that lies in memory.

    Args:
        data: The bytes of the file.
        name: Name of the image in error messages.

    Returns:
        The picture, with EXIF orientation applied.

    Raises:
        ImageError: The image is damaged, too large, or its format is not supported.
    """
    return _read_picture(io.BytesIO(data), name, AS_THE_INPUT, further=False)


def _read_picture(file: BinaryIO, name: object, rule: FileRule, *, further: bool) -> Picture:
    with decoding.parsed(file, name, further=further) as image:
        decoding.check_size(image, name)
        if further:
            decoding.choose_frame(image, name, rule.frame)
            decoding.check_size(image, name)  # of the chosen page of a TIFF
        else:
            decoding.check_frames(image, name)
        metadata = read_metadata(image, file, name)
        is_turned = find_orientation(metadata, image) >= 5
        if deep.is_deep(image):
            pixels = deep.turn_upright(deep.decode_deep(image, file, name), find_orientation(metadata, image))
            gray = pixels.shape[2] <= 2
        else:
            _check_bits(image, file, name)
            decoding.check_mode(image, name, frozenset({"CMYK"}))
            image.load()
            plain, metadata = _convert_to_rgb(image, metadata, name)
            gray = plain.mode in ("1", "L", "LA")
            pixels = _take_pixels(decoding.turn_upright(plain, find_orientation(metadata, image)))
    height, width, channels = pixels.shape
    metadata = correct_metadata(metadata, height, width, is_turned, name)
    if kind := colours.describe_values(metadata):
        _note_once(kind, f"{name} holds {kind}; the networks are trained for sRGB, and may fill other values badly")
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if channels <= 2 else np.ascontiguousarray(pixels[..., :3])
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    return Picture(rgb, alpha, gray, metadata)


def _check_bits(image: ImageFile, file: BinaryIO, name: object) -> None:
    bits = decoding.find_channel_bits(image, file)
    if bits <= 8:
        return
    if image.format == "JPEG2000":
        raise ImageError(f"{name} is a JPEG 2000 of {bits} bits a channel; 8 are expected: convert it to a 16-bit TIFF")
    _note_once(str(image.format), f"{name} has {bits} bits a channel, of which 8 are read, as of others of its format")


def _convert_to_rgb(image: Image.Image, metadata: Metadata, name: object) -> tuple[Image.Image, Metadata]:
    """Return an image that is not CMYK, and metadata with the profile of the values."""
    if image.mode != "CMYK":
        return image, metadata
    converted, profile = colours.convert_cmyk(image, metadata.icc_profile)
    way = "by its colour profile" if profile else "without a colour profile: colours may be off"
    _note_once(f"CMYK {way}", f"{name} is CMYK and converted to sRGB {way}; other such pictures are, too")
    return converted, replace(metadata, icc_profile=profile)


def _take_pixels(image: Image.Image) -> np.ndarray:
    """Return the values of an image: RGB, or RGBA if the image has transparency."""
    mode = "RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _note_once(kind: str, message: str) -> None:
    """Log a note, once for each kind."""
    if _take_new("", [kind]):
        log.warning("%s", message)


def _take_new(encoder: str, whats: Iterable[str]) -> list[str]:
    """Return the things that were not noted before for a format, and remember them."""
    with _noting:
        new = [what for what in whats if (encoder, what) not in _noted]
        _noted.update((encoder, what) for what in new)
    return new


def write_image(path: Path, picture: Picture, rule: FileRule = AS_THE_INPUT) -> None:
    """Write a picture completely or not at all.

    Args:
        path: The image file. The suffix selects the format. JPEG is lossy.
        picture: The picture.
        rule: How the file is written.

    Raises:
        ImageError: The suffix is not supported, or the format does not support the picture.
        GlamaError: The file cannot be written.
    """
    encoder = check_format(path, picture)
    with atomic_file(path) as temporary, temporary.open("w+b") as file:
        _encode(file, picture, encoder, path, rule.quality)


def encode_image(picture: Picture, encoder: str, name: object, quality: int | None = None) -> bytes:
    """Encode a picture as an image file in memory.

    Args:
        picture: The picture.
        encoder: Pillow's name of the format: PNG, JPEG or WEBP.
        name: Name of the image in error messages.
        quality: The quality of a JPEG or a WebP, from 1 to 100, as in :class:`FileRule`. A PNG is lossless always.

    Returns:
        The bytes of the file.

    Raises:
        ImageError: The format does not support the picture.
    """
    _check_transparency(encoder, picture, name)
    file = io.BytesIO()
    _encode(file, picture, encoder, name, quality)
    return file.getvalue()


def _encode(file: BinaryIO, picture: Picture, encoder: str, name: object, quality: int | None) -> None:
    _note_dropped(picture, encoder)
    metadata = writing.fit_metadata(picture.metadata, encoder)
    pixels = join_channels(picture)
    if encoder not in _DEEP:
        pixels = deep.reduce_depth(pixels)
    try:
        if encoder == "PNG":
            file.write(writing.finish_png(_encode_png(pixels), metadata))
        elif encoder == "TIFF":
            writing.finish_tiff(file, metadata, _save_tiff(file, pixels, metadata))
        else:
            options = writing.make_options(metadata, encoder) | _choose_coding(picture, encoder, quality)
            _make_image(pixels).save(file, format=encoder, **options)
            if encoder == "JPEG":
                writing.finish_jpeg(file, metadata.density)
    except ValueError as error:
        raise ImageError(f"{name}: {encoder} does not support this image ({error}); write a .png") from error


def _note_dropped(picture: Picture, encoder: str) -> None:
    """Log what the format does not hold, each thing once."""
    dropped = [*writing.list_dropped(picture.metadata, encoder), *sorted(picture.metadata.lost)]
    if picture.rgb.dtype != np.uint8 and encoder not in _DEEP:
        dropped.append("more than 8 bits a channel")
    if new := _take_new(encoder, dropped):
        named = " and ".join(filter(None, (", ".join(new[:-1]), new[-1])))
        log.warning("%s outputs do not keep %s of their inputs", "WebP" if encoder == "WEBP" else encoder, named)
    compression = picture.metadata.tiff_compression
    if encoder == "TIFF" and compression not in (None, "tiff_deflate", *_TIFF_COMPRESSIONS):
        _note_once(
            f"TIFF {compression}", f"TIFF outputs are compressed by deflate, not by {compression} like the inputs"
        )


def join_channels(picture: Picture) -> np.ndarray:
    """Return the values of a picture in one array.

    Args:
        picture: The picture.

    Returns:
        H×W×C of the picture's type: gray, gray with alpha, RGB, or RGBA.
    """
    pixels = picture.rgb
    if picture.gray and pixels.dtype == np.uint8:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    elif picture.gray:  # Pillow's weights; equal channels keep their value
        weighted = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        pixels = ((weighted + np.uint32(1 << 15)) >> np.uint32(16)).astype(pixels.dtype)[..., None]
    return pixels if picture.alpha is None else np.dstack([pixels, picture.alpha])


def _make_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels, deep.MODES[pixels.shape[2]])


def _encode_png(pixels: np.ndarray) -> bytes:
    if pixels.dtype != np.uint8:
        return deep.encode_png(pixels, _PNG_LEVEL)
    encoded = io.BytesIO()
    _make_image(pixels).save(encoded, format="PNG", compress_level=_PNG_LEVEL)
    return encoded.getvalue()


def _save_tiff(file: BinaryIO, pixels: np.ndarray, metadata: Metadata) -> dict[int, Entry]:
    """Save a TIFF without metadata, and return the entries of its directory that must change."""
    compression = _choose_compression(metadata.tiff_compression or "raw")
    has_predictor = metadata.tiff_predictor is not None and compression in _WITH_PREDICTOR
    if pixels.dtype == np.uint8:
        tags = {_PREDICTOR_TAG: 2} if has_predictor else {}
        _make_image(pixels).save(file, format="TIFF", compression=compression, tiffinfo=tags)
        return {}
    image, changes = deep.spread_bytes(pixels, has_predictor=has_predictor)
    image.save(file, format="TIFF", compression=compression)
    return changes


def _choose_compression(compression: str) -> str:
    if compression == "tiff_deflate":  # the older number of the same compression
        return _TIFF_DEFLATE
    return compression if compression in _TIFF_COMPRESSIONS else _TIFF_DEFLATE


def _choose_coding(picture: Picture, encoder: str, quality: int | None) -> dict[str, object]:
    """Return Pillow's options for the pixels of a JPEG, WebP or BMP."""
    if encoder == "WEBP":
        return {"lossless": True, "exact": True} if quality is None else {"quality": quality, "exact": True}
    if encoder != "JPEG":
        return {}
    coding = picture.metadata.jpeg
    options: dict[str, object] = {"subsampling": coding.subsampling if coding and not picture.gray else 0}
    if coding is None:
        return {**options, "quality": quality or _JPEG_QUALITY}
    options |= {"progressive": coding.is_progressive, "keep_rgb": coding.is_rgb and not picture.gray}
    tables = coding.tables[:1] if picture.gray else coding.tables
    return {**options, "qtables": tables} if quality is None else {**options, "quality": quality}


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


def choose_suffix(image: Path) -> str:
    """Choose the suffix of an output that keeps the format of its input.

    Args:
        image: The image file.

    Returns:
        The suffix of the image; .png, with a note, if images with the suffix are not written.
    """
    if image.suffix.lower() in SUFFIXES:
        return image.suffix
    _note_once(
        f"suffix {image.suffix.lower()}",
        f"{image.name} becomes a PNG, because images with its suffix are not written; so do others with the suffix",
    )
    return ".png"


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
