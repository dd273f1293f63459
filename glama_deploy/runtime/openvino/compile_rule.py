"""When compiling a model for one size pays.

Nobody knows how many images of a size are still to come. The rule is that of renting or buying skis (Karlin, Manasse,
Rudolph and Sleator, Competitive Snoopy Caching, 1988): a size is compiled once the seconds that a compiled model would
have saved so far equal the seconds that compiling takes. A job then loses at most one compilation for each size,
compared with a job that knows its number of images.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

#: Share of a run's time that a compiled model saves. Measured with LaMa on 2 cores (EPYC, Zen 4) on 2026-11-30: 0.12 to
#: 0.22 in bf16.
SAVED_SHARE = 0.2

#: The same share where the model of any size has its blocks as products of matrices. Measured with LaMa in fp32 at
#: 256×256 to 1024×1024 on 2 cores of an Intel Xeon (Emerald Rapids) on 2026-11-30: 0.04 to 0.10, with AVX2 0.04.
SAVED_SHARE_OF_PRODUCTS = 0.07

#: Seconds that compiling takes, as long as nothing was compiled. LaMa takes 1.1 s on the same machine.
FIRST_COMPILE_SECONDS = 1.1

#: Sizes whose seconds are counted. The size that ran the longest ago is forgotten for another one.
MAX_SIZES = 256

#: Pixels from which on a size is compiled before its first run. The compiled model takes half to three quarters of the
#: memory of the model of any size (benchmarks/RESULTS-COSTS.md).
LARGE_PIXELS = 2 * 1024 * 1024


class CompileRule:
    """Counts the seconds of inference at each size, and tells when compiling the size pays."""

    def __init__(self, compile_sizes: bool | None, saved_share: float = SAVED_SHARE) -> None:
        """Start without any run.

        Args:
            compile_sizes: True if each size is compiled before its first run, False if no size is ever compiled, None
                if a size is compiled when that pays.
            saved_share: Share of a run's time that a compiled model saves, from 0 to 1.
        """
        self.is_immediate, self._is_never = compile_sizes is True, compile_sizes is False
        self._seconds: OrderedDict[Hashable, float] = OrderedDict()
        self._compile_seconds = FIRST_COMPILE_SECONDS
        self._saved_share = saved_share
        self._patience = 1.0

    @property
    def seconds_before_compile(self) -> float:
        """Seconds of inference at one size after which compiling pays."""
        return self._patience * self._compile_seconds / self._saved_share

    def is_due_at_first(self, pixels: int) -> bool:
        """Return whether to compile a size before its first run.

        Args:
            pixels: Pixels of all images of a run.

        Returns:
            True if each size is compiled, or the size is large. With more sizes than are kept, it must be larger.
        """
        return self.is_immediate or (not self._is_never and pixels >= LARGE_PIXELS * self._patience)

    def is_due(self, size: Hashable) -> bool:
        """Return whether to compile a size now.

        Args:
            size: The size.

        Returns:
            True if compiling pays, or each size is compiled.
        """
        if self.is_immediate or self._is_never:
            return self.is_immediate
        return self._seconds.get(size, 0.0) >= self.seconds_before_compile

    def note_run(self, size: Hashable, seconds: float) -> None:
        """Count a run of the model of any size. Nothing is counted where each size is compiled, or none.

        Args:
            size: The size of the images.
            seconds: Time of the run.
        """
        if self.is_immediate or self._is_never:
            return
        self._seconds[size] = self._seconds.get(size, 0.0) + seconds
        self._seconds.move_to_end(size)
        while len(self._seconds) > MAX_SIZES:
            self._seconds.popitem(last=False)

    def note_compile(self, seconds: float) -> None:
        """Remember the time that compiling a size took.

        Args:
            seconds: Time of the compilation.
        """
        self._compile_seconds = seconds

    def note_failure(self, size: Hashable) -> None:
        """Remember that a size cannot be compiled. The size is then never due.

        Args:
            size: The size.
        """
        self._seconds[size] = -math.inf

    def note_removal(self, size: Hashable) -> None:
        """Forget a size whose compiled model was removed for another one.

        With more sizes than are kept, compiling pays later: each removal doubles the seconds before a compilation.

        Args:
            size: The size.
        """
        self._seconds.pop(size, None)
        self._patience *= 2
