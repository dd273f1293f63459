"""Files go through the page without loss: colours, transparency, EXIF, colour profile, orientation."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from glama_deploy.inpainting.transparency import fill_picture
from glama_deploy.io.images import Picture, read_image

LOSSLESS: dict[str, dict[str, bool]] = {"png": {}, "webp": {"lossless": True}}

ORIENTATION, MODEL, THUMBNAIL = 0x0112, 0x0110, 0x0201


def make_profile() -> bytes:
    """Return a colour profile that a browser would convert: red and green primaries are exchanged, gamma is 1."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def make_exif(orientation: int) -> bytes:
    """Return EXIF with a model, an orientation and a thumbnail."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[MODEL] = orientation, "A camera"
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 16), (255, 0, 0)).save(thumbnail, "JPEG")
    head = exif.tobytes()  # Exif\0\0, then TIFF, whose only directory ends with a link of four bytes
    tiff = bytearray(head[6:])
    order = "little" if tiff[:2] == b"II" else "big"
    first = int.from_bytes(tiff[4:8], order)
    link = first + 2 + 12 * int.from_bytes(tiff[first : first + 2], order)
    second = len(tiff)
    tiff[link : link + 4] = second.to_bytes(4, order)
    start = second + 2 + 2 * 12 + 4
    entries = [(THUMBNAIL, start), (THUMBNAIL + 1, len(thumbnail.getvalue()))]
    tiff += len(entries).to_bytes(2, order)
    for tag, value in entries:
        tiff += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    tiff += bytes(4) + thumbnail.getvalue()
    return head[:6] + bytes(tiff)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def check_exif(image: Image.Image, data: bytes) -> None:
    """Check that the model is kept, the orientation reset, and that nothing of the thumbnail is left."""
    exif = image.getexif()
    assert exif[MODEL].rstrip("\0") == "A camera"
    assert exif[ORIENTATION] == 1
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    assert data.count(b"\xff\xd8\xff") == (1 if image.format == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_jpeg_keeps_exif_and_profile_and_is_turned_upright(screen, noise, tmp_path, orientation):
    path, profile = tmp_path / "photo.jpg", make_profile()
    photo = Image.fromarray(noise)
    photo.save(path, quality=95, subsampling=0, exif=make_exif(orientation), icc_profile=profile, dpi=(300, 300))
    screen.open(path)
    name, data = screen.download()
    result = opened(data)
    assert name == "photo-filled.jpg"
    assert result.format == "JPEG"
    assert result.info["icc_profile"] == profile
    assert result.info["dpi"] == (300, 300)
    check_exif(result, data)
    upright = read_image(path).rgb
    assert result.size == (upright.shape[1], upright.shape[0])
    png = opened(screen.download("savePng")[1])
    # the page decodes as Pillow does, but for the rounding of another JPEG decoder
    assert np.abs(np.asarray(png).astype(int) - upright).max() <= 3
    assert np.abs(np.asarray(png).astype(int) - upright).mean() < 0.1
    assert png.info["icc_profile"] == profile
    check_exif(png, screen.download("savePng")[1])


@pytest.mark.parametrize(("suffix", "mode"), [("png", "RGB"), ("png", "RGBA"), ("webp", "RGB")])
def test_every_orientation_is_applied_once(screen, noise, tmp_path, suffix, mode):
    image = Image.fromarray(noise)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(noise[..., 0]))
    for orientation in range(1, 9):
        path = tmp_path / f"photo-{orientation}.{suffix}"
        image.save(path, exif=make_exif(orientation)[6 if suffix == "webp" else 0 :], **LOSSLESS[suffix])
        screen.open(path)
        result = opened(screen.download()[1])
        expected = read_image(path)
        pixels = np.asarray(result)
        np.testing.assert_array_equal(pixels[..., :3], expected.rgb)
        if expected.alpha is not None:
            np.testing.assert_array_equal(pixels[..., 3], expected.alpha)
        assert result.getexif()[ORIENTATION] == 1


def test_a_png_keeps_its_pixels_profile_exif_and_texts(screen, noise, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    path, profile, texts = tmp_path / "photo.png", make_profile(), PngInfo()
    texts.add_text("Author", "A painter")
    Image.fromarray(noise).save(path, icc_profile=profile, exif=make_exif(1), pnginfo=texts, dpi=(300, 300))
    screen.open(path)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    data = screen.download()[1]
    result = opened(data)
    changed = (np.asarray(result) != noise).any(axis=2)
    assert 0 < changed.sum() < 4000
    assert result.info["icc_profile"] == profile
    assert result.info["Author"] == "A painter"
    assert round(result.info["dpi"][0]) == 300
    check_exif(result, data)


def test_a_transparent_png_keeps_hidden_colours_and_is_filled_as_python_fills_it(screen, noise, tmp_path, inpainter):
    alpha = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))
    rgba = np.dstack([noise, alpha])
    path = tmp_path / "logo.png"
    Image.fromarray(rgba).save(path)
    screen.open(path)
    screen.collect((140, 100), (180, 120))
    missing = screen.mask()
    screen.run("fill")
    screen.status("Filled in")
    result = np.asarray(opened(screen.download()[1]))
    np.testing.assert_array_equal(result[~missing], rgba[~missing])
    filled = fill_picture(inpainter, Picture(noise, alpha), missing)  # the box is nearly the whole picture
    assert np.abs(result[missing][:, :3].astype(int) - filled.rgb[missing]).mean() < 12
    assert np.abs(result[missing][:, 3].astype(int) - filled.alpha[missing]).mean() < 12


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1"])
def test_gray_and_palette_files_keep_their_known_pixels(screen, noise, tmp_path, mode):
    image = Image.fromarray(noise).convert("L" if mode == "LA" else mode)
    if mode == "LA":
        image.putalpha(Image.fromarray(noise[..., 0]))
    path = tmp_path / "photo.png"
    image.save(path)
    screen.open(path)
    screen.collect((140, 100), (180, 120))
    missing = screen.mask()
    screen.run("fill")
    screen.status("Filled in")
    result = opened(screen.download()[1])
    assert result.mode == {"P": "RGB", "1": "L"}.get(mode, mode)
    np.testing.assert_array_equal(np.asarray(result)[~missing], np.asarray(image.convert(result.mode))[~missing])


TITLE = "Übung — Łódź €"
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title>{TITLE}</dc:title></x:xmpmeta>'.encode()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_xmp_keeps_letters_of_all_languages(screen, noise, tmp_path, suffix):
    from PIL.PngImagePlugin import PngInfo

    path, texts = tmp_path / f"photo.{suffix}", PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    Image.fromarray(noise).save(path, **({"pnginfo": texts} if suffix == "png" else {"xmp": XMP}))
    screen.open(path)
    for command in ("save", "savePng"):
        result = opened(screen.download(command)[1])
        found = result.info["xmp" if result.format == "JPEG" else "XML:com.adobe.xmp"]
        assert (found if isinstance(found, bytes) else found.encode()) == XMP


def test_a_damaged_profile_is_left_out_with_a_note(screen, noise, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(noise).save(path, icc_profile=make_profile())
    data = path.read_bytes()
    start = data.index(b"iCCP") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    body = b"iCCPprofile\0\0" + bytes(length - 9)
    chunk = data[start : start + 4] + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(data[:start] + chunk + data[start + 12 + length :])
    screen.open(path)
    screen.page.locator("#alert", has_text="colour profile of this file is damaged").wait_for()
    result = opened(screen.download()[1])
    np.testing.assert_array_equal(np.asarray(result), noise)
    assert "icc_profile" not in result.info


def test_a_file_of_16_bits_is_opened_with_a_note(screen, tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray((np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)).save(path)
    screen.open(path)
    screen.page.locator("#alert", has_text="16 bits").wait_for()


def test_a_webp_is_saved_as_png_with_its_exif_and_profile(screen, noise, tmp_path):
    path, profile = tmp_path / "photo.webp", make_profile()
    Image.fromarray(noise).save(path, lossless=True, icc_profile=profile, exif=make_exif(1)[6:])
    screen.open(path)
    name, data = screen.download()
    assert name == "photo-filled.png"
    np.testing.assert_array_equal(np.asarray(opened(data)), noise)
    assert opened(data).info["icc_profile"] == profile
    check_exif(opened(data), data)


def test_the_result_is_copied_as_png(browser, screen, picture, noise):
    screen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    screen.open(picture)
    screen.run("copy")
    screen.status("clipboard")
    values = screen.page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            return [...new Uint8Array(await (await item.getType("image/png")).arrayBuffer())];
        }"""
    )
    np.testing.assert_array_equal(np.asarray(opened(bytes(values)).convert("RGB")), noise)
