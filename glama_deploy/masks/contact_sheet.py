"""A picture of masks: a row for each kind, with its name and the share that is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from glama_deploy.masks.named import by_name

_MARGIN, _LABEL = 8, 190


def draw(names: Sequence[str], count: int, height: int, width: int, seed: int = 0) -> Image.Image:
    """`count` masks of each name side by side, missing pixels white on grey; RGB.

    Mask number n of a kind is the one of the generator seeded with (seed, n), so a row does not depend on the others.
    Raises GlamaError for a name that does not exist.
    """
    kinds = [by_name(name) for name in names]
    sheet = Image.new("RGB", (_LABEL + count * (width + _MARGIN), len(names) * (height + _MARGIN) + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        top = _MARGIN + row * (height + _MARGIN)
        masks = [kind(height, width, np.random.default_rng((seed, n))) for n in range(count)]
        pen.text((_MARGIN, top), f"{name}\n{np.mean(masks):.0%} missing", fill="black", font_size=14)
        for column, mask in enumerate(masks):
            shown = np.where(mask, 255, 90).astype(np.uint8)
            sheet.paste(Image.fromarray(shown), (_LABEL + column * (width + _MARGIN), top))
            box = (_LABEL + column * (width + _MARGIN) - 1, top - 1)
            pen.rectangle((*box, box[0] + width + 1, box[1] + height + 1), outline="black")
    return sheet
