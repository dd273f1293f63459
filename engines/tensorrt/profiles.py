"""Optimization profiles: the small, middle and large size ranges that a dynamic engine is tuned for.

A profile is tuned at its `opt` and works from `min` to `max`. From the user's min, opt and max, on each side:

    small    min … ¾·opt     tuned at opt / 2
    middle   min … 2·opt     tuned at opt
    large    min … max       tuned at √(middle's max · max)

All sides are limited to [min, max] and rounded down to multiples of 8. The ranges nest. The first profile that takes a
size is therefore the one that is tuned nearest to that size. The last profile takes every size of the engine.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, cast, get_args

from glama_deploy.bundle import DEFAULT_PROFILE, Size, SizeRange
from glama_deploy.errors import GlamaError
from glama_deploy.network import SIZE_MULTIPLE

#: The number of profiles; with `auto` the target chooses.
Profiles = Literal["auto", "one", "three"]


def nest_profiles(sizes: SizeRange) -> tuple[SizeRange, ...]:
    """Make up to three profiles from a range of sizes.

    A small profile of a single size is left out, and so is a profile that is as large as the one before. A static
    engine therefore has one profile.

    Args:
        sizes: The sizes (height, width) of the engine.

    Returns:
        The profiles, the smallest first. The last one covers `sizes`.
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


def fit_profile(graph: SizeRange, profile: SizeRange) -> SizeRange:
    """Fit the sizes of an engine to the least side of a network.

    Args:
        graph: The sizes (height, width) that the graph takes.
        profile: The sizes that the engine is built for.

    Returns:
        `profile`. The default least size is raised to that of a graph of any size.

    Raises:
        GlamaError: Another least size is below that of a graph of any size.
    """
    if graph.static or all(side >= least for side, least in zip(profile.min, graph.min, strict=True)):
        return profile
    if profile.min != DEFAULT_PROFILE.min:
        asked, least = (f"{height}x{width}" for height, width in (profile.min, graph.min))
        raise GlamaError(f"`min_size={asked}` is below {least}, which the dilations of this network need; give {least}")
    return SizeRange.model_validate({**profile.model_dump(), "min": graph.min})


def parse_profiles(text: str) -> Profiles:
    """Check the number of profiles.

    Args:
        text: What the user gives.

    Returns:
        The same text.

    Raises:
        GlamaError: The text is not one of :data:`Profiles`.
    """
    if text not in get_args(Profiles):
        raise GlamaError(f"`profiles` is {text!r}; expected {', '.join(get_args(Profiles))}")
    return cast(Profiles, text)


def _scale_within(sizes: SizeRange, size: tuple[float, float], factor: float = 1) -> Size:
    """Multiply a size by a factor, round it down to multiples of 8, and limit it to `sizes`."""
    height, width = (
        min(max(int(side * factor) // SIZE_MULTIPLE * SIZE_MULTIPLE, low), high)
        for side, low, high in zip(size, sizes.min, sizes.max, strict=True)
    )
    return height, width
