"""The option for the bounds of parity, which glama-export and glama-build share: `--tolerance fp16=0.05`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from glama_deploy.catalogue import PRECISIONS, Tolerance, export_precisions
from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError

_DEFAULTS = ", ".join(f"{name}={PRECISIONS[name].tolerance}" for name in export_precisions())

Tolerances = Annotated[
    list[str] | None,
    option(
        "--tolerance",
        help="Bound of parity in a precision: the largest error of a value in 0…1, such as fp16=0.05, or the least "
        f"PSNR, such as int8=38dB. May be given several times. By default {_DEFAULTS}.",
        metavar="PRECISION=BOUND",
    ),
]

#: A decimal number, with or without its unit.
_BOUND = re.compile(r"(?P<number>(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?)\s*(?P<unit>db)?", re.IGNORECASE | re.ASCII)


def parse_tolerances(texts: Sequence[str] | None) -> dict[str, Tolerance]:
    """Parse the bounds of parity.

    Args:
        texts: The values of the option; None without any.

    Returns:
        The bounds by precision.

    Raises:
        GlamaError: A text is not understood, a bound is out of range, or a precision is given twice.
    """
    found: dict[str, Tolerance] = {}
    for text in texts or ():
        name, equals, bound = (part.strip() for part in text.partition("="))
        matched = _BOUND.fullmatch(bound)
        if not equals or matched is None:
            raise GlamaError(
                f"--tolerance is {text!r}; PRECISION=ERROR or PRECISION=PSNRdB is expected, such as fp16=0.05 or "
                "int8=38dB"
            )
        if name not in export_precisions():
            expected = ", ".join(export_precisions())
            raise GlamaError(f"--tolerance {text}: unknown precision {name!r}; expected {expected}")
        if name in found:
            raise GlamaError(f"--tolerance is given twice for {name}; give one bound")
        number = float(matched["number"])
        try:
            found[name] = Tolerance(least_psnr=number) if matched["unit"] else Tolerance(max_abs_error=number)
        except GlamaError as error:
            raise GlamaError(f"--tolerance {text}: {error}") from error
    return found
