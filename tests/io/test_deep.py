"""Pictures of 16 bits a channel: in and out bit by bit, as OpenCV reads them."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from glama_deploy.errors import ImageError
from glama_deploy.io import images

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 65536, (20, 30, 3), np.uint16)
ALPHA = RNG.integers(0, 65536, (20, 30), np.uint16)
#: Pixels by their channels.
PIXELS = {1: RGB[..., 0], 3: RGB, 4: np.dstack([RGB, ALPHA])}


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch):
    monkeypatch.setattr(images, "_noted", set())


def write_with_opencv(path: Path, pixels: np.ndarray) -> None:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[channels]
    assert cv2.imwrite(str(path), pixels if order is None else cv2.cvtColor(pixels, order))


def read_with_opencv(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2]])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("to", [".png", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_go_in_and_out_bit_exact(tmp_path, suffix, to, channels):
    write_with_opencv(tmp_path / f"in{suffix}", PIXELS[channels])
    picture = images.read_image(tmp_path / f"in{suffix}")
    assert picture.rgb.dtype == np.uint16
    assert picture.gray == (channels == 1)
    assert (picture.alpha is not None) == (channels == 4)
    images.write_image(tmp_path / f"out{to}", picture)
    np.testing.assert_array_equal(read_with_opencv(tmp_path / f"out{to}"), PIXELS[channels])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_the_compression_and_metadata_of_a_deep_tiff_come_back(tmp_path, compression):
    write_with_opencv(tmp_path / "plain.tif", RGB)
    picture = images.read_image(tmp_path / "plain.tif")
    metadata = picture.metadata.__class__(icc_profile=b"p" * 200, exif=None, tiff_compression=compression)
    images.write_image(tmp_path / "in.tif", images.Picture(RGB, None, False, metadata))
    images.write_image(tmp_path / "out.tif", images.read_image(tmp_path / "in.tif"))
    with Image.open(tmp_path / "out.tif") as image:
        assert image.info["compression"] == compression
        assert image.info["icc_profile"] == b"p" * 200
    np.testing.assert_array_equal(read_with_opencv(tmp_path / "out.tif"), RGB)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_predictor_of_a_deep_tiff_comes_back(tmp_path, channels):
    smooth = np.sort(PIXELS[channels], axis=1)  # OpenCV writes LZW with a predictor
    write_with_opencv(tmp_path / "in.tif", smooth)
    images.write_image(tmp_path / "out.tif", images.read_image(tmp_path / "in.tif"))
    with Image.open(tmp_path / "in.tif") as before, Image.open(tmp_path / "out.tif") as after:
        assert after.tag_v2[317] == before.tag_v2[317] == 2
    np.testing.assert_array_equal(read_with_opencv(tmp_path / "out.tif"), smooth)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_picture_is_turned_as_an_8_bit_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = (RGB >> 8).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "eight.png", exif=exif)
    plain = images.read_image(tmp_path / "eight.png")
    write_with_opencv(tmp_path / "x.png", eight.astype(np.uint16) * 257)
    from glama_deploy.io.metadata.png_chunks import insert_chunks

    turned = insert_chunks((tmp_path / "x.png").read_bytes(), [(b"eXIf", exif.tobytes()[6:])])
    (tmp_path / "deep.png").write_bytes(turned)
    np.testing.assert_array_equal(images.read_image(tmp_path / "deep.png").rgb, plain.rgb.astype(np.uint16) * 257)


def test_text_of_a_deep_png_comes_back(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    Image.fromarray(RGB[..., 0]).save(tmp_path / "in.png", pnginfo=info, dpi=(300, 300))
    images.write_image(tmp_path / "out.png", images.read_image(tmp_path / "in.png"))
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.text == {"Author": "somebody"}
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.03)  # whole pixels of a metre
        assert image.mode == "I;16"


FORMATS = {".jpg": "JPEG", ".webp": "WebP", ".bmp": "BMP"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_of_8_bits_round_and_say_so(tmp_path, suffix, caplog):
    caplog.set_level(logging.WARNING)
    picture = images.Picture(np.repeat(np.arange(0, 65536, 100, np.uint16).reshape(16, -1, 1), 3, 2))
    for name in ("a", "b"):
        images.write_image(tmp_path / f"{name}{suffix}", picture)
    assert [record.message for record in caplog.records] == [
        f"{FORMATS[suffix]} outputs do not keep more than 8 bits a channel of their inputs"
    ]
    if suffix != ".jpg":
        with Image.open(tmp_path / f"a{suffix}") as image:
            np.testing.assert_array_equal(np.asarray(image), np.round(picture.rgb / 257))


def test_kinds_that_are_not_read_are_refused_in_one_line(tmp_path):
    signed = RNG.integers(-9, 9, (20, 30)).astype(np.int16)
    assert cv2.imwrite(str(tmp_path / "signed.tif"), signed)
    with pytest.raises(ImageError, match=r"uint16 in gray or RGB is expected|16 bits a channel"):
        images.read_image(tmp_path / "signed.tif")
    assert cv2.imwrite(str(tmp_path / "float.tif"), signed.astype(np.float32))
    with pytest.raises(ImageError, match="mode F"):
        images.read_image(tmp_path / "float.tif")
    write_with_opencv(tmp_path / "x.png", RGB)
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:500])
    with pytest.raises(ImageError, match="damaged"):
        images.read_image(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("package", "name", "content"),
    [
        ("imagecodecs", "x.png has 16 bits a channel, and needs the package imagecodecs", None),
        ("pillow_heif", "x.png is a HEIC, and the reader of this format needs the package pillow-heif", b"heic"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, package, name, content):
    write_with_opencv(tmp_path / "x.png", RGB)
    if content:
        (tmp_path / "x.png").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    plain = importlib.import_module

    def missing(name: str) -> object:
        if name == package:
            raise ImportError(name)
        return plain(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImageError, match=rf"{name}: run pip install 'glama-deploy\[formats\]'"):
        images.read_image(tmp_path / "x.png")


def test_more_bits_than_a_reader_gives_are_noted_or_refused(tmp_path, caplog):
    (tmp_path / "x.avif").write_bytes(imagecodecs.avif_encode(RGB >> 6, bitspersample=10))
    (tmp_path / "x.jp2").write_bytes(imagecodecs.jpeg2k_encode(RGB >> 4, bitspersample=12, codecformat="jp2"))
    for _ in range(2):
        assert images.read_image(tmp_path / "x.avif").rgb.dtype == np.uint8
    assert caplog.text.count("x.avif has 10 bits a channel, of which 8 are read") == 1
    with pytest.raises(ImageError, match=r"x\.jp2 is a JPEG 2000 of 12 bits a channel; 8 are expected"):
        images.read_image(tmp_path / "x.jp2")


def test_colors_multiplied_by_their_alpha_are_refused(tmp_path):
    pixels = np.full((20, 30, 4), 40_000, np.uint16)
    with (tmp_path / "x.tif").open("w+b") as file:
        picture = images.Picture(pixels[..., :3], pixels[..., 3])
        images._encode(file, picture, "TIFF", "x.tif", None)
    assert images.read_image(tmp_path / "x.tif").alpha is not None
    data = (tmp_path / "x.tif").read_bytes()
    straight = b"\x52\x01\x03\0\x01\0\0\0\x02"  # the tag ExtraSamples, one short, unassociated alpha
    assert straight in data
    (tmp_path / "x.tif").write_bytes(data.replace(straight, straight[:-1] + b"\x01"))
    with pytest.raises(ImageError, match="colors that are multiplied by their alpha; save the picture with straight"):
        images.read_image(tmp_path / "x.tif")


def test_a_later_frame_of_a_deep_animated_png_is_refused(tmp_path):
    """Its reader gives the first frame, whichever was chosen."""
    frames = [Image.fromarray(np.full((20, 30), value, np.uint16)) for value in (1000, 60_000)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    assert images.read_image(tmp_path / "x.png", images.FileRule(0)).rgb.max() == 1000
    with pytest.raises(ImageError, match="animated PNG of 16 bits a channel, of which frame 0 alone is read"):
        images.read_image(tmp_path / "x.png", images.FileRule(1))
