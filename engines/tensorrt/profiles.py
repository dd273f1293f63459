"""Optimization profiles: the size ranges that a dynamic engine is tuned for, small, middle and large.

A profile is tuned at its `opt` and works from `min` to `max`. From the user's min, opt and max, on each side:

    small    min … ¾·opt     tuned at opt / 2
    middle   min … 2·opt     tuned at opt
    large    min … max       tuned at √(middle's max · max)

All are drawn into [min, max] and rounded down to multiples of 8. The ranges nest, so that the first one that takes a
size is the one tuned nearest to it, and the last one takes every size that the engine does.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, cast, get_args

from glama_deploy.bundle import Size, SizeRange
from glama_deploy.errors import GlamaError
from glama_deploy.network import SIZE_MULTIPLE

#: How many profiles are asked for; `auto` leaves it to the target.
Profiles = Literal["auto", "one", "three"]


def nest_profiles(sizes: SizeRange) -> tuple[SizeRange, ...]:
    """Up to three profiles, the smallest first; the last covers `sizes`.

    Left out are a small one that would be a single size, and whichever would be no larger than the one before: a static
    engine has one.
    """
    opt = sizes.opt
    small = sizes.model_copy(update={"opt": _scale_within(sizes, opt, 1 / 2), "max": _scale_within(sizes, opt, 3 / 4)})
    middle = sizes.model_copy(update={"max": _scale_within(sizes, opt, 2)})
    between = [sqrt(top * most) for top, most in zip(middle.max, sizes.max, strict=True)]
    large = sizes.model_copy(update={"opt": _scale_within(sizes, (between[0], between[1]))})
    found = [small] if small.max not in (sizes.min, middle.max) else []
    found.append(middle)
    if middle.max != sizes.max:
        found.append(large)
    return tuple(found)


def parse_profiles(text: str) -> Profiles:
    """The option's value. Raises GlamaError for any other."""
    if text not in get_args(Profiles):
        raise GlamaError(f"`profiles` is {text!r}; expected {', '.join(get_args(Profiles))}")
    return cast(Profiles, text)


def _scale_within(sizes: SizeRange, size: tuple[float, float], factor: float = 1) -> Size:
    """`factor` times `size`, rounded down to multiples of 8, drawn into `sizes`."""
    height, width = (
        min(max(int(side * factor) // SIZE_MULTIPLE * SIZE_MULTIPLE, low), high)
        for side, low, high in zip(size, sizes.min, sizes.max, strict=True)
    )
    return height, width
