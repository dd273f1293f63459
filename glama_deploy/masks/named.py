"""The named masks. A new mask needs one entry here, in the table of its group.

The settings are those of the code of the NTIRE 2022 challenge (affromero/NTIRE22_Inpainting, `mask_generation`) and of
LaMa (advimman/lama, `saicinpainting/training/data/masks.py`). Both draw lengths in pixels, independent of the image's
size. Here lengths grow with the image's smaller side: a mask at 128×128 is a mask at 256×256 at half the scale.
"""

from __future__ import annotations

import difflib

from glama_deploy.errors import GlamaError
from glama_deploy.masks.base import Mask
from glama_deploy.masks.fixed import Completion, EveryNLines, Expand, NearestNeighbor
from glama_deploy.masks.mixtures import BySide, OneOf, Union
from glama_deploy.masks.random_settings import (
    RandomCompletion,
    RandomEveryNLines,
    RandomExpand,
    RandomNearestNeighbor,
)
from glama_deploy.masks.strokes import Boxes, Painted, Strokes

#: The version of the settings below. Training runs and evaluation results of another version are not continued.
MASKS_VERSION = 2

#: Probability weights of strokes and boxes in the challenge's medium and thick strokes.
_STROKES_WEIGHT, _BOXES_WEIGHT = 1.0, 0.3

_THIN = BySide(
    (
        Painted(((Strokes((4, 51), (5, 14), (10, 49)), 1.0),)),
        Painted(((Strokes((4, 71), (5, 24), (10, 109)), 1.0),), side=512),
    )
)
_MEDIUM = BySide(
    (
        Painted(
            (
                (Strokes((4, 6), (5, 54), (10, 109)), _STROKES_WEIGHT),
                (Boxes((1, 5), (10, 50)), _BOXES_WEIGHT),
            )
        ),
        Painted(
            (
                (Strokes((4, 11), (5, 104), (10, 209)), _STROKES_WEIGHT),
                (Boxes((1, 5), (30, 150)), _BOXES_WEIGHT),
            ),
            side=512,
        ),
    )
)
_THICK = BySide(
    (
        Painted(
            (
                (Strokes((1, 6), (5, 104), (10, 209)), _STROKES_WEIGHT),
                (Boxes((1, 3), (30, 150), margin=10), _BOXES_WEIGHT),
            )
        ),
        Painted(
            (
                (Strokes((1, 6), (5, 254), (10, 459)), _STROKES_WEIGHT),
                (Boxes((1, 4), (30, 300), margin=10), _BOXES_WEIGHT),
            ),
            side=512,
        ),
    )
)

#: The masks with which LaMa trains at 256×256 (`abl-04-256-mh-dist.yaml`): strokes and boxes in equal shares. LaMa also
#: accepts a mask of the whole image, which did not occur in 20,000 draws. Here such a mask is drawn again.
_LAMA = Painted(
    (
        (Strokes((1, 6), (5, 104), (10, 209)), 1.0),
        (Boxes((1, 4), (30, 150), margin=10), 1.0),
    ),
    max_coverage=1.0,
)

#: Rectangles of any aspect ratio, for the combinations of Figure 6. The paper does not give their settings.
_RECTANGLES = Painted(((Boxes((1, 4), (30, 150)), 1.0),))

_STROKES: dict[str, Mask] = {"ThinStrokes": _THIN, "MediumStrokes": _MEDIUM, "ThickStrokes": _THICK}

#: The seven types of the paper's tables, with the public settings.
TYPES: dict[str, Mask] = {
    "Completion": Completion(),
    "Expand": Expand(),
    "EveryNLines": EveryNLines(),
    "NearestNeighbor": NearestNeighbor(),
    **_STROKES,
}

#: The seven types with the random settings of the challenge's `RandomAttribute`. The challenge's lines and grids begin
#: at the first pixel. Here they begin at any pixel: a network that was trained with one phase is worse at the others.
RANDOM_TYPES: dict[str, Mask] = {
    "RandomCompletion": RandomCompletion(),
    "RandomExpand": RandomExpand(),
    "RandomEveryNLines": RandomEveryNLines(),
    "RandomNearestNeighbor": RandomNearestNeighbor(),
    **_STROKES,
}

_RANDOM_GRIDS: tuple[Mask, ...] = (RandomEveryNLines(), RandomNearestNeighbor())
_RANDOM_SEVEN = tuple(RANDOM_TYPES.values())

#: Mixtures: LaMa's training, the paper's training (Table 4: five and all seven types), and the paper's test of
#: generalization (Figure 6). `random-attribute` is the challenge's name of `general`.
MIXTURES: dict[str, Mask] = {
    "lama": _LAMA,
    "lama-plus": OneOf((*_STROKES.values(), *_RANDOM_GRIDS)),
    "general": OneOf(_RANDOM_SEVEN),
    "random-attribute": OneOf(_RANDOM_SEVEN),
    "unseen": Union((*_RANDOM_SEVEN, _RECTANGLES)),
}

#: All named masks.
NAMED: dict[str, Mask] = TYPES | RANDOM_TYPES | MIXTURES


def by_name(name: str) -> Mask:
    """Return the mask of a name.

    Args:
        name: A key of `NAMED`, or several keys joined by +, each as likely as any other. For example, in half of the
            draws `general+RandomEveryNLines` is `general`.

    Returns:
        The mask, a callable.

    Raises:
        GlamaError: The name is unknown. The message suggests a similar name.
    """
    if "+" in name:
        return OneOf(tuple(by_name(part) for part in name.split("+")))
    if name in NAMED:
        return NAMED[name]
    by_lower = {candidate.lower(): candidate for candidate in NAMED}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"known are {', '.join(NAMED)}"
    raise GlamaError(f"unknown mask {name!r}; {advice}")
