"""Read the metadata of a picture file. Damaged metadata are left out with a note, and never refuse a picture."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO, TypeVar

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.TiffImagePlugin import TiffImageFile

from glama_deploy.io.metadata import exif, photoshop, png_chunks, xmp
from glama_deploy.io.metadata.record import Density, JpegCoding, Metadata, Unit
from glama_deploy.io.metadata.tiff_directories import Directory, DirectoryReader, Entry, make_block, read_block

log = logging.getLogger("glama_deploy")

_Made = TypeVar("_Made")

#: Tags of TIFF with metadata of other kinds.
XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, PROFILE_TAG = 0x02BC, 0x83BB, 0x8649, 0x8773
OTHER_KINDS = frozenset((XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, PROFILE_TAG))

#: Tags of TIFF with the density.
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128

#: Tags of TIFF with other pictures.
_PICTURE_TAGS = {0x014A: "sub-images of a TIFF", 0x935C: "Photoshop layers"}

#: The beginnings of segments of a JPEG that are read, or that only describe how the JPEG is stored.
_READ_SEGMENTS = {
    "APP0": (b"JFIF\0", b"JFXX\0"),
    "APP1": (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    "APP2": (b"ICC_PROFILE\0",),
    "APP13": (photoshop.SEGMENT_PREFIX,),
    "APP14": (b"Adobe",),
}

#: Names of segments that are not kept, by their beginnings.
_LOST_SEGMENTS = (
    ("APP1", b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
    ("APP2", b"MPF\0", "further pictures of a JPEG (MPF)"),
    ("APP11", b"JP", "content credentials (JUMBF)"),
)

#: Marks of an XMP packet that describes a video behind the picture.
_VIDEO_MARKS = (b":MotionPhoto", b":MicroVideo")

#: ImageMagick's keywords for EXIF and XMP in a PNG, and the beginning of others.
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_RAW_XMP, _RAW = b"Raw profile type xmp", b"Raw profile"


def read_metadata(image: ImageFile, file: BinaryIO, name: object) -> Metadata:
    """Read the metadata of a picture as they are in the file.

    Args:
        image: the picture, of which only the header is read.
        file: the file of the picture. Its position is kept.
        name: name of the picture in notes.

    Returns:
        The metadata, not yet corrected for an upright and filled picture.
    """
    place = file.tell()
    info = image.info
    profile, block, packet = info.get("icc_profile"), info.get("exif"), info.get("xmp")
    common = Metadata(
        icc_profile=profile or None,
        exif=exif.strip_prefix(block) if block else None,
        xmp=packet if isinstance(packet, bytes) else None,
        density=_make_density(info["dpi"], "inch") if "dpi" in info else None,
        comments=_list_comments(info.get("comment")),
    )
    try:
        if isinstance(image, JpegImageFile):
            return _read_jpeg(image, common, name)
        if isinstance(image, TiffImageFile):
            return _read_tiff(image, file, common, name)
        if image.format == "PNG":
            return _read_png(file, common, name)
        return common
    finally:
        file.seek(place)


def find_orientation(metadata: Metadata, image: ImageFile) -> int:
    """Find the orientation of the pixels of a picture: in its tags, else in its XMP packet.

    Args:
        metadata: the metadata as they are in the file.
        image: the picture. Pillow's reader of TIFF turns the pixels when they are loaded, and removes the tag.

    Returns:
        1 to 8, as EXIF counts orientations. 1: the picture is upright.
    """
    if image.format == "HEIF":  # the reader turns the pixels
        return 1
    if isinstance(image, TiffImageFile):
        found = image.tag_v2.get(exif.ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    if image.format != "AVIF" and metadata.xmp and not exif.has_orientation(metadata.exif or b""):
        return xmp.find_orientation(metadata.xmp)
    return exif.find_orientation(metadata.exif or b"")


def correct_metadata(metadata: Metadata, height: int, width: int, is_turned: bool, name: object) -> Metadata:
    """Correct metadata for an upright and filled picture.

    Args:
        metadata: the metadata as they are in the file.
        height: height of the upright picture in pixels.
        width: width of the upright picture in pixels.
        is_turned: whether rows became columns.
        name: name of the picture in notes.

    Returns:
        The metadata. Damaged parts are left out.
    """
    block = _try(exif.correct_exif, metadata.exif, name, "EXIF data", height, width)
    packet = _try(xmp.correct_xmp, metadata.xmp, name, "XMP data", height, width)
    density, coding = metadata.density, metadata.jpeg
    if is_turned and density is not None:
        density = Density(density.y, density.x, density.unit)
    if is_turned and coding is not None:
        tables = tuple(tuple(table[8 * (n % 8) + n // 8] for n in range(64)) for table in coding.tables)
        coding = replace(coding, tables=tables, subsampling=0 if coding.subsampling == 1 else coding.subsampling)
    lost = metadata.lost
    if metadata.xmp and any(mark in metadata.xmp for mark in _VIDEO_MARKS):
        lost |= {"the video of a motion photo"}
    return replace(metadata, exif=block, xmp=packet, density=density, jpeg=coding, lost=lost)


def _try(correct: Callable[..., _Made], data: bytes | None, name: object, what: str, *arguments: int) -> _Made | None:
    """Return corrected metadata; None, with a note, if the metadata are damaged."""
    if not data:
        return None
    try:
        return correct(data, *arguments)
    except (ValueError, struct.error, IndexError) as error:
        reason = "the bytes are not UTF-8" if isinstance(error, UnicodeError) else error
        log.warning("%s has damaged %s, which are left out: %s", name, what, reason)
        return None


def _list_comments(found: object) -> tuple[bytes, ...]:
    data = found.encode() if isinstance(found, str) else found
    text = data.rstrip(b"\0") if isinstance(data, bytes) else b""
    return (text,) if text else ()


def _make_density(numbers: Sequence[float | Fraction], unit: Unit) -> Density | None:
    """Return the density of two numbers, across and down; None for numbers that say nothing."""
    try:
        across, down = (Fraction(float(value)).limit_denominator(1_000_000) for value in numbers)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    if across <= 0 or down <= 0 or (unit == "ratio" and across == down):
        return None
    return Density(across, down, unit)


def _read_jpeg(image: JpegImageFile, common: Metadata, name: object) -> Metadata:
    units: dict[object, Unit] = {0: "ratio", 1: "inch", 2: "cm"}
    density = None
    if (unit := units.get(image.info.get("jfif_unit"))) is not None:
        density = _make_density(image.info["jfif_density"], unit)
    if density is None and common.exif:
        density = read_density(common.exif)
    resources = b"".join(
        data.removeprefix(photoshop.SEGMENT_PREFIX)
        for kind, data in image.applist
        if kind == "APP13" and data.startswith(photoshop.SEGMENT_PREFIX)
    )
    comments = [data.rstrip(b"\0") for kind, data in image.applist if kind == "COM"]
    return replace(
        common,
        density=density,
        comments=tuple(filter(None, comments)),
        photoshop=_try(photoshop.drop_previews, resources, name, "Photoshop data") or None,
        jpeg=_read_coding(image),
        lost=frozenset(_list_lost_segments(image.applist)),
    )


def _list_lost_segments(segments: Iterable[tuple[str, bytes]]) -> Iterable[str]:
    for kind, data in segments:
        if kind == "COM" or data.startswith(_READ_SEGMENTS.get(kind, ())):
            continue
        known = (title for marker, start, title in _LOST_SEGMENTS if kind == marker and data.startswith(start))
        yield next(known, f"{kind} segments of a JPEG")


def _read_coding(image: JpegImageFile) -> JpegCoding | None:
    tables = [tuple(image.quantization.get(component[3], ())) for component in image.layer]
    if not tables or any(len(table) != 64 for table in tables):
        return None
    while len(tables) > 1 and tables[-1] == tables[-2]:  # the encoder uses the last table for the others, too
        tables.pop()
    names = bytes(component[0] for component in image.layer)
    is_rgb = names == b"RGB" or (len(names) == 3 and image.info.get("adobe_transform") == 0)
    sampling = max(get_sampling(image), 0)
    return JpegCoding(tuple(tables[:3]), sampling, bool(image.info.get("progressive")), is_rgb)


def read_density(block: bytes) -> Density | None:
    """Read the density in an EXIF block.

    Args:
        block: the block, which begins with TIFF's header.

    Returns:
        The density; None if the block has none, or is damaged. A note follows when a damaged block is corrected.
    """
    try:
        return _read_density(read_block(block))
    except ValueError:
        return None


def _read_density(directory: Directory) -> Density | None:
    found = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entry = directory.entries.get(tag)
        if entry is None or entry.kind != 5 or entry.count != 1:
            return None
        numerator, denominator = struct.unpack("<LL", entry.data)
        if not denominator:
            return None
        found.append(Fraction(numerator, denominator))
    unit = directory.entries.get(RESOLUTION_UNIT)
    units: dict[int | None, Unit] = {1: "ratio", 2: "inch", 3: "cm"}
    return _make_density(found, units.get(unit.number if unit else 2, "inch"))


def _read_tiff(image: TiffImageFile, file: BinaryIO, common: Metadata, name: object) -> Metadata:
    compression, predictor = image.info.get("compression"), image.tag_v2.get(0x013D)
    coded = replace(common, tiff_compression=compression, tiff_predictor=predictor if predictor == 2 else None)
    try:
        reader = DirectoryReader(file)
        first = reader.read_directory(image._frame_pos[image.tell()])
    except ValueError as error:
        log.warning("%s has damaged TIFF tags, which are left out: %s", name, error)
        return coded
    if first.is_damaged or first.is_cut_off:
        log.warning("%s has damaged TIFF tags, which are left out", name)
    tags = exif.collect_tags(first, OTHER_KINDS)
    values = {tag: entry.data for tag, entry in first.entries.items()}
    return replace(
        coded,
        exif=make_block(tags) if tags.entries or tags.directories else None,
        xmp=values.get(XMP_TAG),
        density=_read_density(first),
        comments=(),
        photoshop=_try(photoshop.drop_previews, values.get(PHOTOSHOP_TAG), name, "Photoshop data") or None,
        iptc=values.get(IPTC_TAG),
        lost=frozenset(title for tag, title in _PICTURE_TAGS.items() if tag in first.entries),
    )


def _read_png(file: BinaryIO, common: Metadata, name: object) -> Metadata:
    kept, lost = [], set()
    density, block, packet = None, common.exif, common.xmp
    for chunk, checksum in png_chunks.read_chunks(file):
        kind, data = chunk
        keyword = png_chunks.find_keyword(chunk)
        try:
            png_chunks.check_chunk(chunk, checksum)
            if kind == b"pHYs":
                x, y, unit = struct.unpack(">LLB", data)
                density = _make_density((x / 100, y / 100), "cm") if unit == 1 else _make_density((x, y), "ratio")
            elif kind == b"eXIf":
                block = exif.strip_prefix(data)
            elif keyword == png_chunks.XMP_KEYWORD:
                packet = png_chunks.read_text(chunk)
            elif keyword in _RAW_EXIF or keyword == _RAW_XMP:
                raw = _read_raw_profile(png_chunks.read_text(chunk))
                is_xmp = keyword == _RAW_XMP or raw.startswith(b"http://ns.adobe.com/xap/1.0/\0")
                packet = (packet or raw.partition(b"\0")[2] or raw) if is_xmp else packet
                block = block if is_xmp else (block or exif.strip_prefix(raw))
            elif keyword.startswith(_RAW) and not keyword.endswith(b"iptc"):
                lost.add("ImageMagick's raw profiles of a PNG")
            elif kind in (*png_chunks.TEXT, *png_chunks.COLOURS) or (kind[3:].islower() and kind != b"acTL"):
                kept.append(chunk)
            elif kind not in (b"iCCP", b"tRNS", b"bKGD", b"sBIT", b"hIST", b"tIME", b"acTL", b"fcTL", b"sPLT"):
                lost.add("unknown chunks of a PNG")
        except (ValueError, struct.error) as error:
            log.warning("%s has a damaged chunk %s, which is left out: %s", name, kind.decode("latin-1"), error)
    return replace(
        common, exif=block, xmp=packet, density=density, comments=(), chunks=tuple(kept), lost=frozenset(lost)
    )


def _read_raw_profile(text: bytes) -> bytes:
    """Return the bytes of ImageMagick's hexadecimal text: an empty line, the kind, the length, and the digits."""
    lines = text.strip().split(b"\n", 2)
    if len(lines) < 3:
        raise ValueError("it is cut off")
    return bytes.fromhex(lines[2].decode("ascii", "replace"))


def make_entry(kind: int, data: bytes) -> Entry:
    """Make an entry of bytes.

    Args:
        kind: the type of the entry: byte or undefined.
        data: the bytes.

    Returns:
        The entry.
    """
    return Entry(kind, len(data), data)
