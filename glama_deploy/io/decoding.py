"""Decode image files. The format is identified by content, and the size is checked before pixels are decoded.

Pillow's limit of 178.9 megapixels does not apply: sides up to MAX_SIDE are decoded if enough memory is free. Decoders
that run other programs (Ghostscript) are never used.
"""

from __future__ import annotations

import codecs
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, PngImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from glama_deploy import memory
from glama_deploy.errors import ImageError, MemoryShortageError
from glama_deploy.io import deep
from glama_deploy.io.files import check_path
from glama_deploy.io.metadata.photoshop import cut_segments
from glama_deploy.io.metadata.png_chunks import cut_damaged_chunks
from glama_deploy.io.metadata.reading import find_orientation, read_metadata
from glama_deploy.io.pipes import PipedFile, Source
from glama_deploy.network import MAX_SIDE

log = logging.getLogger("glama_deploy")

#: What Pillow's errors of too much text or colour profile name.
_MAX_TEXT = "MAX_TEXT"

#: Supported modes of Pillow: they are used directly or converted without loss.
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}


class _PngFile(PngImagePlugin.PngImageFile):
    """A PNG file. Damaged chunks behind the pixels do not refuse the picture; `read_metadata` names them."""

    def load_end(self) -> None:
        """Read the chunks behind the pixels."""
        try:
            super().load_end()
        except (SyntaxError, ValueError) as error:
            if self.is_animated or _MAX_TEXT in str(error):
                raise


