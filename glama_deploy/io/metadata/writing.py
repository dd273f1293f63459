"""Write the metadata of a picture into a file, as far as the file's format holds them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

from glama_deploy.io.metadata import exif, photoshop, png_chunks
from glama_deploy.io.metadata.png_chunks import COLOURS, TEXT, Chunk
from glama_deploy.io.metadata.reading import (
    IPTC_TAG,
    PHOTOSHOP_TAG,
    PROFILE_TAG,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP_TAG,
    Y_RESOLUTION,
    make_entry,
    read_density,
)
from glama_deploy.io.metadata.record import Density, Metadata
from glama_deploy.io.metadata.tiff_directories import (
    ASCII,
    BYTE,
    SHORT,
    UNDEFINED,
    Directory,
    DirectoryReader,
    Entry,
    make_directory,
    read_block,
)

#: Bytes of a JPEG's segment behind its length.
_SEGMENT_BYTES = 65533

_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"

#: Upper bounds in bytes of what a JPEG holds. A colour profile may have 255 segments.
_JPEG_BOUNDS = {
    "EXIF": _SEGMENT_BYTES - len(exif.PREFIX),
    "XMP": _SEGMENT_BYTES - len(_XMP_PREFIX),
    "comments": _SEGMENT_BYTES,
    "the colour profile": 255 * (_SEGMENT_BYTES - 14),
}

#: The number of rationals is limited to this denominator.
_RATIONAL_TYPE = 5

#: What the files of each format hold.
_HOLDS = {
    "PNG": {"EXIF", "XMP", "the colour profile", "the resolution", "comments", "PNG text", "PNG colour chunks"},
    "JPEG": {"EXIF", "XMP", "the colour profile", "the resolution", "comments", "captions (IPTC)"},
    "WEBP": {"EXIF", "XMP", "the colour profile"},
    "TIFF": {"EXIF", "XMP", "the colour profile", "the resolution", "comments", "captions (IPTC)"},
    "BMP": {"the resolution"},
}

#: A PNG whose values are sRGB's may say so; other formats mean sRGB anyway.
_SRGB_GAMMA = range(45000, 46000)


def list_dropped(metadata: Metadata, encoder: str) -> list[str]:
    """List the metadata that a format does not hold.

    Args:
        metadata: the metadata.
        encoder: Pillow's name of the format.

    Returns:
        Names for people, in a fixed order.
    """
    sizes = {
        "EXIF": len(metadata.exif or b""),
        "XMP": len(metadata.xmp or b""),
        "the colour profile": len(metadata.icc_profile or b""),
        "the resolution": 0 if metadata.density is None else 1,
        "comments": max(map(len, _find_comments(metadata)), default=0),
        "captions (IPTC)": len(metadata.photoshop or metadata.iptc or b""),
        "PNG text": sum(chunk[0] in TEXT and not _is_comment(chunk) for chunk in metadata.chunks),
        "PNG colour chunks": int(_has_own_colours(metadata.chunks)),
    }
    holds = _HOLDS[encoder]
    if encoder == "WEBP" and metadata.exif and read_density(metadata.exif) == metadata.density:
        holds = holds | {"the resolution"}
    too_large = {name for name, bound in _JPEG_BOUNDS.items() if encoder == "JPEG" and sizes[name] > bound}
    return [name for name, size in sizes.items() if size and (name not in holds or name in too_large)]


def fit_metadata(metadata: Metadata, encoder: str) -> Metadata:
    """Return the metadata that a format holds.

    Args:
        metadata: the metadata.
        encoder: Pillow's name of the format.

    Returns:
        The metadata without the others.
    """
    dropped = list_dropped(metadata, encoder)
    comments = () if "comments" in dropped else tuple(_find_comments(metadata))
    return replace(
        metadata,
        exif=None if "EXIF" in dropped else metadata.exif,
        xmp=None if "XMP" in dropped else metadata.xmp,
        icc_profile=None if "the colour profile" in dropped else metadata.icc_profile,
        comments=metadata.comments if encoder == "PNG" else comments,
        lost=frozenset(),
    )


def _is_comment(chunk: Chunk) -> bool:
    return png_chunks.find_keyword(chunk) == b"Comment"


def _find_comments(metadata: Metadata) -> Iterable[bytes]:
    yield from metadata.comments
    for chunk in filter(_is_comment, metadata.chunks):
        try:
            yield png_chunks.read_text(chunk)
        except ValueError:
            continue


def _has_own_colours(chunks: Iterable[Chunk]) -> bool:
    """Return whether chunks say that colours are not sRGB's."""
    found = {kind: data for kind, data in chunks if kind in COLOURS}
    if not found or b"sRGB" in found:
        return False
    gamma = int.from_bytes(found.get(b"gAMA", b""), "big")
    return bool(found.keys() - {b"gAMA"}) or gamma not in _SRGB_GAMMA


