from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import images

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_a_lossless_file_goes_in_and_out_bit_exact(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"in{suffix}", lossless=True)
    picture = images.read_image(tmp_path / f"in{suffix}")
    np.testing.assert_array_equal(picture.rgb, RGB)
    images.write_image(tmp_path / f"out{suffix}", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out{suffix}").convert("RGB")), RGB)


def test_grayscale_comes_back_as_grayscale(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "gray.png")
    picture = images.read_image(tmp_path / "gray.png")
    assert picture.gray
    np.testing.assert_array_equal(picture.rgb, np.repeat(RGB[..., :1], 3, axis=2))
    images.write_image(tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "L"
        np.testing.assert_array_equal(np.asarray(out), RGB[..., 0])


def test_alpha_is_kept(tmp_path):
    alpha = RNG.integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "rgba.png")
    picture = images.read_image(tmp_path / "rgba.png")
    np.testing.assert_array_equal(picture.rgb, RGB)
    images.write_image(tmp_path / "out.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.dstack([RGB, alpha]))
    for ending, encoder in ((".jpg", "JPEG"), (".bmp", "BMP")):
        with pytest.raises(ImageError, match=f"{encoder} does not support the input.s transparency"):
            images.write_image(tmp_path / f"out{ending}", picture)


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
    images.write_image(tmp_path / "out.png", picture)
    assert Image.open(tmp_path / "out.png").info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", [".gif", ".ico", ".pdf", ".avif", ".eps", ""])
def test_formats_that_would_change_known_pixels_are_refused(tmp_path, suffix):
    with pytest.raises(ImageError, match=r"\.png is a good choice"):
        images.write_image(tmp_path / f"x{suffix}", images.Picture(RGB))


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    picture = images.Picture(RGB)
    with pytest.raises(ImageError, match=r"has the suffix '\.tar'"):
        images.write_image(tmp_path / "x.tar", picture)
    with pytest.raises(GlamaError, match="folder of the path does not exist"):
        images.write_image(tmp_path / "no" / "x.png", picture)

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(GlamaError, match="no space is left"):
        images.write_image(tmp_path / "x.png", picture)
    assert not list(tmp_path.iterdir())


def test_a_suffix_stands_for_the_format_that_pillow_would_choose():
    Image.init()
    for suffix in sorted(images.SUFFIXES):
        picture = images.Picture(RGB)
        assert images.check_format(Path(f"out{suffix}"), picture) == Image.registered_extensions()[suffix]


def test_pictures_are_read_and_written_without_pillows_other_plugins(tmp_path):
    """Their import takes longer than a small photo."""
    code = """
import sys
from pathlib import Path
from glama_deploy.io import images
picture = images.read_image(Path(sys.argv[1]) / "in.png")
for suffix in images.SUFFIXES:
    images.write_image(Path(sys.argv[1]) / f"out{suffix}", picture)
print(*sys.modules)
"""
    Image.fromarray(RGB).save(tmp_path / "in.png")
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "PIL.PngImagePlugin" in child.stdout.split()
    assert "PIL.PdfImagePlugin" not in child.stdout.split()
    assert len(list(tmp_path.glob("out.*"))) == len(images.SUFFIXES)


def exif_with_preview() -> bytes:
    """An EXIF block with an orientation, a maker, and a second directory: the preview picture of a camera."""
    orientation, maker = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHI4s", 0x010F, 2, 4, b"Me!\0")
    first = struct.pack(">H", 2) + orientation + maker
    preview = struct.pack(">H", 1) + struct.pack(">HHII", 0x0201, 4, 1, 1234) + struct.pack(">I", 0)
    return b"Exif\0\0MM\0*\0\0\0\x08" + first + struct.pack(">I", 8 + len(first) + 4) + preview


@pytest.mark.parametrize("encoder", ["PNG", "JPEG", "WEBP"])
def test_exif_is_kept_but_for_orientation_and_preview(encoder):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=exif_with_preview())
    with Image.open(file) as stored:
        assert stored.getexif().get_ifd(ExifTags.IFD.IFD1)  # else the test claims nothing
    picture = images.decode_image(file.getvalue(), "photo")
    np.testing.assert_array_equal(picture.rgb, np.rot90(RGB, -1))
    with Image.open(io.BytesIO(images.encode_image(picture, encoder, "photo"))) as out:
        exif = out.getexif()
        assert dict(exif) == {ExifTags.Base.Make: "Me!", ExifTags.Base.Orientation: 1}
        assert not exif.get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_left_out():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    picture = images.decode_image(file.getvalue(), "photo")
    np.testing.assert_array_equal(picture.rgb, RGB)


def test_quality_is_for_lossy_formats():
    picture = images.Picture(RGB)
    sizes = [len(images.encode_image(picture, "JPEG", "photo", quality)) for quality in (20, 90)]
    assert sizes[0] < sizes[1]
    with Image.open(io.BytesIO(images.encode_image(picture, "WEBP", "photo"))) as lossless:
        np.testing.assert_array_equal(np.asarray(lossless.convert("RGB")), RGB)
    assert len(images.encode_image(picture, "WEBP", "photo", 20)) < len(images.encode_image(picture, "WEBP", "photo"))
    with pytest.raises(ImageError, match="photo: JPEG does not support"):
        images.encode_image(images.Picture(RGB, RGB[..., 0]), "JPEG", "photo")
