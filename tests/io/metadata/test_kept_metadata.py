"""Metadata of pictures come back in every format that holds them, as other programs read them."""

from __future__ import annotations

import io
import json
import logging
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from glama_deploy.io import images

RGB = np.add.outer(np.arange(40), 2 * np.arange(60))[..., None].repeat(3, 2).astype(np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="exiftool (Debian: libimage-exiftool-perl) is not installed"
)

#: Tags that exiftool puts into the inputs, and reads from the outputs that hold them.
WRITTEN = {
    "IFD0:Make": "Glama",
    "ExifIFD:DateTimeOriginal": "2020:01:02 03:04:05",
    "ExifIFD:UserComment": "a comment",
    "GPS:GPSLatitude": 48.5,
    "GPS:GPSLatitudeRef": "N",
    "XMP-dc:Title": "a title",
}


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch):
    monkeypatch.setattr(images, "_noted", set())


def run_exiftool(*arguments: str) -> str:
    return subprocess.run(["exiftool", *arguments], capture_output=True, text=True, check=True).stdout


def read_tags(path: Path) -> dict[str, object]:
    return json.loads(run_exiftool("-json", "-n", "-G1", "-a", str(path)))[0]


def make_input(folder: Path, suffix: str) -> Path:
    path = folder / f"in{suffix}"
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(RGB).save(path, icc_profile=PROFILE, dpi=(300, 300), **lossless)
    tags = [f"-{name}{'#' if isinstance(value, float) else ''}={value}" for name, value in WRITTEN.items()]
    sizes = ["-ExifImageWidth=60", "-ExifImageHeight=40", "-Orientation#=6", "-XMP-tiff:Orientation#=6"]
    run_exiftool("-q", "-overwrite_original", *tags, *sizes, str(path))
    return path


@needs_exiftool
@pytest.mark.parametrize("to", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exiftool_reads_from_the_output_what_it_wrote_into_the_input(tmp_path, suffix, to):
    before = read_tags(make_input(tmp_path, suffix))
    images.write_image(tmp_path / f"out{to}", images.read_image(tmp_path / f"in{suffix}"))
    tags = read_tags(tmp_path / f"out{to}")
    assert {name: tags.get(name) for name in WRITTEN} == {name: before[name] for name in WRITTEN}
    assert tags.get("IFD0:Orientation", 1) == 1
    assert tags["XMP-tiff:Orientation"] == 1
    assert (tags["ExifIFD:ExifImageWidth"], tags["ExifIFD:ExifImageHeight"]) == (40, 60)
    assert (tags["File:ImageWidth" if to in (".jpg",) else _size_tag(to)]) == 40
    assert tags["ICC_Profile:ProfileDescription"] == before["ICC_Profile:ProfileDescription"]
    assert "ExifTool:Warning" not in tags
    assert "ExifTool:Error" not in tags


def _size_tag(suffix: str) -> str:
    return {".png": "PNG:ImageWidth", ".webp": "RIFF:ImageWidth", ".tif": "IFD0:ImageWidth"}[suffix]


@needs_exiftool
def test_captions_of_a_jpeg_come_back_in_a_jpeg_and_a_tiff(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "in.jpg")
    run_exiftool("-q", "-overwrite_original", "-IPTC:Caption-Abstract=a caption", str(tmp_path / "in.jpg"))
    picture = images.read_image(tmp_path / "in.jpg")
    for suffix in (".jpg", ".tif"):
        images.write_image(tmp_path / f"out{suffix}", picture)
        tags = read_tags(tmp_path / f"out{suffix}")
        assert "a caption" in (tags.get("IPTC:Caption-Abstract"), tags.get("IPTC2:Caption-Abstract"))
    images.write_image(tmp_path / "again.jpg", images.read_image(tmp_path / "out.tif"))
    assert read_tags(tmp_path / "again.jpg")["IPTC:Caption-Abstract"] == "a caption"


@needs_exiftool
def test_maker_notes_come_back_without_a_word_of_exiftool(tmp_path):
    """exiftool writes no maker notes of its own, so a block is put around bytes of no maker."""
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x927C] = b"Glama\0" + bytes(range(200))
    Image.fromarray(RGB).save(tmp_path / "in.jpg", exif=tags)
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.jpg"))
    read = (
        ["exiftool", "-b", "-MakerNoteUnknownBinary", "-MakerNoteUnknown", str(tmp_path / name)]
        for name in ("in.jpg", "out.jpg")
    )
    before, after = (subprocess.run(command, capture_output=True, check=True).stdout for command in read)
    assert before
    assert before == after


def test_the_density_of_a_picture_comes_back(tmp_path):
    for suffix, dpi in ((".png", (300, 150)), (".jpg", (300, 150)), (".tif", (300.5, 72)), (".bmp", (300, 150))):
        Image.fromarray(RGB).save(tmp_path / f"in{suffix}", dpi=dpi)
        picture = images.read_image(tmp_path / f"in{suffix}")
        for to in (".png", ".jpg", ".tif", ".bmp"):
            images.write_image(tmp_path / f"out{to}", picture)
            with Image.open(tmp_path / f"out{to}") as image:
                # PNG and BMP store whole pixels of a metre, JPEG of an inch
                assert image.info["dpi"] == pytest.approx(dpi, abs=0.51 if to == ".jpg" else 0.03)