def make_options(metadata: Metadata, encoder: str) -> dict[str, object]:
    """Make the options with which Pillow writes metadata. The other functions of this module write the others.

    Args:
        metadata: the metadata that the format holds.
        encoder: Pillow's name of the format: JPEG, WEBP or BMP. Others have no options.

    Returns:
        The options.
    """
    options: dict[str, object] = {}
    if encoder == "BMP" and metadata.density is not None and metadata.density.unit != "ratio":
        options["dpi"] = metadata.density.per_inch
    if encoder in ("JPEG", "WEBP"):
        if metadata.icc_profile:
            options["icc_profile"] = metadata.icc_profile
        if metadata.exif:
            options["exif"] = exif.PREFIX + metadata.exif
    if encoder == "WEBP" and metadata.xmp:
        options["xmp"] = metadata.xmp
    if encoder == "JPEG":
        options["extra"] = b"".join(_make_segments(metadata))
    return options


def _make_segments(metadata: Metadata) -> Iterable[bytes]:
    """Make the segments of a JPEG that Pillow does not make in all versions."""
    if metadata.xmp:
        yield _make_segment(0xE1, _XMP_PREFIX + metadata.xmp)
    resources = metadata.photoshop or b""
    if metadata.iptc and not resources:
        size = struct.pack(">L", len(metadata.iptc))
        resources = b"8BIM\x04\x04\0\0" + size + metadata.iptc + bytes(len(metadata.iptc) % 2)
    step = _SEGMENT_BYTES - len(photoshop.SEGMENT_PREFIX)
    for start in range(0, len(resources), step):
        yield _make_segment(0xED, photoshop.SEGMENT_PREFIX + resources[start : start + step])
    for comment in metadata.comments:
        yield _make_segment(0xFE, comment)


def _make_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def finish_jpeg(file: BinaryIO, density: Density | None) -> None:
    """Write the density of a picture into the JFIF header of a JPEG.

    Args:
        file: the JPEG, open for reading and writing.
        density: the density.
    """
    file.seek(0)
    if density is None or file.read(11)[6:] != b"JFIF\0":
        return
    numbers: tuple[float, float] = float(density.x), float(density.y)
    unit = {"ratio": 0, "inch": 1, "cm": 2}[density.unit]
    if unit == 2 and any(number != round(number) for number in numbers):
        numbers, unit = density.per_inch, 1
    x, y = (min(max(1, round(number)), 65535) for number in numbers)
    file.seek(13)
    file.write(struct.pack(">BHH", unit, x, y))


def finish_png(png: bytes, metadata: Metadata) -> bytes:
    """Put metadata into a PNG.

    Args:
        png: the file.
        metadata: the metadata.

    Returns:
        The file with its metadata.
    """
    colours = [chunk for chunk in metadata.chunks if chunk[0] in COLOURS]
    others = [chunk for chunk in metadata.chunks if chunk[0] not in COLOURS]
    made: list[Chunk] = []
    if metadata.icc_profile:
        made.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.density is not None:
        made.append((b"pHYs", _make_physical_size(metadata.density)))
    if metadata.exif:
        made.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        made.append((b"iTXt", png_chunks.XMP_KEYWORD + bytes(5) + metadata.xmp))
    made += [png_chunks.make_text(b"Comment", comment) for comment in metadata.comments]
    return png_chunks.insert_chunks(png, [*colours, *made, *others])


def _make_physical_size(density: Density) -> bytes:
    if density.unit == "ratio":
        return struct.pack(">LLB", round(density.x), round(density.y), 0)
    per_metre = 100 if density.unit == "cm" else 100 / Fraction("2.54")
    return struct.pack(">LLB", round(density.x * per_metre), round(density.y * per_metre), 1)


def finish_tiff(file: BinaryIO, metadata: Metadata, changes: dict[int, Entry]) -> None:
    """Put metadata into a TIFF file, by a new directory at its end.

    Args:
        file: the file, open for reading and writing.
        metadata: the metadata.
        changes: further entries of the directory.
    """
    written = DirectoryReader(file).read_directory(_read_first(file))
    described = Directory()
    if metadata.exif:
        described = exif.collect_tags(read_block(metadata.exif), frozenset((PROFILE_TAG, XMP_TAG)))
    added: dict[int, Entry] = {}
    for tag, kind, data in (
        (PROFILE_TAG, UNDEFINED, metadata.icc_profile),
        (XMP_TAG, BYTE, metadata.xmp),
        (PHOTOSHOP_TAG, BYTE, metadata.photoshop),
        (IPTC_TAG, UNDEFINED, metadata.iptc),
    ):
        if data:
            added[tag] = make_entry(kind, data)
    if metadata.comments:
        added[0x010E] = make_entry(ASCII, b"\n".join(metadata.comments) + b"\0")
    if metadata.density is not None:
        added |= _make_density_entries(metadata.density)
    entries = described.entries | written.entries | added | changes
    file.seek(0, io.SEEK_END)
    end = file.tell() + file.tell() % 2
    file.seek(end)
    file.write(make_directory(Directory(entries, described.directories), end))
    file.seek(4)
    file.write(struct.pack("<L", end))


def _read_first(file: BinaryIO) -> int:
    return DirectoryReader(file).first


def _make_density_entries(density: Density) -> dict[int, Entry]:
    units = {"ratio": 1, "inch": 2, "cm": 3}
    entries = {RESOLUTION_UNIT: Entry(SHORT, 1, struct.pack("<H", units[density.unit]))}
    for tag, number in ((X_RESOLUTION, density.x), (Y_RESOLUTION, density.y)):
        ratio = struct.pack("<LL", number.numerator, number.denominator)
        entries[tag] = Entry(_RATIONAL_TYPE, 1, ratio)
    return entries
