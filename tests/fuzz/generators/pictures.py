"""Images and masks: valid ones of odd kinds, and mutated files of every format.

The outside truth of an image is Pillow's own decoder; of a mask, the hole that the generator drew.
"""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from fuzz.case import Case, Wrong
from fuzz.generators.mutation import mutate_bytes
from glama_deploy.inpainting.folder import Job, fill_job, read_job

#: The images have at most 300 pixels a side.
GROWTH_BYTES = 128 << 20
ADDRESS_BYTES = 4 << 30

_FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}

#: Modes that are refused beside those that are read; not every format writes each.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB")

#: Dark and light value of a mask with two values, as programs and video write them.
_TWO_VALUES = ((0, 255), (0, 1), (0, 128), (3, 255), (16, 235), (0, 254), (1, 254))

#: Options of Pillow's writers that few files have; `append` stands for a second frame.
_SAVE_OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"icc_profile": b"x" * 40},
    {"dpi": (0, 0)},
    {"progressive": True},
    {"append": True},
)

#: Side of the squares that a hole is made of: a JPEG's blocks have 8 pixels a side, so a square touches no other block.
_SQUARE = 16

_OUT = "out.png"


def prepare(base: Path) -> None:
    """Nothing is shared: each case draws its own picture."""


def generate(seed: int, base: Path) -> Case:
    """Return an image and a mask, of which at most one is odd or mutated."""
    rng = random.Random(seed)
    kind = rng.choice(
        ("image", "mask", "image bytes", "image bytes", "mask bytes", "header", "PNG text", "tRNS", "EXIF", "metadata")
    )
    height, width = (_SQUARE * rng.randint(2, 6) for _ in range(2))
    image, mask, hole = _photo(rng, height, width), "mask.png", _hole(rng, height, width)
    image_name, image_file = _encoded(rng, image, "image", odd=kind == "image")
    mask_file = _png(Image.fromarray(hole))
    if kind == "mask":
        mask, mask_file = _encoded_mask(rng, hole)
    elif kind == "image bytes":
        image_file = mutate_bytes(rng, image_file)[1]
    elif kind == "mask bytes":
        mask_file = mutate_bytes(rng, mask_file)[1]
    elif kind == "header":
        image_name, image_file = _huge(rng)
    elif kind == "PNG text":
        image_name, image_file = "image.png", _png_with_chunks(rng, image)
    elif kind == "tRNS":
        image_name, image_file = "image.png", _png_with_transparency(rng, image)
    elif kind == "EXIF":
        image_name, image_file = "image.jpg", _turned(rng, image)
    elif kind == "metadata":
        image_name, image_file = _with_metadata(rng, image)
    expected = hole if kind not in ("mask bytes", "EXIF") else None
    return Case(
        f"{kind}: {image_name if kind != 'mask' else mask}",
        {image_name: image_file, mask: mask_file},
        expected=expected,
    )