#: Supported formats: Pillow's reader, and the first bytes of a file. Of a JPEG with several pictures (MPO, from phones
#: with two lenses) the first picture is read.
_READERS: tuple[tuple[type[ImageFile], tuple[bytes, ...]], ...] = (
    (_PngFile, (b"\x89PNG\r\n\x1a\n",)),
    (JpegImageFile, (b"\xff\xd8\xff",)),
    (WebPImageFile, (b"RIFF",)),
    (BmpImageFile, (b"BM",)),
    (TiffImageFile, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)

#: The end of messages about formats.
EXPECTED = "a PNG, JPEG, WebP, BMP or TIFF is expected"

#: Formats that only pictures may have, and not masks: the module and the class of the reader, which are imported when
#: such a picture comes. `pillow_heif` is a package of its own.
_FURTHER_READERS = {
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "JPEG 2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}

#: Suffixes of files of these formats.
FURTHER_SUFFIXES = frozenset((".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif", ".heic", ".heif"))

#: Formats that are not supported, or not everywhere, by the first bytes of a file.
_OTHER_KINDS = (
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    ("JPEG XL", (b"\0\0\0\x0cJXL ", b"\xff\x0a")),
    ("Photoshop (PSD)", (b"8BPS",)),
    ("PDF", (b"%PDF",)),
    ("PostScript", (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("SVG", (b"<svg", b"<?xml")),
    ("web page (HTML)", (b"<!doctype html", b"<html")),
    ("Git LFS pointer", (b"version https://git-lfs",)),
    ("ICO", (b"\0\0\1\0",)),
    ("OpenEXR", (b"\x76\x2f\x31\x01",)),
    ("Radiance HDR", (b"#?radiance",)),
    ("PNM", (b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"P7\n")),
    ("QOI", (b"qoif",)),
)

#: Image formats that are not supported, by the brand of the ISO container (ISO/IEC 23008-12).
_BRANDS = (("AVIF", (b"avif", b"avis")), ("HEIC", (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")))

#: How an image of an EXIF orientation is turned upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Number of first bytes that are read to identify the format.
_HEAD_BYTES = 64

#: Number of first bytes in which the boxes of AVIF, HEIC and JPEG 2000 are searched.
_BOX_BYTES = 1 << 16

#: Upper bound of the memory for decoding, in bytes for each pixel: Pillow's image, its conversion, and the arrays. 8 to
#: 16 bytes were measured, 16 for gray with alpha. A progressive JPEG also needs memory for its coefficients.
DECODED_BYTES = 20

#: The same for 16 bits a channel: the file, its values, and the arrays have at most 8 bytes for each pixel.
_DEEP_DECODED_BYTES = 32

#: Upper bound of the text and of the colour profile of a PNG, in bytes. (Pillow's own bound is 1 MB.)
_PNG_TEXT_BYTES = 64 << 20
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, _PNG_TEXT_BYTES)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, _PNG_TEXT_BYTES)

#: Exceptions that Pillow raises for damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


def read_size(path: Source, *, further: bool = False, frame: int | None = None) -> tuple[int, int]:
    """Read the size of an image without decoding its pixels.

    Args:
        path: The image file.
        further: Whether the formats are supported that only pictures may have.
        frame: Number of the frame, from 0; None for the first frame, also of several.

    Returns:
        (height, width) in the file's header, before EXIF orientation is applied.

    Raises:
        ImageError: The file is missing, damaged, or its format is not supported.
    """
    with readable(path) as file, parsed(file, path, further=further) as image:
        if frame is not None and isinstance(image, TiffImageFile):  # whose pages have sizes of their own
            choose_frame(image, path, frame)
        return image.height, image.width


def read_upright_size(path: Source) -> tuple[int, int]:
    """Read the size that an image of one frame has once it is read, without decoding its pixels.

    Args:
        path: The image file, of any format that pictures may have.

    Returns:
        (height, width) after EXIF orientation is applied.

    Raises:
        ImageError: The file is missing, damaged, or its format is not supported.
    """
    with readable(path) as file, parsed(file, path, further=True) as image:
        if isinstance(image, TiffImageFile):  # whose reader has turned the size
            return image.height, image.width
        is_turned = find_orientation(read_metadata(image, file, path), image) >= 5
        return (image.width, image.height) if is_turned else (image.height, image.width)


def parse_size(file: BinaryIO, name: object) -> tuple[int, int]:
    """Read the size of an open image file without decoding its pixels.

    Args:
        file: The file, open for reading in binary mode. The file is not closed.
        name: Name of the file in error messages.

    Returns:
        (height, width) in the file's header, before EXIF orientation is applied.

    Raises:
        ImageError: The file is damaged, or its format is not supported.
    """
    file.seek(0)
    with parsed(file, name) as image:
        return image.height, image.width


def identify_format(head: bytes) -> str | None:
    """Identify a supported format by the first bytes of a file.

    Args:
        head: The first bytes of the file, 12 at least if the file has so many.

    Returns:
        Pillow's name of the format: PNG, JPEG, WEBP, BMP or TIFF. None for other formats.
    """
    reader = next((reader for reader, starts in _READERS if head.startswith(starts)), None)
    if reader is None or (reader is WebPImageFile and head[8:12] != b"WEBP"):
        return None
    return reader.format


def decode_file(path: Source) -> Image.Image:
    """Decode an image file.

    Args:
        path: The image file.

    Returns:
        The decoded image, with EXIF orientation applied.

    Raises:
        ImageError: The file is missing, damaged, too large, or its format is not supported.
    """
    with readable(path) as file:
        return decode(file, path)


def decode(file: BinaryIO, name: object) -> Image.Image:
    """Decode an open image file.

    Args:
        file: The file, open for reading in binary mode. The file is not closed.
        name: Name of the file in error messages.

    Returns:
        The decoded image, with EXIF orientation applied.

    Raises:
        ImageError: The file is damaged, too large, or its format is not supported.
    """
    file.seek(0)
    with parsed(file, name) as image:
        check_size(image, name)
        check_frames(image, name)
        check_mode(image, name)
        image.load()
        metadata = read_metadata(image, file, name)
        return turn_upright(image, find_orientation(metadata, image))


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright.

    Args:
        image: The image.
        orientation: The orientation as EXIF counts orientations, 1 to 8.

    Returns:
        The upright image; the same image if it is upright.
    """
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


@contextmanager
def readable(path: Source) -> Iterator[BinaryIO]:
    """Open an image file for reading.

    Args:
        path: The image file.

    Yields:
        The open file.

    Raises:
        ImageError: The file is missing or cannot be read.
    """
    if isinstance(path, PipedFile):
        yield path.open()
        return
    check_path(path)
    if not path.is_file():
        raise ImageError(f"no image at {path}; check the path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    with file:
        yield file


@contextmanager
def parsed(file: BinaryIO, name: object, *, further: bool = False) -> Iterator[ImageFile]:
    """Read only the header of an image. Pillow's exceptions in the block become an ImageError.

    Args:
        file: The file, open for reading in binary mode.
        name: Name of the file in error messages.
        further: Whether the formats are supported that only pictures may have.

    Yields:
        The image.

    Raises:
        ImageError: The file is damaged, or its format is not supported.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    reader = _find_reader(head, name, further)
    try:
        yield _read_header(reader, file, name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: Pillow's {reader.format} decoder does not support so many pixels ({error}); convert the file to "
            f"PNG, which may have {MAX_SIDE}x{MAX_SIDE} pixels"
        ) from error
    except MemoryError as error:
        raise MemoryShortageError(f"{name} needs more memory than is free; scale the image down first") from error
    except _DAMAGED as error:
        if _MAX_TEXT in str(error):
            raise ImageError(
                f"{name} has more than {_PNG_TEXT_BYTES >> 20} MB of text or colour profile; remove the metadata first"
            ) from error
        raise ImageError(f"{name} is not a supported image, or is damaged ({error}); {EXPECTED}") from error


def _read_header(reader: type[ImageFile], file: BinaryIO, name: object) -> ImageFile:
    """Return an image with only its header read, without damaged Photoshop data of a JPEG and chunks of a PNG.

    A note names the Photoshop data. `read_metadata` names the chunks.
    """
    try:
        return reader(file, "")
    except (SyntaxError, ValueError) as error:
        # in Pillow's parser of Photoshop data the cause is an IndexError
        is_photoshop = reader is JpegImageFile and isinstance(error.__cause__, IndexError)
        if not is_photoshop and (reader is not _PngFile or _MAX_TEXT in str(error)):
            raise
    file.seek(0)
    if not is_photoshop:
        return reader(io.BytesIO(cut_damaged_chunks(file.read())), "")
    image = reader(io.BytesIO(cut_segments(file.read())), "")
    log.warning("%s has damaged Photoshop data, which are left out", name)
    return image


def _find_reader(head: bytes, name: object, further: bool) -> type[ImageFile]:
    """Return Pillow's reader of a file by its first bytes."""
    format_name = identify_format(head)
    if format_name is not None:
        return next(reader for reader, _ in _READERS if reader.format == format_name)
    kind = _kind(head) if head else None
    if not further or kind not in _FURTHER_READERS:
        raise ImageError(_refusal(head, name))
    module, reader_name = _FURTHER_READERS[kind]
    plugin = deep.require(module, f"{name} is a {kind}, and the reader of this format")
    reader: type[ImageFile] = getattr(plugin, reader_name)
    return reader


def _refusal(head: bytes, name: object) -> str:
    """Return the message for a file whose first bytes do not belong to a supported format."""
    if not head:
        return f"{name} is not a supported image, or is damaged (the file is empty); {EXPECTED}"
    kind = _kind(head)
    if kind is None:
        return f"{name} is not a supported image, or is damaged (its first bytes are of no known format); {EXPECTED}"
    return f"{name}: format not supported: {kind}; {EXPECTED}: convert the file first"


def _kind(head: bytes) -> str | None:
    """Return the name of a known format that is not supported, by the first bytes of a file, or None."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, len(head), 4))}
        return next((kind for kind, names in _BRANDS if brands & set(names)), None)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for kind, starts in _OTHER_KINDS:
        if head.startswith(starts) or (starts[0].isascii() and text.startswith(starts)):
            return kind
    return None


def check_size(image: ImageFile, name: object) -> None:
    """Check that an image has not too many pixels.

    Args:
        image: The image, of which only the header is read.
        name: Name of the image in error messages.

    Raises:
        ImageError: The image has too many pixels, or needs more memory than is free.
    """
    height, width = image.height, image.width
    if height * width > MAX_SIDE**2:
        raise ImageError(
            f"{name} is {height}x{width}; at most {MAX_SIDE}x{MAX_SIDE} pixels are supported: scale or crop the image"
        )
    pixel_bytes = _DEEP_DECODED_BYTES if deep.is_deep(image) else DECODED_BYTES
    memory.check(pixel_bytes * height * width, f"{name} is {height}x{width}", "scale the image down or crop it")


def check_frames(image: ImageFile, name: object) -> None:
    """Check that an image has one frame.

    Args:
        image: The image, of which only the header is read.
        name: Name of the image in error messages.

    Raises:
        ImageError: The image has several frames.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(f"{name} has {frames} frames; split the file into single images first")


def choose_frame(image: ImageFile, name: object, frame: int | None) -> None:
    """Choose a frame of an image.

    Args:
        image: The image, of which only the header is read.
        name: Name of the image in error messages.
        frame: Number of the frame, from 0; None for the only frame.

    Raises:
        ImageError: The image has several frames and none is chosen, or does not have the frame.
    """
    frames = getattr(image, "n_frames", 1)
    if frame is None and frames > 1:
        raise ImageError(
            f"{name} has {frames} frames; set `frame` to one of 0 to {frames - 1}, or split the file into single images"
        )
    if frame is not None and frame >= frames:
        count = "1 frame, 0" if frames == 1 else f"{frames} frames, 0 to {frames - 1}"
        raise ImageError(f"`frame` is {frame}, and {name} has {count}")
    if frame:
        image.seek(frame)


def check_mode(image: ImageFile, name: object, more: frozenset[str] = frozenset()) -> None:
    """Check that the values of an image are supported.

    Args:
        image: The image, of which only the header is read.
        name: Name of the image in error messages.
        more: Modes of Pillow that are supported, too.

    Raises:
        ImageError: The known pixels could not be written back bit-exact.
    """
    raw_modes = {str(tile[3]) for tile in image.tile}
    if image.mode not in _MODES | more or any(";16" in raw for raw in raw_modes):
        kind = "16 bits a channel" if any("16" in raw for raw in raw_modes) else f"mode {image.mode}"
        raise ImageError(
            f"{name} is an image of {kind}; 8-bit gray, RGB, RGBA or palette is expected: convert the image first"
        )
    alphas = image.info.get("transparency")
    if image.mode == "P" and isinstance(alphas, bytes) and image.palette is not None and image.format == "PNG":
        colours = len(image.palette.palette) // len(image.palette.mode)
        if len(alphas) > colours:
            raise ImageError(
                f"{name} has transparency for {len(alphas)} colours, but a palette of {colours}; save the image as RGBA"
            )


def find_channel_bits(image: ImageFile, file: BinaryIO) -> int:
    """Find the bits of a channel in a format whose readers of Pillow give 8 bits whatever the file has.

    Args:
        image: The image.
        file: The file of the image. Its position is kept.

    Returns:
        The bits of a channel; 8 for other formats.
    """
    place = file.tell()
    file.seek(0)
    head = file.read(_BOX_BYTES)
    file.seek(place)
    if image.format in ("AVIF", "HEIF"):  # the property box: version, flags, number of channels, bits of each
        found = head.find(b"pixi")
        return head[found + 9] if 0 <= found < len(head) - 9 else 8
    if image.format == "JPEG2000":  # the segment SIZ: 38 bytes before the bits of the first channel
        found = head.find(b"\xff\x4f\xff\x51")
        return (head[found + 42] & 0x7F) + 1 if 0 <= found < len(head) - 42 else 8
    return 8
