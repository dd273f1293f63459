"""Read and write the directories of TIFF files and EXIF blocks. Both have one structure (TIFF 6.0, section 2).

Pillow rewrites directories, too. Pillow does not write EXIF into compressed TIFF files, and moves the data that maker
notes point to. Here, directories are read with the places of their values, so that a value can be changed in place.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

#: Tags whose values point to directories: EXIF, GPS, interoperability.
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY = 0x8769, 0x8825, 0xA005
_POINTERS = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY)

#: Bytes of one number of each type, and the numbers of one value. A rational has two.
_NUMBERS = {
    1: (1, 1), 2: (1, 1), 3: (2, 1), 4: (4, 1), 5: (4, 2), 6: (1, 1), 7: (1, 1), 8: (2, 1), 9: (4, 1), 10: (4, 2),
    11: (4, 1), 12: (8, 1), 13: (4, 1), 16: (8, 1), 17: (8, 1), 18: (8, 1),
}  # fmt: skip

#: Types of 64 bits, which only BigTIFF has, and the types of 32 bits in their place.
_NARROWER = {16: 4, 17: 9, 18: 13}

#: The types of whole numbers without a sign: byte, short, long, and BigTIFF's.
BYTE, ASCII, SHORT, LONG, UNDEFINED = 1, 2, 3, 4, 7

#: Directories within directories are read to this depth.
_MAX_DEPTH = 3

#: The greatest number of tags in a directory of TIFF.
_MAX_TAGS = 65535

#: Upper bound of the values of one file, in bytes.
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Entry:
    """The value of a tag.

    Attributes:
        kind: the type of the numbers.
        count: the number of values.
        data: the values, little-endian.
        place: where the value lies in the file, in bytes from its start.
    """

    kind: int
    count: int
    data: bytes
    place: int = 0

    @property
    def number(self) -> int | None:
        """The value, if the value is one whole number without a sign."""
        if self.count != 1 or self.kind not in (BYTE, SHORT, LONG):
            return None
        return int.from_bytes(self.data, "little")


@dataclass
class Directory:
    """The tags of a directory.

    Attributes:
        entries: the values by their tags.
        directories: the directories within this directory, by the tags that point to them.
        next_place: where the pointer to the next directory lies.
        next_offset: where the next directory begins; 0 if this is the last.
        is_damaged: whether tags were left out because their values are damaged.
        is_cut_off: whether the file ends before the directory does.
    """

    entries: dict[int, Entry] = field(default_factory=dict)
    directories: dict[int, Directory] = field(default_factory=dict)
    next_place: int = 0
    next_offset: int = 0
    is_damaged: bool = False
    is_cut_off: bool = False


class DirectoryReader:
    """Reads the directories of one TIFF file or EXIF block."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Args:
            file: the file or block, open for reading in binary mode.

        Raises:
            ValueError: the header is not TIFF's.
        """
        self._file = file
        self._left = _MAX_BYTES
        head = self._read(0, 16, at_least=8)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        self.is_big = bool(self.order) and self.unpack("H", head[2:4]) == 43
        if not self.order or self.unpack("H", head[2:4]) not in (42, 43) or (self.is_big and len(head) < 16):
            raise ValueError("its header is damaged")
        self.first = self.unpack("Q", head[8:16]) if self.is_big else self.unpack("L", head[4:8])

    def unpack(self, code: str, data: bytes) -> int:
        """Return a number of a file.

        Args:
            code: the type of the number, as `struct` names it.
            data: the bytes of the number.

        Returns:
            The number.
        """
        return int(struct.unpack(self.order + code, data)[0])

    def read_directory(self, offset: int, depth: int = _MAX_DEPTH) -> Directory:
        """Read a directory, and the directories that its tags point to.

        Args:
            offset: where the directory begins.
            depth: how deep directories within directories are read.

        Returns:
            The directory. Tags with damaged values, and tags behind the end of the file, are left out.

        Raises:
            ValueError: the directory lies behind the end of the file.
        """
        counter, width, pointer = (8, 20, "Q") if self.is_big else (2, 12, "L")
        count = self.unpack("Q" if self.is_big else "H", self._read(offset, counter))
        count = min(count, _MAX_TAGS)
        table = self._read(offset + counter, count * width, at_least=0)
        found = Directory(next_place=offset + counter + count * width)
        ending = self._read(found.next_place, width - counter, at_least=0)[: struct.calcsize("=" + pointer)]
        found.next_offset = self.unpack(pointer, ending) if len(ending) == struct.calcsize("=" + pointer) else 0
        found.is_cut_off = len(table) < count * width
        for start in range(0, len(table) - width + 1, width):
            tag = self.unpack("H", table[start : start + 2])
            try:
                entry = self._read_entry(table[start : start + width], offset + counter + start)
                if tag in _POINTERS:
                    target = entry.number
                    if target is None or not depth:
                        raise ValueError("a pointer is damaged")
                    found.directories[tag] = self.read_directory(target, depth - 1)
            except ValueError:
                found.is_damaged = True
                continue
            found.entries[tag] = entry
        found.is_damaged |= any(each.is_damaged for each in found.directories.values())
        return found

    def _read_entry(self, row: bytes, place: int) -> Entry:
        kind = self.unpack("H", row[2:4])
        count = self.unpack("Q", row[4:12]) if self.is_big else self.unpack("L", row[4:8])
        if kind not in _NUMBERS:
            raise ValueError(f"type {kind} is unknown")
        width, numbers = _NUMBERS[kind]
        size, inline = width * numbers * count, row[12:] if self.is_big else row[8:]
        if size <= len(inline):
            data, place = inline[:size], place + len(row) - len(inline)
        else:
            place = self.unpack("Q" if self.is_big else "L", inline)
            data = self._read(place, size)
        if width > 1:
            values = np.frombuffer(data, f"{self.order}u{width}")
            if kind in _NARROWER:
                if len(values) and int(values.max()) >= 1 << 32:
                    raise ValueError("a number has more than 32 bits")
                kind, width = _NARROWER[kind], 4
            data = values.astype(f"<u{width}").tobytes()
        return Entry(kind, count, data, place)

    def _read(self, offset: int, size: int, at_least: int | None = None) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError("its directories are too large")
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except (OSError, OverflowError) as error:
            raise ValueError("it is cut off") from error
        if len(data) < (size if at_least is None else at_least):
            raise ValueError("it is cut off")
        return data


def read_block(block: bytes) -> Directory:
    """Read the first directory of an EXIF block.

    Args:
        block: the block, which begins with TIFF's header.

    Returns:
        The directory.

    Raises:
        ValueError: the block is damaged.
    """
    reader = DirectoryReader(io.BytesIO(block))
    return reader.read_directory(reader.first)


def make_block(directory: Directory) -> bytes:
    """Make an EXIF block.

    Args:
        directory: the first directory.

    Returns:
        The block, little-endian.
    """
    return b"II*\0\x08\0\0\0" + make_directory(directory, 8)


def make_directory(directory: Directory, offset: int) -> bytes:
    """Make the bytes of a directory, its values, and the directories that its tags point to.

    Args:
        directory: the directory.
        offset: where the bytes will lie in the file.

    Returns:
        The bytes, little-endian. No directory follows.
    """
    entries = dict(directory.entries)
    tags = sorted(entries.keys() | directory.directories.keys())
    table, values = bytearray(), bytearray()
    end = offset + 2 + 12 * len(tags) + 4
    for tag in tags:
        if tag in directory.directories:
            values += bytes((end + len(values)) % 2)  # directories and values begin at even places
            place = end + len(values)
            values += make_directory(directory.directories[tag], place)
            table += struct.pack("<HHLL", tag, LONG, 1, place)
            continue
        entry = entries[tag]
        if len(entry.data) <= 4:
            table += struct.pack("<HHL4s", tag, entry.kind, entry.count, entry.data)
            continue
        values += bytes((end + len(values)) % 2)
        table += struct.pack("<HHLL", tag, entry.kind, entry.count, end + len(values))
        values += entry.data
    return struct.pack("<H", len(tags)) + bytes(table) + bytes(4) + bytes(values)