def _photo(rng: random.Random, height: int, width: int) -> Image.Image:
    """A smooth picture, so that no photo looks like a mask."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(y / rng.uniform(3, 30) + x / rng.uniform(3, 30) + channel) for channel in range(3)]
    return Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))


def _hole(rng: random.Random, height: int, width: int) -> np.ndarray:
    """Some squares, at least one of them known and one of them missing; bool H×W."""
    squares = np.zeros((height // _SQUARE, width // _SQUARE), bool)
    places = rng.sample(range(squares.size), rng.randint(1, squares.size // 2))
    squares.flat[places] = True
    return np.repeat(np.repeat(squares, _SQUARE, 0), _SQUARE, 1)


def _png(image: Image.Image) -> bytes:
    return _saved(image, "PNG")


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _encoded(rng: random.Random, image: Image.Image, stem: str, *, odd: bool) -> tuple[str, bytes]:
    """A file in one of the formats; an odd one in an unusual mode, or with options that few files have."""
    kind = rng.choice(list(_FORMATS))
    name = f"{stem}.{_FORMATS[kind]}"
    if not odd:
        return name, _saved(image, kind)
    mode = rng.choice(_MODES)
    converted = image.convert("L").convert(mode) if mode in ("I;16", "I", "F") else _in_mode(image, mode)
    options = rng.choice(_SAVE_OPTIONS)
    if options == {"append": True}:
        options = {"save_all": True, "append_images": [converted]}
    try:
        return name, _saved(converted, kind, **options)
    except (OSError, ValueError, KeyError):  # a format that cannot write the mode
        return f"{stem}.tif", _saved(image, "TIFF", compression=rng.choice((None, "tiff_lzw", "jpeg", "tiff_deflate")))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    if mode == "PA":
        return image.convert("P").convert("PA")
    return image.convert(mode)


def _encoded_mask(rng: random.Random, hole: np.ndarray) -> tuple[str, bytes]:
    """The hole as a file of one of the formats, in two values."""
    kind = rng.choice(list(_FORMATS))
    lossy = kind in ("JPEG", "WEBP")
    dark, light = rng.choice([pair for pair in _TWO_VALUES if not lossy or pair[1] > 200])
    image = Image.fromarray(np.where(hole, np.uint8(light), np.uint8(dark)))
    image = image.convert(rng.choice(("L", "RGB", "P"))) if kind not in ("JPEG", "WEBP") else image.convert("RGB")
    options: dict[str, object] = {"lossless": rng.random() < 0.5} if kind == "WEBP" else {}
    return f"mask.{_FORMATS[kind]}", _saved(image, kind, **options)


def _huge(rng: random.Random) -> tuple[str, bytes]:
    """A small file that claims a huge picture."""
    width, height = rng.choice(
        ((16385, 16), (20_000, 20_000), (65_535, 65_535), (2**31 - 1, 1), (0, 5), (2**31, 2**31))
    )
    if rng.random() < 0.5:
        header = struct.pack(">IIBBBBB", width, height, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 6)), 0, 0, 0)
        return "image.png", _png_of((b"IHDR", header), (b"IDAT", zlib.compress(bytes(20 << 20))), (b"IEND", b""))
    fields = struct.pack("<IiiHHIIiiII", 40, min(width, 2**31 - 1), min(height, 2**31 - 1), 1, 24, 0, 0, 0, 0, 0, 0)
    return "image.bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + fields


def _png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _png_with_chunks(rng: random.Random, image: Image.Image) -> bytes:
    """A PNG with much text, a large profile, or chunks that nobody knows."""
    info = PngImagePlugin.PngInfo()
    kind = rng.choice(("text", "zipped text", "long text", "profile", "unknown"))
    if kind in ("text", "zipped text"):
        info.add_text("Comment", "x" * rng.choice((100, 2 << 20)), zip=kind == "zipped text")
    elif kind == "long text":
        for number in range(200):
            info.add_text(f"k{number}", "y" * 20_000)
    elif kind == "unknown":
        info.add(b"xxXx", rng.randbytes(50))
    profile = rng.randbytes(rng.choice((10, 2 << 20))) if kind == "profile" else None
    return _saved(image, "PNG", pnginfo=info, icc_profile=profile)


def _png_with_transparency(rng: random.Random, image: Image.Image) -> bytes:
    """A PNG whose tRNS chunk is odd: of a palette, of one colour, or longer than the palette."""
    few = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=rng.choice((2, 7, 256)))
    kind = rng.choice(("palette", "longer", "colour", "index"))
    if kind == "colour":
        return _saved(image, "PNG", transparency=(1, 2, 3))
    if kind == "index":
        return _saved(few, "PNG", transparency=rng.choice((0, 1)))
    data = _saved(few, "PNG")
    at = data.index(b"IDAT") - 4
    values = rng.randbytes(rng.choice((1, 7))) if kind == "palette" else rng.randbytes(300)
    chunk = struct.pack(">I", len(values)) + b"tRNS" + values + struct.pack(">I", zlib.crc32(b"tRNS" + values))
    return data[:at] + chunk + data[at:]


def _turned(rng: random.Random, image: Image.Image) -> bytes:
    """A JPEG whose EXIF data turns the picture, or is damaged."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice((1, 2, 3, 5, 6, 8))
    data = bytearray(_saved(image, "JPEG", exif=exif))
    if rng.random() < 0.3:
        data[rng.randrange(4, 40)] ^= 0xFF
    return bytes(data)


