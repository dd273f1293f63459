"""Correct an XMP packet after a picture was turned upright and filled. Other bytes of the packet stay as they are."""

from __future__ import annotations

import re

#: A property of a packet: an attribute `name="…"`, or an element `<name>…</name>`.
_PROPERTY = r"""(?P<before>\b{name}(?:\s*=\s*["']|>)\s*)(?P<value>[0-9]+)"""

#: Properties with the sizes of the picture.
_WIDTHS = "(?:tiff:ImageWidth|exif:PixelXDimension)"
_HEIGHTS = "(?:tiff:ImageLength|exif:PixelYDimension)"

#: The beginning of preview pictures, under whichever prefix the packet has for xmp.
_PREVIEWS = re.compile(r"<(?P<name>[\w.-]{1,20}:Thumbnails)\b[^>]*>")


def find_orientation(packet: bytes) -> int:
    """Find the orientation in an XMP packet.

    Args:
        packet: the packet, in UTF-8.

    Returns:
        1 to 8; 1 if the packet has no orientation, or is damaged.
    """
    found = re.search(_PROPERTY.format(name="tiff:Orientation"), packet.decode("utf-8", "replace"))
    value = int(found["value"]) if found else 1
    return value if 1 <= value <= 8 else 1


def correct_xmp(packet: bytes, height: int, width: int) -> bytes:
    """Correct an XMP packet: the orientation becomes 1, sizes those of the upright picture, and previews are left out.

    Args:
        packet: the packet, in UTF-8.
        height: height of the upright picture in pixels.
        width: width of the upright picture in pixels.

    Returns:
        The packet.

    Raises:
        ValueError: the packet is not XMP in UTF-8.
    """
    text = packet.rstrip(b"\0").decode("utf-8")
    if "<" not in text or "\0" in text:
        raise ValueError("it is not XML")
    for name, value in (("tiff:Orientation", 1), (_WIDTHS, width), (_HEIGHTS, height)):
        text = re.sub(_PROPERTY.format(name=name), rf"\g<before>{value}", text)
    return _drop_previews(text).encode()


def _drop_previews(text: str) -> str:
    parts, place = [], 0
    while found := _PREVIEWS.search(text, place):
        ending = f"</{found['name']}>"
        end = found.end() if found[0].endswith("/>") else text.find(ending, found.end()) + len(ending)
        if end < found.end():  # the element has no end
            break
        parts.append(text[place : found.start()])
        place = end
    return "".join((*parts, text[place:]))
