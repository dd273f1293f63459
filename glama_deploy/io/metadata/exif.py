"""Correct an EXIF block after a picture was turned upright and filled.

The block is changed in place, because maker notes point to places of their block. The orientation becomes 1, the sizes
become those of the upright picture, and preview pictures are erased: they show the picture before it was filled.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np

from glama_deploy.io.metadata.tiff_directories import (
    EXIF_DIRECTORY,
    LONG,
    SHORT,
    Directory,
    DirectoryReader,
    Entry,
    read_block,
)

#: The bytes before an EXIF block in a JPEG. Some writers put them before blocks of other formats, too.
PREFIX = b"Exif\0\0"

ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003

#: Tags of the second directory: where the preview picture lies, and its bytes.
_PREVIEW_PLACES = {0x0201: 0x0202, 0x0111: 0x0117}

#: The first and the last bytes of a JPEG. Within a block, a JPEG is a preview picture, also in maker notes.
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"

#: Tags that describe how the pixels of a TIFF file are stored. They are not for the pixels of another file.
_STRUCTURE_TAGS = (
    0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0107, 0x0108, 0x0109, 0x010A, 0x0111, 0x0112, 0x0115,
    0x0116, 0x0117, 0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122, 0x0123, 0x0124, 0x0125, 0x012D, 0x013D, 0x0140,
    0x0141, 0x0142, 0x0143, 0x0144, 0x0145, 0x0146, 0x0147, 0x0148, 0x014A, 0x014C, 0x014D, 0x014E, 0x0150, 0x0151,
    0x0152, 0x0153, 0x0154, 0x0155, 0x0156, 0x015B, 0x0200, 0x0201, 0x0202, 0x0203, 0x0205, 0x0206, 0x0207, 0x0208,
    0x0209, 0x0211, 0x0212, 0x0213, 0x0214, 0x1001, 0x1002, 0x80E5, 0x87AC, 0x935C,
)  # fmt: skip
STRUCTURE = frozenset(_STRUCTURE_TAGS)


def strip_prefix(block: bytes) -> bytes:
    """Return an EXIF block that begins with TIFF's header.

    Args:
        block: the block, with or without the bytes that JPEG has before it.

    Returns:
        The block without them.
    """
    return block.removeprefix(PREFIX)


def find_orientation(block: bytes) -> int:
    """Find the orientation in an EXIF block.

    Args:
        block: the block, which begins with TIFF's header.

    Returns:
        1 to 8; 1 if the block has no orientation, or is damaged.
    """
    try:
        entry = read_block(block).entries.get(ORIENTATION)
    except ValueError:
        return 1
    number = entry.number if entry is not None else None
    return number if number is not None and 1 <= number <= 8 else 1


def has_orientation(block: bytes) -> bool:
    """Tell whether an EXIF block has an orientation.

    Args:
        block: the block, which begins with TIFF's header.

    Returns:
        Whether it has. A damaged block has none.
    """
    try:
        return ORIENTATION in read_block(block).entries
    except ValueError:
        return False


def correct_exif(block: bytes, height: int, width: int) -> bytes:
    """Correct an EXIF block for an upright and filled picture.

    Args:
        block: the block, which begins with TIFF's header.
        height: height of the upright picture in pixels.
        width: width of the upright picture in pixels.

    Returns:
        The block. All but orientation, sizes and previews is at its place.

    Raises:
        ValueError: the block is damaged.
    """
    reader = DirectoryReader(io.BytesIO(block))
    if reader.is_big:
        raise ValueError("it is a BigTIFF")
    first = reader.read_directory(reader.first)
    if first.is_cut_off:
        raise ValueError("its first directory is cut off")
    data = bytearray(block)
    within = first.directories.get(EXIF_DIRECTORY, Directory())
    for directory, tag, value in (
        (first, ORIENTATION, 1),
        (first, _WIDTH, width),
        (first, _HEIGHT, height),
        (within, _EXIF_WIDTH, width),
        (within, _EXIF_HEIGHT, height),
    ):
        _set_number(data, reader.order, directory.entries.get(tag), value)
    if first.next_offset:
        struct.pack_into(reader.order + "L", data, first.next_place, 0)
        _erase_second_directory(data, reader, first.next_offset)
    _erase_pictures(data)
    return bytes(data)


def _set_number(data: bytearray, order: str, entry: Entry | None, value: int) -> None:
    if entry is not None and entry.count == 1 and entry.kind in (SHORT, LONG):
        struct.pack_into(order + ("H" if entry.kind == SHORT else "L"), data, entry.place, value)


def _erase_pictures(data: bytearray) -> None:
    start = data.find(_JPEG_START)
    while start >= 0 and (end := data.find(_JPEG_END, start)) >= 0:
        data[start : end + len(_JPEG_END)] = bytes(end + len(_JPEG_END) - start)
        start = data.find(_JPEG_START, end)


def _erase_second_directory(data: bytearray, reader: DirectoryReader, offset: int) -> None:
    """Erase the directory that describes the preview picture, and the picture. At the end, the block is cut."""
    try:
        second = reader.read_directory(offset)
    except ValueError:  # nothing points there any more
        return
    for place_tag, length_tag in _PREVIEW_PLACES.items():
        places, lengths = (_read_numbers(second.entries.get(tag)) for tag in (place_tag, length_tag))
        for place, length in zip(places, lengths, strict=False):
            data[place : place + length] = bytes(len(data[place : place + length]))
            if place + length >= len(data) - 1 and place > second.next_place + 4:
                del data[place:]
    data[offset : second.next_place + 4] = bytes(second.next_place + 4 - offset)


def _read_numbers(entry: Entry | None) -> list[int]:
    if entry is None or entry.kind not in (SHORT, LONG):
        return []
    return np.frombuffer(entry.data, "<u2" if entry.kind == SHORT else "<u4").tolist()


def collect_tags(directory: Directory, others: frozenset[int] = frozenset()) -> Directory:
    """Return the tags of a TIFF file or an EXIF block that describe a picture, and not how its pixels are stored.

    Args:
        directory: the first directory of the file or block.
        others: further tags to leave out.

    Returns:
        The directory with these tags.
    """
    kept = {tag: entry for tag, entry in directory.entries.items() if tag not in STRUCTURE | others}
    return replace(directory, entries=kept)