def _with_metadata(rng: random.Random, image: Image.Image) -> tuple[str, bytes]:
    """A file whose EXIF, XMP, Photoshop data and comment are damaged. The picture has no orientation."""
    exif = Image.Exif()
    exif[0x010F], exif[0x011A], exif[0x011B] = "Maker", 300, 300
    exif.get_ifd(0x8769)[0x927C] = b"\xff\xd8\xff" + rng.randbytes(50) + b"\xff\xd9"
    exif.get_ifd(0x8825)[1] = "N"
    block = b"Exif\0\0" + mutate_bytes(rng, exif.tobytes()[6:])[1].replace(b"\x12\x01", b"\0\0")
    packet = mutate_bytes(
        rng, b"<x:xmpmeta><xmp:Thumbnails>x</xmp:Thumbnails><d exif:PixelXDimension='3'/></x:xmpmeta>"
    )[1]
    resources = b"8BIM\x04\x04\0\0\0\0\0\x05\x1c\x02\x78\0\0\0" + b"8BIM\x04\x0c\0\0\0\0\0\x02ab"
    segment = b"Photoshop 3.0\0" + mutate_bytes(rng, resources)[1]
    extra = b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment
    kind = rng.choice(("JPEG", "PNG", "WEBP", "TIFF"))
    options: dict[str, dict[str, object]] = {
        "JPEG": {"exif": block, "xmp": packet, "extra": extra, "comment": rng.randbytes(30), "quality": 95},
        "PNG": {"exif": block},
        "WEBP": {"exif": block, "xmp": packet, "lossless": True},
        "TIFF": {"tiffinfo": {700: packet, 34377: resources, 33723: rng.randbytes(9), 65000: rng.randbytes(9)}},
    }
    return f"image.{_FORMATS[kind]}", _saved(image, kind, **options[kind])


def _paint(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Fill missing pixels with one colour."""
    return np.where(missing[..., None], np.uint8(77), image)


def check(case: Case, folder: Path, base: Path) -> None:
    """Read both, fill the hole with a colour, write; the pixels outside the hole are Pillow's, the hole is known."""
    names = {Path(name).stem: folder / name for name in case.files}
    out = folder / _OUT
    job = Job(names["image"], names["mask"], out)
    picture, missing = read_job(job)
    fill_job(_paint, job, picture, missing)
    if isinstance(case.expected, np.ndarray) and not np.array_equal(missing, case.expected):
        raise Wrong("the mask is not the hole that was drawn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = Image.open(names["image"])
        # Pillow does not turn a picture whose EXIF data are damaged; these pictures are upright
        truth = _pixels(stored if case.label.startswith("metadata") else ImageOps.exif_transpose(stored))
    with Image.open(out) as written:
        found = _pixels(written)
    if found.shape != truth.shape:
        raise Wrong("the output has another size")
    if not np.array_equal(found[~missing], truth[~missing]):
        raise Wrong("known pixels changed")


def _pixels(image: Image.Image) -> np.ndarray:
    """The values of a picture: 16 bits in gray, else RGBA."""
    return np.asarray(image if image.mode.startswith("I;16") else image.convert("RGBA"))


def may_remain(case: Case, name: str, refused: bool) -> bool:
    """Only the output, and only of a case that is not refused."""
    return name == _OUT and not refused
