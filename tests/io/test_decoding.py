"""Files that are no pictures, of kinds that are not supported, or too large: one line each, before any decoding."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from glama_deploy import memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import decoding
from glama_deploy.io.images import FileRule, read_image
from glama_deploy.io.mask_files import read_mask

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks (kind, data) and an end."""
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def black_png(height: int, width: int) -> bytes:
    """A PNG of one bit a pixel, all black, which takes hardly any bytes."""
    packer, row = zlib.compressobj(9), bytes(1 + -(-width // 8))
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", rows))


def sixteen_bit_rgb_png() -> bytes:
    """Pillow cannot write one, and reads it as 8 bits without a word."""
    rows = b"".join(b"\0" + RNG.integers(0, 256, 30 * 6, np.uint8).tobytes() for _ in range(20))
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(rows)))


def test_masks_of_sixteen_bits_are_refused_not_cut(tmp_path):
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    (tmp_path / "rgb16.png").write_bytes(sixteen_bit_rgb_png())
    for name in ("gray16.png", "rgb16.png"):
        with pytest.raises(ImageError, match="8-bit"):
            read_mask(tmp_path / name)


def test_masks_in_cmyk_and_with_several_frames_are_refused(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(ImageError, match="CMYK"):
        read_mask(tmp_path / "cmyk.jpg")
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="2 frames; split"):
        read_mask(tmp_path / "two.png")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_a_frame_is_read_only_if_one_is_chosen(tmp_path, suffix):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    frames = [Image.new("RGB", (20, 30), colour) for colour in colours]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ImageError, match=r"x.* has 3 frames; set `frame` to one of 0 to 2, or split"):
        read_image(tmp_path / f"x{suffix}")
    for number, colour in enumerate(colours):
        rgb = read_image(tmp_path / f"x{suffix}", FileRule(frame=number)).rgb
        assert rgb.shape == (30, 20, 3)
        np.testing.assert_array_equal(rgb[0, 0], colour)
    with pytest.raises(ImageError, match=r"`frame` is 3, and .* has 3 frames, 0 to 2"):
        read_image(tmp_path / f"x{suffix}", FileRule(frame=3))


def test_a_frame_of_a_file_with_one_is_0(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", FileRule(frame=0)).rgb, RGB)
    with pytest.raises(ImageError, match=r"`frame` is 1, and .* has 1 frame, 0"):
        read_image(tmp_path / "x.png", FileRule(frame=1))
    with pytest.raises(GlamaError, match="`frame` is -1; 0"):
        FileRule(frame=-1)


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_not_an_image_is_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match="is not a supported image, or is damaged"):
        read_image(tmp_path / "x.png")
    with pytest.raises(ImageError, match="no image at"):
        read_image(tmp_path / "nothing.png")


def test_no_other_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow hands an EPS to Ghostscript, whatever the file is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageError, match="format not supported: PostScript"):
        read_image(tmp_path / "x.png")
    assert not (tmp_path / "marker").exists()