def test_the_density_of_a_turned_picture_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(RGB).save(tmp_path / "in.jpg", dpi=(300, 150), exif=exif)
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.jpg"))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["dpi"] == (150, 300)


def test_text_and_colour_chunks_of_a_png_come_back_byte_by_byte(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    info.add_text("prompt", "a" * 500, zip=True)
    info.add_itxt("Title", "Größe", "de", "Titel")
    info.add(b"gAMA", struct.pack(">L", 45455))
    info.add(b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    info.add(b"prVt", b"private and safe to copy")
    Image.fromarray(RGB).save(tmp_path / "in.png", pnginfo=info)
    images.write_image(tmp_path / "out.png", images.read_image(tmp_path / "in.png"))
    before, after = (split_chunks((tmp_path / name).read_bytes()) for name in ("in.png", "out.png"))
    for kind in (b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"prVt"):
        assert before[kind] == after[kind], kind
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.text == {"Author": "somebody", "prompt": "a" * 500, "Title": "Größe"}


def split_chunks(png: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    place = 8
    while place < len(png):
        size, kind = struct.unpack_from(">L4s", png, place)
        found.setdefault(kind, []).append(png[place + 8 : place + 12 + size])  # with its checksum
        place += 12 + size
    return found


def test_a_comment_comes_back_in_a_jpeg_a_png_and_a_tiff(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "in.jpg", comment="Größe".encode())
    for suffix in (".jpg", ".png", ".tif"):
        images.write_image(tmp_path / f"out{suffix}", images.read_image(tmp_path / "in.jpg"))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["comment"] == "Größe".encode()
    with Image.open(tmp_path / "out.png") as image:
        assert image.text == {"Comment": "Größe"}
    with Image.open(tmp_path / "out.tif") as image:
        assert image.tag_v2[270].encode("latin-1").decode() == "Größe"
    images.write_image(tmp_path / "again.jpg", images.read_image(tmp_path / "out.png"))
    with Image.open(tmp_path / "again.jpg") as image:
        assert image.info["comment"] == "Größe".encode()


def test_other_tags_and_the_compression_of_a_tiff_come_back(tmp_path):
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        tags = {270: "a description", 305: "a program", 33432: "somebody", 317: 2, 65000: b"\1\2private"}
        Image.fromarray(RGB).save(tmp_path / "in.tif", compression=compression, tiffinfo=tags)
        images.write_image(tmp_path / "out.tif", images.read_image(tmp_path / "in.tif"))
        with Image.open(tmp_path / "in.tif") as before, Image.open(tmp_path / "out.tif") as after:
            assert after.info["compression"] == before.info["compression"] == compression
            assert {tag: after.tag_v2.get(tag) for tag in (270, 305, 33432, 65000)} == {
                tag: before.tag_v2.get(tag) for tag in (270, 305, 33432, 65000)
            }
            np.testing.assert_array_equal(np.asarray(after), RGB)
        sizes = [(tmp_path / name).stat().st_size for name in ("in.tif", "out.tif")]
        assert sizes[1] < 1.2 * sizes[0] + 1000  # a second directory of the file


def test_what_a_format_does_not_hold_is_named_once(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(RGB).save(tmp_path / "in.jpg", exif=exif, icc_profile=PROFILE, comment=b"hello")
    picture = images.read_image(tmp_path / "in.jpg")
    caplog.set_level(logging.WARNING)
    for name in ("a", "b", "c"):
        images.write_image(tmp_path / f"{name}.bmp", picture)
    images.write_image(tmp_path / "a.webp", picture)
    assert [record.message for record in caplog.records] == [
        "BMP outputs do not keep EXIF, the colour profile and comments of their inputs",
        "WebP outputs do not keep comments of their inputs",
    ]


def test_metadata_that_are_too_large_for_a_jpeg_are_named(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    Image.fromarray(RGB).save(tmp_path / "in.png", exif=exif)
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.png"))
    assert "JPEG outputs do not keep EXIF of their inputs" in caplog.text
    images.write_image(tmp_path / "out.png", images.read_image(tmp_path / "in.png"))
    with Image.open(tmp_path / "out.png") as image:
        assert len(image.getexif()[0x010E]) == 70_000


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_metadata_do_not_refuse_a_picture(tmp_path, suffix, caplog):
    broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    xmp = {"xmp": b"\xff\xfeno XMP"} if suffix in (".jpg", ".webp") else {}
    Image.fromarray(RGB).save(tmp_path / f"in{suffix}", exif=broken, **xmp)
    images.write_image(tmp_path / "out.png", images.read_image(tmp_path / f"in{suffix}"))
    assert f"in{suffix} has damaged EXIF data, which are left out: its first directory is cut off" in caplog.text
    assert ("has damaged XMP data" in caplog.text) == bool(xmp)
    with Image.open(tmp_path / "out.png") as image:
        assert not image.getexif()


@pytest.mark.parametrize("resources", [b"8BIM\x04\x04", b"8BIM\x04\x04\0\0\0\0\0\xffshort", b"none of them"])
def test_damaged_photoshop_data_do_not_refuse_a_picture(tmp_path, resources, caplog):
    segment = b"Photoshop 3.0\0" + resources
    extra = b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment
    Image.fromarray(RGB).save(tmp_path / "in.jpg", extra=extra, comment=b"hello", quality=95)
    picture = images.read_image(tmp_path / "in.jpg")
    assert "in.jpg has damaged Photoshop data, which are left out" in caplog.text
    assert picture.metadata.photoshop is None
    assert picture.metadata.comments == (b"hello",)
    plain = io.BytesIO()
    Image.fromarray(RGB).save(plain, "JPEG", quality=95)
    np.testing.assert_array_equal(picture.rgb, images.decode_image(plain.getvalue(), "plain").rgb)


def test_imagemagicks_raw_profile_is_read_as_exif(tmp_path):
    """Its orientation turns the picture, so the text must not come back with the old orientation."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    data = exif.tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8d}\n{data.hex()}\n", zip=True)
    Image.fromarray(RGB).save(tmp_path / "in.png", pnginfo=info)
    picture = images.read_image(tmp_path / "in.png")
    assert picture.rgb.shape == (60, 40, 3)
    images.write_image(tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert dict(image.getexif()) == {0x0112: 1, 0x010F: "Maker"}
        assert not image.text


def test_what_no_output_keeps_is_named(tmp_path, caplog):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[second])
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.jpg"))
    assert "JPEG outputs do not keep further pictures of a JPEG (MPF) of their inputs" in caplog.text


def test_chunks_that_may_not_be_copied_are_named(tmp_path, caplog):
    info = PngImagePlugin.PngInfo()
    info.add(b"prVT", b"private and not safe to copy")
    Image.fromarray(RGB).save(tmp_path / "in.png", pnginfo=info)
    images.write_image(tmp_path / "out.png", images.read_image(tmp_path / "in.png"))
    assert "PNG outputs do not keep unknown chunks of a PNG of their inputs" in caplog.text
    assert b"prVT" not in (tmp_path / "out.png").read_bytes()


def test_a_lossy_compression_of_a_tiff_is_replaced_and_named(tmp_path, caplog):
    Image.fromarray(RGB).save(tmp_path / "in.tif", compression="jpeg", quality=95)
    picture = images.read_image(tmp_path / "in.tif")
    images.write_image(tmp_path / "out.tif", picture)
    assert "TIFF outputs are compressed by deflate, not by jpeg like the inputs" in caplog.text
    with Image.open(tmp_path / "out.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), picture.rgb)


def test_encoded_files_have_the_same_metadata_as_written_ones(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "in.png", icc_profile=PROFILE, dpi=(300, 300))
    picture = images.read_image(tmp_path / "in.png")
    images.write_image(tmp_path / "out.png", picture)
    assert images.encode_image(picture, "PNG", "picture") == (tmp_path / "out.png").read_bytes()
    with Image.open(io.BytesIO(images.encode_image(picture, "JPEG", "picture"))) as image:
        assert image.info["icc_profile"] == PROFILE
        assert image.info["dpi"] == (300, 300)


def make_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", checksum)


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize(
    "chunk",
    [
        make_chunk(b"zTXt", b"Title\0\7abc"),
        make_chunk(b"zTXt", b"Title\0\0no zlib"),
        make_chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a title")[:-6]),
        make_chunk(b"iTXt", b"Title\0\1\0\0\0no zlib"),
        make_chunk(b"tEXt", b"Title\0a title", checksum=1),
        make_chunk(b"iCCP", b"sRGB\0\7abc"),
        make_chunk(b"pHYs", b"\0\0"),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
def test_a_damaged_chunk_of_a_png_is_left_out_and_the_picture_is_read(tmp_path, photo, caplog, chunk, is_behind):
    """Pillow refuses such a file, or gives an empty text."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    png, sound = file.getvalue(), make_chunk(b"zTXt", b"Author\0\0" + zlib.compress(b"somebody"))
    place = len(png) - 12 if is_behind else 33
    (tmp_path / "in.png").write_bytes(png[:place] + sound + chunk + png[place:])
    picture = images.read_image(tmp_path / "in.png")
    np.testing.assert_array_equal(picture.rgb, photo)
    assert f"in.png has a damaged chunk {chunk[4:8].decode()}, which is left out: " in caplog.text
    images.write_image(tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as out:
        out.load()
        assert out.text == {"Author": "somebody"}
        assert "dpi" not in out.info
