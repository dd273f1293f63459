"""A picture of masks with one row for each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from glama_deploy.masks.named import by_name

_MARGIN_PIXELS = 8
_LABEL_PIXELS = 190


def draw(names: Sequence[str], count: int, height: int, width: int, seed: int = 0) -> Image.Image:
    """Draw masks of several kinds, one row for each kind.

    Mask n of a kind is drawn with the seed (seed, n), so a row does not depend on the other rows.

    Args:
        names: Names of masks, as :func:`glama_deploy.masks.by_name` takes them.
        count: Number of masks of each kind.
        height: Height of each mask in pixels.
        width: Width of each mask in pixels.
        seed: Seed of the generator of random numbers.

    Returns:
        An RGB image: missing pixels are white, known pixels gray. The name and the mean coverage stand on the left.

    Raises:
        GlamaError: A name is unknown.
    """
    kinds = [by_name(name) for name in names]
    sheet = Image.new(
        "RGB",
        (_LABEL_PIXELS + count * (width + _MARGIN_PIXELS), len(names) * (height + _MARGIN_PIXELS) + _MARGIN_PIXELS),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for row, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        top = _MARGIN_PIXELS + row * (height + _MARGIN_PIXELS)
        masks = [kind(height, width, np.random.default_rng((seed, n))) for n in range(count)]
        pen.text((_MARGIN_PIXELS, top), f"{name}\n{np.mean(masks):.0%} missing", fill="black", font_size=14)
        for column, mask in enumerate(masks):
            shown = np.where(mask, 255, 90).astype(np.uint8)
            sheet.paste(Image.fromarray(shown), (_LABEL_PIXELS + column * (width + _MARGIN_PIXELS), top))
            box = (_LABEL_PIXELS + column * (width + _MARGIN_PIXELS) - 1, top - 1)
            pen.rectangle((*box, box[0] + width + 1, box[1] + height + 1), outline="black")
    return sheet
