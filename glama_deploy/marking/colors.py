"""Pixels of a color are missing: a marker, a stamp, or a sign that was painted into the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import ImageColor

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.deep import reduce_depth
from glama_deploy.io.images import Picture

#: Red, green and blue, 0 to 255 each.
Color = tuple[int, int, int]


def parse_color(text: str) -> Color:
    """Read a color.

    Args:
        text: `#rrggbb`, `#rgb`, or another form that Pillow reads, such as `red`.

    Returns:
        Red, green and blue, 0 to 255 each.

    Raises:
        GlamaError: the text is no color, or the color has an alpha.
    """
    expected = "#rrggbb or a name is expected, such as #ff0080 or red"
    try:
        values = ImageColor.getrgb(text.strip())
    except ValueError as error:
        raise GlamaError(f"`color` is {text!r}; {expected}") from error
    if len(values) != 3:
        raise GlamaError(f"`color` is {text!r}, which has an alpha; {expected}")
    return values


def show_color(color: Color) -> str:
    """Show a color as `#rrggbb`.

    Args:
        color: red, green and blue.

    Returns:
        The text.
    """
    return "#" + "".join(f"{value:02x}" for value in color)


def find_color(picture: Picture, color: Color, tolerance: int, name: object) -> np.ndarray:
    """Find the pixels of a color.

    Args:
        picture: the picture. Pixels of alpha 0 have no visible color, and are not found. Values of 16 bits are rounded
            to 8.
        color: red, green and blue.
        tolerance: the largest difference of each channel, 0 to 255.
        name: name of the picture in messages.

    Returns:
        bool H×W, True where a pixel has the color.

    Raises:
        ImageError: no pixel has the color. The message has the nearest color's distance.
    """
    distances = _measure_distances(reduce_depth(picture.rgb), color)
    found = distances <= tolerance
    visible = None if picture.alpha is None else picture.alpha > 0
    if visible is not None:
        found &= visible
    if not found.any():
        seen = distances if visible is None else distances[visible]
        shown = f"`color={show_color(color)}`"
        if not seen.size:
            raise ImageError(f"{name} is transparent everywhere, so no pixel has {shown}")
        raise ImageError(
            f"{name} has no pixel within {tolerance} of {shown}; the nearest differs by {seen.min()}: check the color, "
            f"or set `color_tolerance` to {seen.min()} or more"
        )
    return found


def _measure_distances(rgb: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Return the largest difference of a channel (uint8 H×W) between each pixel (uint8 H×W×3) and a color."""
    distances = np.zeros(rgb.shape[:2], np.uint8)
    for channel, value in enumerate(color):
        values, wanted = rgb[..., channel], np.uint8(value)
        np.maximum(distances, np.maximum(values, wanted) - np.minimum(values, wanted), out=distances)
    return distances
