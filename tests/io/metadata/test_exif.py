"""EXIF blocks and XMP packets are changed in place: orientation, sizes, previews, and nothing else."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from glama_deploy.io.metadata import exif, photoshop, xmp
from glama_deploy.io.metadata.tiff_directories import EXIF_DIRECTORY, make_block, read_block

#: A preview picture in a block: a JPEG's first and last bytes, and bytes between.
PREVIEW = b"\xff\xd8\xff" + b"old!" * 20 + b"\xff\xd9"

#: Maker notes with a preview picture between other bytes.
NOTES = b"Maker\0" + b"A" * 30 + PREVIEW + b"B" * 30


def make_exif(order: str = ">") -> bytes:
    """A camera's block: orientation 6, a maker, sizes, maker notes with a preview, and a second directory with one."""

    def row(tag: int, kind: int, count: int, value: int) -> bytes:
        if kind == 3:
            return struct.pack(order + "HHLHH", tag, kind, count, value, 0)
        return struct.pack(order + "HHLL", tag, kind, count, value)

    first, inner = 8, 8 + 2 + 3 * 12 + 4
    second = inner + 2 + 3 * 12 + 4
    maker = second + 2 + 2 * 12 + 4
    notes = maker + 6
    preview = notes + len(NOTES)
    parts = [
        {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", first),
        struct.pack(order + "H", 3) + row(0x010F, 2, 6, maker) + row(0x0112, 3, 1, 6) + row(0x8769, 4, 1, inner),
        struct.pack(order + "L", second),
        struct.pack(order + "H", 3) + row(0x927C, 7, len(NOTES), notes) + row(0xA002, 4, 1, 30) + row(0xA003, 3, 1, 20),
        struct.pack(order + "L", 0),
        struct.pack(order + "H", 2) + row(0x0201, 4, 1, preview) + row(0x0202, 4, 1, len(PREVIEW)),
        struct.pack(order + "L", 0),
        b"Maker\0" + NOTES + PREVIEW,
    ]
    return b"".join(parts)


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_orientation_sizes_and_previews_of_a_block_change(order):
    block = make_exif(order)
    assert exif.find_orientation(block) == 6
    fixed = exif.correct_exif(block, height=30, width=20)
    assert exif.find_orientation(fixed) == 1
    directory = read_block(fixed)
    inner = directory.directories[EXIF_DIRECTORY].entries
    assert (inner[0xA002].number, inner[0xA003].number) == (20, 30)
    assert b"old!" not in fixed
    notes = inner[0x927C]
    assert notes.place == read_block(block).directories[EXIF_DIRECTORY].entries[0x927C].place
    assert notes.data == NOTES.replace(PREVIEW, bytes(len(PREVIEW)))
    assert not directory.next_offset
    assert len(fixed) == len(block) - len(PREVIEW)


def test_pillow_reads_a_corrected_block_and_a_rewritten_one():
    fixed = exif.correct_exif(make_exif(), 30, 20)
    for block in (fixed, make_block(read_block(fixed))):
        tags = Image.Exif()
        tags.load(exif.PREFIX + block)
        assert dict(tags)[0x010F] == "Maker"
        assert dict(tags)[0x0112] == 1
        assert tags.get_ifd(EXIF_DIRECTORY)[0xA002] == 20


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"no TIFF at all",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\xff\xff\xff\x7f",
        make_exif()[:20],
        b"II*\0\x08\0\0\0" + struct.pack("<HHHLL", 1, 0x8769, 4, 1, 8),
    ],
)
def test_a_damaged_block_is_an_error_and_not_an_endless_search(block):
    if block.startswith(b"II*\0\x08"):  # the EXIF directory points to itself
        assert read_block(block + bytes(4)).is_damaged
        return
    assert exif.find_orientation(block) == 1
    with pytest.raises(ValueError, match=r"damaged|cut off"):
        exif.correct_exif(block, 20, 30)


def test_the_orientation_of_a_directory_that_is_cut_off_is_found_as_pillow_finds_it():
    block = b"MM\0*\0\0\0\x08\0\xfe\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    assert exif.find_orientation(block) == 6
    with pytest.raises(ValueError, match="first directory is cut off"):
        exif.correct_exif(block, 20, 30)


def test_every_cut_of_a_block_is_corrected_or_refused():
    block = make_exif()
    for end in range(len(block)):
        try:
            exif.correct_exif(block[:end], 20, 30)
        except ValueError:
            continue


PACKET = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 tiff:Orientation="6" exif:PixelXDimension='30' dc:source="6"><tiff:ImageLength>20</tiff:ImageLength>
<xmp:Thumbnails><rdf:Alt><rdf:li xmpGImg:image="/9j/4AAQ"/></rdf:Alt></xmp:Thumbnails></rdf:Description>
</x:xmpmeta>"""


def test_only_orientation_sizes_and_previews_of_a_packet_change():
    assert xmp.find_orientation(PACKET) == 6
    expected = PACKET.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"').replace(b"'30'", b"'20'")
    expected = expected.replace(b">20<", b">30<")
    start, end = expected.index(b"<xmp:Thumbnails>"), expected.index(b"</rdf:Description>")
    assert xmp.correct_xmp(PACKET, height=30, width=20) == expected[:start] + expected[end:]


@pytest.mark.parametrize("packet", [b"\xff\xfe<\0x\0", b"no markup", b"\xe9<"])
def test_a_packet_that_is_not_utf_8_is_an_error(packet):
    with pytest.raises(ValueError):
        xmp.correct_xmp(packet, 20, 30)


def make_resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHL", number, 0, len(data)) + data + bytes(len(data) % 2)


def test_previews_of_photoshop_are_dropped_and_captions_kept():
    caption, preview = make_resource(0x0404, b"\x1c\x02\x78\0\x03cap"), make_resource(0x040C, b"old!!")
    assert photoshop.drop_previews(caption + preview + caption) == caption + caption
    for damaged in (b"8BIM", caption[:-3], b"nothing of the kind"):
        with pytest.raises(ValueError):
            photoshop.drop_previews(damaged)


def test_a_block_of_pillow_comes_back():
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "Maker", 8
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", exif=tags)
    with Image.open(file) as image:
        assert exif.find_orientation(exif.strip_prefix(image.info["exif"])) == 8
