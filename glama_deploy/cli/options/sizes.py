"""The options for the sizes of a TensorRT engine, which glama-export and glama-build share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ValidationError

from glama_deploy.bundle import DEFAULT_PROFILE, Size, SizeRange, parse_size
from glama_deploy.cli.options.builder import tensorrt_option
from glama_deploy.errors import GlamaError

#: The largest batch of an engine: more than any GPU's memory holds, and less than TensorRT can count.
_MAX_BATCH = 65_536


@dataclass(frozen=True)
class SizeOptions:
    """The sizes that a TensorRT engine is built for, as the command line has them."""

    min_size: Annotated[
        str | None, tensorrt_option("--min-size", help="HxW: smallest size of a TensorRT engine (64x64 by default).")
    ] = None
    opt_size: Annotated[
        str | None, tensorrt_option("--opt-size", help="HxW: size that the engine is tuned for (512x512 by default).")
    ] = None
    max_size: Annotated[
        str | None, tensorrt_option("--max-size", help="HxW: largest size of the engine (2048x2048 by default).")
    ] = None
    max_batch: Annotated[
        int | None,
        tensorrt_option(
            "--max-batch", help="Largest batch of the engine, in images (1 by default).", min=1, max=_MAX_BATCH
        ),
    ] = None

    @property
    def has_sizes(self) -> bool:
        """Whether one of the three sizes is given."""
        return bool(self.min_size or self.opt_size or self.max_size)

    @property
    def is_given(self) -> bool:
        """Whether one of the options is given."""
        return bool(self.has_sizes or self.max_batch)

    def read(self, default: SizeRange = DEFAULT_PROFILE) -> SizeRange:
        """Read the sizes that an engine is built for.

        Args:
            default: The sizes of the options that are not given. Given sizes limit the default ones.

        Returns:
            The sizes.

        Raises:
            GlamaError: A size is malformed, or the sizes are not in order.
        """
        smallest = parse_size(self.min_size, "--min-size") if self.min_size else None
        largest = parse_size(self.max_size, "--max-size") if self.max_size else None
        best = parse_size(self.opt_size, "--opt-size") if self.opt_size else None
        smallest = smallest or _limit(default.min, None, best or largest)
        largest = largest or _limit(default.max, best or smallest, None)
        best = best or _limit(default.opt, smallest, largest)
        try:
            return SizeRange(min=smallest, opt=best, max=largest, max_batch=self.max_batch or default.max_batch)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise GlamaError(f"--min-size, --opt-size, --max-size: {message}") from error


def _limit(size: Size, low: Size | None, high: Size | None) -> Size:
    """Limit both sides of a size."""
    height, width = size
    if low:
        height, width = max(height, low[0]), max(width, low[1])
    if high:
        height, width = min(height, high[0]), min(width, high[1])
    return height, width
