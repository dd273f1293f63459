"""Read the chunks of a PNG file beside its pixels, and put such chunks into another file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

#: Bytes of the signature and of the chunk IHDR, after which other chunks begin.
_HEADER_BYTES = 8 + 25

#: A kind and its data.
Chunk = tuple[bytes, bytes]

#: Chunks that a decoder may leave out by their names, and that belong to pixels.
_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")

#: Chunks of text.
TEXT = (b"tEXt", b"zTXt", b"iTXt")

#: Chunks that say how values become colours.
COLOURS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB")

#: The keyword of an XMP packet in a chunk iTXt.
XMP_KEYWORD = b"XML:com.adobe.xmp"

#: The least bytes of the chunks whose length Pillow checks.
_LEAST_BYTES = {b"pHYs": 9, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}

#: Upper bound of a compressed text, in bytes.
_MAX_TEXT_BYTES = 64 << 20


def read_chunks(file: BinaryIO) -> list[tuple[Chunk, int]]:
    """Read the chunks of a PNG file beside IHDR, the palette, and the pixels.

    Args:
        file: the file, open for reading in binary mode.

    Returns:
        The chunks in order, each with its checksum. A file that is cut off has those before its end.
    """
    found = []
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">L4s", head)
        if kind == b"IEND":
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"fdAT"):
            file.seek(size + 4, 1)
            continue
        data, checksum = file.read(size), file.read(4)
        if len(checksum) < 4:
            break
        found.append(((kind, data), int.from_bytes(checksum, "big")))
    return found


def check_chunk(chunk: Chunk, checksum: int) -> None:
    """Check a chunk that holds no pixels.

    Args:
        chunk: the chunk.
        checksum: the checksum that the file has for the chunk.

    Raises:
        ValueError: the chunk is damaged.
    """
    kind, data = chunk
    if zlib.crc32(kind + data) != checksum:
        raise ValueError("its checksum is wrong")
    if len(data) < _LEAST_BYTES.get(kind, 0):
        raise ValueError("it is cut off")
    if kind in TEXT:
        read_text(chunk)
    if kind == b"iCCP":
        _decompress(data.partition(b"\0")[2])


def cut_damaged_chunks(png: bytes) -> bytes:
    """Cut the damaged chunks that hold no pixels out of a PNG.

    Args:
        png: the file.

    Returns:
        The file without these chunks.
    """
    parts, place = [png[:8]], 8
    while place + 12 <= len(png):
        size, kind = struct.unpack_from(">L4s", png, place)
        end = place + 12 + size
        chunk = kind, png[place + 8 : end - 4]
        if not kind[:1].islower() or kind in _PIXELS or _is_sound(chunk, png[end - 4 : end]):
            parts.append(png[place:end])
        place = end
    return b"".join((*parts, png[place:]))


def _is_sound(chunk: Chunk, checksum: bytes) -> bool:
    try:
        check_chunk(chunk, int.from_bytes(checksum, "big"))
    except ValueError:
        return False
    return True


def insert_chunks(png: bytes, chunks: Iterable[Chunk]) -> bytes:
    """Put chunks into a PNG file, before its palette and its pixels.

    Args:
        png: the file.
        chunks: the chunks.

    Returns:
        The file with these chunks.
    """
    parts = (
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"".join((png[:_HEADER_BYTES], *parts, png[_HEADER_BYTES:]))


def find_keyword(chunk: Chunk) -> bytes:
    """Return the keyword of a chunk of text.

    Args:
        chunk: the chunk.

    Returns:
        The keyword; empty for other chunks.
    """
    kind, data = chunk
    return data.partition(b"\0")[0] if kind in TEXT else b""


def read_text(chunk: Chunk) -> bytes:
    """Return the text of a chunk.

    Args:
        chunk: a chunk of text.

    Returns:
        The text: UTF-8 of iTXt, Latin-1 of the other kinds.

    Raises:
        ValueError: the chunk is damaged.
    """
    kind, data = chunk
    rest = data.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _decompress(rest)
    is_compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
    if len(text) < 3:
        raise ValueError("it is cut off")
    return _decompress(rest[1:2] + text[2]) if is_compressed else text[2]


def make_text(keyword: bytes, text: bytes) -> Chunk:
    """Make a chunk of text.

    Args:
        keyword: the keyword, in Latin-1.
        text: the text, in ASCII or UTF-8. Other bytes are Latin-1.

    Returns:
        A chunk tEXt or iTXt.
    """
    try:
        is_plain = text.isascii() or not text.decode()
    except UnicodeDecodeError:
        is_plain = True
    if is_plain:
        return b"tEXt", keyword + b"\0" + text
    return b"iTXt", keyword + bytes(5) + text


def _decompress(data: bytes) -> bytes:
    """Decompress data behind the number of the method. Raises ValueError for damaged data."""
    if data[:1] != b"\0":
        raise ValueError("its compression is unknown")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data[1:], _MAX_TEXT_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise ValueError("it is too large")
    if not unpacker.eof:
        raise ValueError("it is cut off")
    return text
