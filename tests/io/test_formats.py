"""Every format and mode: known pixels and metadata come back. CMYK, linear values, and formats that are only read."""

from __future__ import annotations

import io
import logging
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import images
from glama_deploy.io.colours import describe_values
from glama_deploy.io.metadata.record import Metadata

RNG = np.random.default_rng(0)
#: A smooth picture with some noise, as photographs are.
RGB = (np.add.outer(np.arange(64), np.arange(96))[..., None] + RNG.integers(0, 9, (64, 96, 3))).astype(np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch):
    monkeypatch.setattr(images, "_noted", set())


#: Modes that Pillow writes into each lossless format.
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
}


@given(
    data=st.data(),
    format=st.sampled_from(sorted(MODES)),
    to=st.sampled_from(["PNG", "TIFF", "WEBP"]),
    orientation=st.integers(1, 8),
    maker=st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1),
    dpi=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=150, deadline=None)
def test_known_pixels_and_metadata_come_back(data, format, to, orientation, maker, dpi, size):
    mode = data.draw(st.sampled_from(MODES[format]))
    source = Image.fromarray(RNG.integers(0, 256, (*size, 4), np.uint8), "RGBA")
    source = source if mode == "RGBA" else source.convert("RGB").convert(mode) if mode != "LA" else source.convert("LA")
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = maker, orientation
    extra = {"exif": exif, "icc_profile": PROFILE} if format != "BMP" else {}
    file = io.BytesIO()
    source.save(file, format, dpi=dpi, lossless=True, exact=True, **extra)
    picture = images.decode_image(file.getvalue(), "picture")

    with Image.open(io.BytesIO(images.encode_image(picture, to, "picture"))) as out:
        out.load()
        turned = source if format == "BMP" else _turn(source, orientation)
        has_alpha = mode in ("LA", "RGBA")
        np.testing.assert_array_equal(*(np.asarray(x.convert("RGBA" if has_alpha else "RGB")) for x in (out, turned)))
        if mode in ("1", "L", "LA") and to != "WEBP":
            assert out.mode in ("L", "LA")
        if format != "BMP":
            assert out.info["icc_profile"] == PROFILE
            assert out.getexif()[0x010F] == maker
            assert out.getexif().get(0x0112, 1) == 1
        if to != "WEBP" and format != "WEBP":
            expected = dpi[::-1] if format != "BMP" and orientation >= 5 else dpi
            assert out.info["dpi"] == pytest.approx(expected, abs=0.03)  # whole pixels of a metre


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    turns = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_270],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_90],
    }
    for turn in turns.get(orientation, []):
        image = image.transpose(turn)
    return image


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 92])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_becomes_a_jpeg_of_its_tables_and_size(tmp_path, subsampling, quality, progressive):
    source = Image.fromarray(RGB).resize((480, 320), Image.Resampling.BICUBIC)
    source.save(tmp_path / "in.jpg", quality=quality, subsampling=subsampling, progressive=progressive)
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.jpg"))
    with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.quantization == before.quantization
        assert [part[:3] for part in after.layer] == [part[:3] for part in before.layer]
        assert after.info.get("progressive") == before.info.get("progressive")
        difference = np.abs(np.asarray(before).astype(int) - np.asarray(after))
    # rounding of the second coding; subsampled colours are averaged again
    assert difference.mean() < (0.5 if not subsampling else 1.5)
    sizes = [(tmp_path / name).stat().st_size for name in ("in.jpg", "out.jpg")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_tables_of_a_turned_jpeg_are_turned(tmp_path):
    table = [min(255, 1 + 3 * (n // 8) + 9 * (n % 8)) for n in range(64)]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "in.jpg", qtables=[table, table], subsampling=0, exif=exif)
    images.write_image(tmp_path / "out.jpg", images.read_image(tmp_path / "in.jpg"))
    with Image.open(tmp_path / "out.jpg") as out:
        np.testing.assert_array_equal(np.reshape(out.quantization[0], (8, 8)), np.reshape(table, (8, 8)).T)


def test_a_gray_and_an_rgb_jpeg_stay_what_they_are(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "gray.jpg", quality=70)
    Image.fromarray(RGB).save(tmp_path / "rgb.jpg", quality=70, keep_rgb=True)
    for name in ("gray.jpg", "rgb.jpg"):
        images.write_image(tmp_path / f"out_{name}", images.read_image(tmp_path / name))
        with Image.open(tmp_path / name) as before, Image.open(tmp_path / f"out_{name}") as after:
            assert after.mode == before.mode
            assert after.quantization == before.quantization
            assert [part[0] for part in after.layer] == [part[0] for part in before.layer]


def test_a_quality_is_obeyed_or_refused(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "in.jpg", quality=95)
    picture = images.read_image(tmp_path / "in.jpg")
    for name, quality in (("low", 20), ("high", 90)):
        for suffix in (".jpg", ".webp"):
            images.write_image(tmp_path / f"{name}{suffix}", picture, images.FileRule(quality=quality))
    for suffix in (".jpg", ".webp"):
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size
    rule = images.FileRule(quality=20)
    with pytest.raises(GlamaError, match=r"`quality` is 20, and \.png has no quality; write \.jpg or \.webp, or leave"):
        rule.check_outputs([tmp_path / "x.png"])
    rule.check_outputs([tmp_path / "x.png", tmp_path / "x.jpg"])
    for quality in (0, 101):
        with pytest.raises(GlamaError, match=f"`quality` is {quality}; 1 to 100"):
            images.FileRule(quality=quality)


def make_cmyk_profile() -> bytes:
    """A profile (ICC.1, section 10.10) in which cyan is red: unlike every plain conversion."""
    corners = []
    for cyan, magenta, yellow, black in np.ndindex(2, 2, 2, 2):  # L, a, b of each corner; 128 is neutral
        light = 40 if black else 255 - 60 * (cyan + magenta + yellow)
        corners.append((light, 128 + 80 * cyan * (1 - black), 128))
    table = b"".join(bytes(corner) for corner in corners)
    ramp = bytes(range(256))
    identity = struct.pack(">9l", *(65536 * (n % 4 == 0) for n in range(9)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + 4 * ramp + table + 3 * ramp
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3l", 63190, 65536, 54061)
    entries = [(b"A2B0", lut), (b"wtpt", white)]
    offset = 128 + 4 + 12 * len(entries)
    table_of_tags, body = struct.pack(">L", len(entries)), b""
    for name, data in entries:
        table_of_tags += struct.pack(">4sLL", name, offset + len(body), len(data))
        body += data
    header = struct.pack(">L4sL4s4s4s", offset + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3l", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table_of_tags + body


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile_and_says_so(format, caplog):
    profile = make_cmyk_profile()
    cmyk = np.zeros((32, 32, 4), np.uint8)
    cmyk[:16, :, 0] = 255
    file = io.BytesIO()
    Image.fromarray(cmyk, "CMYK").save(
        file, format, icc_profile=profile, **({"quality": 100} if format == "JPEG" else {})
    )
    picture = images.decode_image(file.getvalue(), "photo")
    assert "photo is CMYK and converted to sRGB by its colour profile; other such pictures are, too" in caplog.text
    red, white = picture.rgb[4, 4].astype(int), picture.rgb[28, 28]
    assert red[0] > red[1] + 100  # a plain conversion makes cyan of it
    np.testing.assert_allclose(white, 255, atol=2)  # JPEG's rounding
    written = images.encode_image(picture, "PNG", "photo")
    with Image.open(io.BytesIO(written)) as out:
        assert out.info["icc_profile"][16:20] == b"RGB "
        ImageCms.ImageCmsProfile(io.BytesIO(out.info["icc_profile"]))


def test_cmyk_without_a_profile_is_converted_plainly_and_says_so(caplog):
    file = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(file, "JPEG", quality=100)
    picture = images.decode_image(file.getvalue(), "photo")
    assert "without a colour profile: colours may be off" in caplog.text
    assert picture.metadata.icc_profile is None
    # JPEG's rounding, twice
    np.testing.assert_allclose(picture.rgb.astype(int), RGB, atol=12)


@pytest.mark.parametrize(
    ("format", "suffix", "tolerance"),
    [("GIF", ".gif", 0), ("JPEG2000", ".jp2", 0), ("AVIF", ".avif", 12), ("HEIF", ".heic", 12)],
)
def test_formats_that_are_only_read(tmp_path, format, suffix, tolerance):
    if format == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(RGB)).save(tmp_path / f"x{suffix}", quality=95)
    else:
        source = Image.fromarray(RGB[..., 0]) if format == "GIF" else Image.fromarray(RGB)
        source.save(tmp_path / f"x{suffix}", format, **({"quality": 95} if format == "AVIF" else {}))
    picture = images.read_image(tmp_path / f"x{suffix}")
    expected = RGB[..., :1].repeat(3, 2) if format == "GIF" else RGB
    # AVIF and HEIC are lossy
    np.testing.assert_allclose(picture.rgb.astype(int), expected, atol=tolerance)
    images.write_image(tmp_path / "out.png", picture)
    with pytest.raises(ImageError, match=r"\.png is a good choice"):
        images.write_image(tmp_path / f"out{suffix}", picture)


def test_pictures_that_come_over_the_network_are_of_few_formats():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "GIF")
    with pytest.raises(ImageError, match="format not supported: GIF"):
        images.decode_image(file.getvalue(), "image")


def make_profile(curve: bytes) -> bytes:
    tags = struct.pack(">L", 1) + struct.pack(">4sLL", b"gTRC", 144, len(curve))
    return bytes(128) + tags + curve


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (Metadata(), None),
        (Metadata(icc_profile=PROFILE), None),
        (Metadata(icc_profile=make_profile(b"curv\0\0\0\0\0\0\0\0")), "linear light"),
        (Metadata(icc_profile=make_profile(b"curv\0\0\0\0\0\0\0\1\1\0")), "linear light"),
        (Metadata(icc_profile=make_profile(b"curv\0\0\0\0\0\0\0\1\2\x33")), None),
        (Metadata(icc_profile=make_profile(b"para\0\0\0\0\0\0\0\0\0\1\0\0")), "linear light"),
        (Metadata(icc_profile=make_profile(b"curv")), None),
        (Metadata(icc_profile=b"no profile"), None),
        (Metadata(chunks=((b"gAMA", struct.pack(">L", 100_000)),)), "linear light"),
        (Metadata(chunks=((b"gAMA", struct.pack(">L", 45_455)),)), None),
        (Metadata(chunks=((b"gAMA", b"x"),)), None),
        (Metadata(chunks=((b"cICP", bytes((9, 16, 0, 1))),)), "HDR (PQ)"),
        (Metadata(chunks=((b"cICP", bytes((9, 18, 0, 1))),)), "HDR (HLG)"),
        (Metadata(chunks=((b"cICP", bytes((1, 13, 0, 1))),)), None),
    ],
)
def test_values_that_are_not_a_displays_are_told(metadata, expected):
    assert describe_values(metadata) == expected


def test_linear_values_are_noted_once(tmp_path, caplog):
    from glama_deploy.io.metadata.png_chunks import insert_chunks

    caplog.set_level(logging.WARNING)
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    (tmp_path / "x.png").write_bytes(insert_chunks(file.getvalue(), [(b"gAMA", struct.pack(">L", 100_000))]))
    for _ in range(2):
        images.read_image(tmp_path / "x.png")
    assert [record.message.partition("x.png ")[2] for record in caplog.records] == [
        "holds linear light; the networks are trained for sRGB, and may fill other values badly"
    ]