def test_a_tiff_without_its_tags_is_an_error(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    with pytest.raises(ImageError, match="is not a supported image, or is damaged"):
        read_image(tmp_path / "x.tif")


def test_a_phones_picture_with_a_second_lens_is_its_first(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "MPO"
        expected = np.asarray(image)
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg").rgb, expected)


def test_a_truncated_image_is_an_error(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="damaged"):
        read_image(tmp_path / "x.png")


def other_kinds() -> dict[str, bytes]:
    """Files of formats that are not supported; Pillow writes those that it can."""
    made = {}
    for kind in ("GIF", "JPEG2000", "AVIF", "ICO"):
        if kind not in Image.SAVE:
            Image.init()
        if kind in Image.SAVE:
            file = io.BytesIO()
            Image.fromarray(RGB).save(file, kind)
            made["JPEG 2000" if kind == "JPEG2000" else kind] = file.getvalue()
    heic = struct.pack(">I", 24) + b"ftypmif1\0\0\0\0mif1heic"
    return {
        **made,
        "HEIC": heic,
        "OpenEXR": b"\x76\x2f\x31\x01",
        "Radiance HDR": b"#?RADIANCE\n",
        "JPEG XL": b"\xff\x0a\x00",
        "web page": b"\xef\xbb\xbf\n<!DOCTYPE html>",
        "SVG": b"\n<svg>",
    }


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_format_that_is_not_supported_is_named(tmp_path, read):
    kinds = other_kinds()
    assert {"GIF", "JPEG 2000"} <= set(kinds)
    for kind, content in kinds.items():
        if read is read_image and kind in ("GIF", "JPEG 2000", "AVIF", "HEIC"):
            continue  # pictures may have these formats
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ImageError, match=f"x.png: format not supported: {kind}.*a PNG.*convert the file first"):
            read(tmp_path / "x.png")


def test_a_jpeg_of_any_name_is_read(tmp_path):
    for name in ("x.jfif", "x.jpe", "x.png"):
        Image.fromarray(RGB).save(tmp_path / name, "JPEG")
        assert read_image(tmp_path / name).rgb.shape == RGB.shape


def test_a_png_with_megabytes_of_text_and_profile_is_read(tmp_path):
    """Pillow alone refuses more than 1 MB of either."""
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 3_000_000, zip=True)
    profile = RNG.integers(0, 256, 3_000_000, np.uint8).tobytes()
    Image.fromarray(RGB).save(tmp_path / "x.png", pnginfo=info, icc_profile=profile)
    picture = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(picture.rgb, RGB)
    assert picture.metadata.icc_profile == profile


def test_a_png_with_a_text_bomb_is_refused_in_one_line(tmp_path):
    packer = zlib.compressobj(9)
    text = b"".join(packer.compress(bytes(1 << 20)) for _ in range(65)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30, 20, 8, 0, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(png((b"IHDR", header), (b"zTXt", b"k\0\0" + text)))
    with pytest.raises(ImageError, match="more than 64 MB of text or colour profile; remove"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("count", [5, 20, 256, 300])
def test_a_palette_with_transparency_for_more_colours_is_refused_in_one_line(tmp_path, count):
    header = struct.pack(">IIBBBBB", 30, 20, 8, 3, 0, 0, 0)
    rows = zlib.compress(bytes(31 * 20))
    chunks = ((b"PLTE", bytes(12)), (b"tRNS", bytes(count)), (b"IDAT", rows))
    (tmp_path / "x.png").write_bytes(png((b"IHDR", header), *chunks))
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=f"transparency for {count} colours, but a palette of 4"):
            read(tmp_path / "x.png")


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1_000_000_000)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, small_memory, monkeypatch):
    (tmp_path / "x.png").write_bytes(black_png(13000, 13000))
    assert (tmp_path / "x.png").stat().st_size < 30_000
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for read in (read_image, read_mask):
        with pytest.raises(
            ImageError, match=r"13000x13000 and needs about 3\.4 GB, 1\.0 GB are free; scale the image down"
        ):
            read(tmp_path / "x.png")


@pytest.mark.parametrize(("height", "width"), [(16384, 16384), (11000, 16384)])
def test_an_image_above_pillows_limit_is_opened_without_a_warning(tmp_path, height, width):
    """178.9 megapixels are an error for Pillow, 89.5 a warning. (Decoding them takes gigabytes; the header tells.)"""
    (tmp_path / "x.png").write_bytes(black_png(height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoding.read_size(tmp_path / "x.png") == (height, width)


def test_an_image_above_pillows_limit_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a user's, too, says nothing about ours
    Image.fromarray(RGB).save(tmp_path / "x.png")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").rgb, RGB)


def test_more_pixels_than_any_network_takes_are_refused_with_the_limit(tmp_path):
    (tmp_path / "x.png").write_bytes(black_png(16384, 16392))
    with pytest.raises(ImageError, match="16384x16392; at most 16384x16384 pixels are supported"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.mkdir()])
def test_a_path_that_is_not_a_file_is_refused_in_one_line(tmp_path, make: Callable[[Path], None]):
    make(tmp_path / "x.png")
    with pytest.raises(ImageError, match="no image at"):
        read_image(tmp_path / "x.png")


def test_a_path_that_is_too_long_is_refused_in_one_line():
    with pytest.raises(GlamaError, match=r"x{200}… \(5000 characters\): File name too long; check the path$"):
        read_image(Path("x" * 5000))
