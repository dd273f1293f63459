from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from glama_deploy import images
from glama_deploy.errors import GlamaError, ImageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)
NO_HOLE = np.zeros((20, 30), bool)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_a_lossless_file_goes_in_and_out_bit_exact(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"in{suffix}", lossless=True)
    picture = images.read_image(tmp_path / f"in{suffix}")
    np.testing.assert_array_equal(picture.rgb, RGB)
    images.write_image(tmp_path / f"out{suffix}", picture, picture.rgb, NO_HOLE)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out{suffix}").convert("RGB")), RGB)


def test_grayscale_comes_back_as_grayscale(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "gray.png")
    picture = images.read_image(tmp_path / "gray.png")
    assert picture.gray
    np.testing.assert_array_equal(picture.rgb, np.repeat(RGB[..., :1], 3, axis=2))
    images.write_image(tmp_path / "out.png", picture, picture.rgb, NO_HOLE)
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "L"
        np.testing.assert_array_equal(np.asarray(out), RGB[..., 0])


def test_alpha_is_kept_and_missing_pixels_become_opaque(tmp_path):
    alpha = RNG.integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "rgba.png")
    picture = images.read_image(tmp_path / "rgba.png")
    np.testing.assert_array_equal(picture.rgb, RGB)
    hole = NO_HOLE.copy()
    hole[3:9, 4:20] = True
    images.write_image(tmp_path / "out.png", picture, picture.rgb, hole)
    out = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(out[..., :3], RGB)
    np.testing.assert_array_equal(out[..., 3], np.where(hole, 255, alpha))
    for ending, encoder in ((".jpg", "JPEG"), (".bmp", "BMP")):
        with pytest.raises(ImageError, match=f"{encoder} has no transparency"):
            images.write_image(tmp_path / f"out{ending}", picture, picture.rgb, hole)


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "p.png").rgb, np.asarray(palette.convert("RGB")))


def test_a_rotated_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(images.read_image(tmp_path / "turned.png").rgb, np.rot90(RGB, -1))


def test_the_colour_profile_is_kept(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "in.png", icc_profile=profile)
    picture = images.read_image(tmp_path / "in.png")
    images.write_image(tmp_path / "out.png", picture, picture.rgb, NO_HOLE)
    assert Image.open(tmp_path / "out.png").info["icc_profile"] == profile


def sixteen_bit_rgb_png() -> bytes:
    """Pillow cannot write one, and reads it as 8 bits without a word."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + RNG.integers(0, 256, 30 * 6, np.uint8).tobytes() for _ in range(20))
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
def test_sixteen_bits_are_refused_not_cut(tmp_path, read):
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    (tmp_path / "rgb16.png").write_bytes(sixteen_bit_rgb_png())
    for name in ("gray16.png", "rgb16.png"):
        with pytest.raises(ImageError, match="8-bit"):
            read(tmp_path / name)


def test_cmyk_and_animations_are_refused(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(ImageError, match="CMYK"):
        images.read_image(tmp_path / "cmyk.jpg")
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="2 frames"):
        images.read_image(tmp_path / "two.png")


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_an_error(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match="damaged or no image"):
        images.read_image(tmp_path / "x.png")
    with pytest.raises(ImageError, match="no image at"):
        images.read_image(tmp_path / "nothing.png")


def test_no_other_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow hands an EPS to Ghostscript, whatever the file is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageError, match="no image"):
        images.read_image(tmp_path / "x.png")
    assert not (tmp_path / "marker").exists()


def test_a_tiff_without_its_tags_is_an_error(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    with pytest.raises(ImageError, match="damaged or no image"):
        images.read_image(tmp_path / "x.tif")


def test_a_phones_picture_with_a_second_lens_is_its_first(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "MPO"
        expected = np.asarray(image)
    np.testing.assert_array_equal(images.read_image(tmp_path / "x.jpg").rgb, expected)


@pytest.mark.parametrize("suffix", [".gif", ".ico", ".pdf", ".avif", ".eps", ""])
def test_formats_that_would_change_known_pixels_are_refused(tmp_path, suffix):
    with pytest.raises(ImageError, match=r"\.png is a good choice"):
        images.write_image(tmp_path / f"x{suffix}", images.Picture(RGB, None, False, None), RGB, NO_HOLE)


def test_a_truncated_image_is_an_error(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="damaged"):
        images.read_image(tmp_path / "x.png")


def test_any_value_above_zero_is_missing_in_a_mask(tmp_path):
    values = np.zeros((20, 30), np.uint8)
    values[2, 3], values[4, 5] = 1, 255
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.png"), values > 0)
    Image.fromarray(values > 0).save(tmp_path / "m1.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m1.png"), values > 0)
    Image.fromarray(np.dstack([values, 0 * values, 0 * values])).save(tmp_path / "red.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "red.png"), values > 0)


def test_the_ringing_of_a_jpeg_is_not_taken_for_holes(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[20:41, 20:41] = 255
    Image.fromarray(values).save(tmp_path / "m.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "m.jpg")) > 0).sum() > (values > 0).sum()  # it does ring
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.jpg"), values > 0)


def test_a_photo_is_not_taken_for_a_mask(tmp_path):
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(RGB // 2 + 40).save(tmp_path / name)
        with pytest.raises(ImageError, match="looks like a photo, not a mask"):
            images.read_mask(tmp_path / name)


def test_a_mask_with_transparency_is_refused(tmp_path):
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="transparent"):
        images.read_mask(tmp_path / "m.png")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    picture = images.Picture(RGB, None, False, None)
    with pytest.raises(ImageError, match=r"ends in '\.tar'"):
        images.write_image(tmp_path / "x.tar", picture, RGB, NO_HOLE)
    with pytest.raises(GlamaError, match="folder on the way does not exist"):
        images.write_image(tmp_path / "no" / "x.png", picture, RGB, NO_HOLE)

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(GlamaError, match="no space is left"):
        images.write_image(tmp_path / "x.png", picture, RGB, NO_HOLE)
    assert not list(tmp_path.iterdir())
