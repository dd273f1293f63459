"""What a video says about the display that it was graded on, and about its brightest pixels (SMPTE 2086, CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame

#: FFmpeg's record of a display: ten fractions (x and y of red, green, blue and white; least and greatest luminance),
#: and whether the colours and the luminances are known.
_DISPLAY = struct.Struct("=20i2i")

#: FFmpeg's record of light: the brightest pixel, and the brightest mean of a frame, in candela a square metre.
_LIGHT = struct.Struct("=2I")

#: Steps of 1 for a colour, and of one candela a square metre for a luminance, in x265's options.
_COLOUR_STEPS, _LUMINANCE_STEPS = 50_000, 10_000


@dataclass(frozen=True)
class Hdr:
    """Metadata of high dynamic range.

    Attributes:
        display: the display in x265's notation; None if the video does not say.
        light: the brightest pixel and the brightest mean, in x265's notation; None if the video does not say.
    """

    display: str | None = None
    light: str | None = None

    def __bool__(self) -> bool:
        return self.display is not None or self.light is not None

    @classmethod
    def read(cls, frame: VideoFrame) -> Hdr:
        """Read the metadata of a frame.

        Args:
            frame: the frame.

        Returns:
            The metadata.
        """
        display = frame.side_data.get("MASTERING_DISPLAY_METADATA")
        light = frame.side_data.get("CONTENT_LIGHT_LEVEL")
        return cls(
            _read_display(bytes(display)) if display is not None else None,
            "{},{}".format(*_LIGHT.unpack_from(bytes(light))) if light is not None else None,
        )

    @property
    def x265_options(self) -> list[str]:
        """The options that make x265 write the metadata."""
        options = []
        if self.display is not None:
            options.append(f"master-display={self.display}")
        if self.light is not None:
            options.append(f"max-cll={self.light}")
        return options


#: The video does not say anything.
NO_HDR = Hdr()


def _read_display(data: bytes) -> str | None:
    """Return a display in x265's notation; None where its colours or luminances are not known."""
    *numbers, has_colours, has_luminances = _DISPLAY.unpack_from(data)
    if not has_colours or not has_luminances:
        return None
    values = [top / bottom if bottom else 0.0 for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)]
    places = [round(value * _COLOUR_STEPS) for value in values[:8]]
    red, green, blue, white = (f"({x},{y})" for x, y in zip(places[::2], places[1::2], strict=True))
    least, greatest = (round(value * _LUMINANCE_STEPS) for value in values[8:])
    return f"G{green}B{blue}R{red}WP{white}L({greatest},{least})"
