"""The options for the sizes of a TensorRT engine, which two commands share."""

from __future__ import annotations

from typing import Annotated

from pydantic import ValidationError

from glama_deploy.bundle import DEFAULT_PROFILE, SizeRange, parse_size
from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError

#: The largest batch of an engine: beyond what any GPU's memory holds, within what TensorRT counts with.
_MAX_BATCH = 65_536

MinSize = Annotated[str | None, option("--min-size", help="HxW: the smallest a TensorRT engine takes (64x64).")]
OptSize = Annotated[str | None, option("--opt-size", help="HxW: the size it is tuned for (512x512).")]
MaxSize = Annotated[str | None, option("--max-size", help="HxW: the largest it takes (2048x2048).")]
MaxBatch = Annotated[
    int | None, option("--max-batch", help="The most images it takes at once (1).", min=1, max=_MAX_BATCH)
]


def profile(
    low: str | None, opt: str | None, high: str | None, max_batch: int | None, default: SizeRange = DEFAULT_PROFILE
) -> SizeRange:
    """The optimization profile of the options; what is not given keeps its default, drawn in by what is.

    Raises GlamaError for sizes that are malformed or not in order.
    """
    smallest = parse_size(low, "--min-size") if low else None
    largest = parse_size(high, "--max-size") if high else None
    best = parse_size(opt, "--opt-size") if opt else None
    smallest = smallest or _within(default.min, None, best or largest)
    largest = largest or _within(default.max, best or smallest, None)
    best = best or _within(default.opt, smallest, largest)
    try:
        return SizeRange(min=smallest, opt=best, max=largest, max_batch=max_batch or default.max_batch)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise GlamaError(f"--min-size, --opt-size, --max-size: {message}") from error


def _within(size: tuple[int, int], low: tuple[int, int] | None, high: tuple[int, int] | None) -> tuple[int, int]:
    height, width = size
    if low:
        height, width = max(height, low[0]), max(width, low[1])
    if high:
        height, width = min(height, high[0]), min(width, high[1])
    return height, width
