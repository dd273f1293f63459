"""Read the image resources of Photoshop, which hold captions (IPTC), paths and print settings, and drop previews.

The format is that of Adobe's Photoshop File Formats Specification, "Image Resource Blocks".
"""

from __future__ import annotations

import struct

#: The bytes before the resources in a JPEG's segment APP13.
SEGMENT_PREFIX = b"Photoshop 3.0\0"

#: The markers of this segment, and of a JPEG's pixels.
_SEGMENT_MARKER, _START_OF_SCAN = 0xED, 0xDA

#: Resources that show the picture before it was filled: previews of two kinds.
_PREVIEWS = (0x0409, 0x040C)

_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")


def cut_segments(jpeg: bytes) -> bytes:
    """Cut the segments with image resources out of a JPEG.

    Args:
        jpeg: the bytes of the file.

    Returns:
        The file without these segments.
    """
    parts, place = [jpeg[:2]], 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF and jpeg[place + 1] != _START_OF_SCAN:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] != _SEGMENT_MARKER:
            parts.append(jpeg[place:end])
        place = end
    return b"".join((*parts, jpeg[place:]))


def drop_previews(resources: bytes) -> bytes:
    """Return image resources without preview pictures.

    Args:
        resources: the resources, one after another.

    Returns:
        The resources that are left.

    Raises:
        ValueError: the resources are damaged.
    """
    kept, place = [], 0
    while place < len(resources) and resources[place : place + 4] != bytes(len(resources[place : place + 4])):
        if resources[place : place + 4] not in _SIGNATURES or place + 12 > len(resources):
            raise ValueError("a resource begins with other bytes than 8BIM")
        (number,) = struct.unpack_from(">H", resources, place + 4)
        name_bytes = resources[place + 6] + 1
        data = place + 6 + name_bytes + name_bytes % 2
        if data + 4 > len(resources):
            raise ValueError("the resources are cut off")
        (size,) = struct.unpack_from(">L", resources, data)
        end = data + 4 + size
        if end > len(resources):
            raise ValueError("the resources are cut off")
        if number not in _PREVIEWS:
            kept.append(resources[place:end] + bytes(size % 2))
        place = end + size % 2
    return b"".join(kept)
