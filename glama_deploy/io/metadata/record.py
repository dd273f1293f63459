"""What a picture file holds beside pixels, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from glama_deploy.io.metadata.png_chunks import Chunk

#: Units of a density. ratio: the numbers only say how high and wide a pixel is.
Unit = Literal["inch", "cm", "ratio"]

#: Centimetres of an inch.
CM_PER_INCH = 2.54


@dataclass(frozen=True)
class Density:
    """The pixels of a unit of length.

    Attributes:
        x: pixels of a unit, across.
        y: pixels of a unit, down.
        unit: the unit.
    """

    x: Fraction
    y: Fraction
    unit: Unit

    @property
    def per_inch(self) -> tuple[float, float]:
        """Pixels of an inch, across and down. A ratio is left as it is."""
        factor = CM_PER_INCH if self.unit == "cm" else 1
        return float(self.x) * factor, float(self.y) * factor


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG is coded.

    Attributes:
        tables: the quantization tables of the components: 64 numbers each, row by row.
        subsampling: Pillow's number: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
        is_progressive: whether the JPEG is progressive.
        is_rgb: whether the components are red, green and blue.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int = 0
    is_progressive: bool = False
    is_rgb: bool = False


@dataclass(frozen=True)
class Metadata:
    """What a picture file holds beside pixels.

    Attributes:
        icc_profile: the colour profile.
        exif: the EXIF block, from TIFF's header on. The tags of a TIFF file that describe its picture are such a block.
        xmp: the XMP packet, in UTF-8.
        density: pixels of a unit of length.
        comments: the comments of a JPEG or GIF.
        chunks: chunks of a PNG: text, colours, and chunks that may be copied without being known.
        photoshop: Photoshop's image resources, which hold captions (IPTC), without previews.
        iptc: the captions of a TIFF file.
        jpeg: how a JPEG is coded; None for other files.
        tiff_compression: Pillow's name of a TIFF's compression; None for other files.
        tiff_predictor: the predictor of a TIFF's compression.
        lost: what the file holds and no output does, for people.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    density: Density | None = None
    comments: tuple[bytes, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    photoshop: bytes | None = None
    iptc: bytes | None = None
    jpeg: JpegCoding | None = None
    tiff_compression: str | None = None
    tiff_predictor: int | None = None
    lost: frozenset[str] = frozenset()


#: A picture of pixels alone.
NO_METADATA = Metadata()
