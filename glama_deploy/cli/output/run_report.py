"""Report a run over pictures: lines for people on standard error, or JSON lines on standard output.

Each line of JSON is an object. `type` is `picture` or `summary`. docs/masks.md describes the fields.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.option_names import show_options
from glama_deploy.inpainting.folder import Result

#: Digits behind the point of seconds.
_SECOND_DIGITS = 3


class RunReport:
    """The report of a run.

    Args:
        console: standard error.
        as_json: whether JSON is printed on standard output.
        is_live: whether lines for people are printed with each picture, and not at the end.
    """

    def __init__(self, console: Console, *, as_json: bool = False, is_live: bool = False) -> None:
        self.console = console
        """Standard error."""
        self._as_json = as_json
        self._is_live = is_live
        self._failures: list[str] = []
        self.counts = {"written": 0, "skipped": 0, "failed": 0}
        """The number of results of each state."""

    def add(self, result: Result) -> None:
        """Report a picture.

        Args:
            result: the result.
        """
        self.add_fields(result.state, result.reason, str(result.job.out), _describe_result(result))

    def add_fields(self, state: str, reason: str, out: str, fields: dict[str, object]) -> None:
        """Report a picture by its fields.

        Args:
            state: written, skipped or failed.
            reason: one line that explains a failure.
            out: the path or address of the output.
            fields: the fields of the line of JSON.
        """
        self.counts[state] += 1
        if self._as_json:
            _print_json(fields)
        if state == "failed":
            self._failures.append(reason)
        if self._is_live and state == "failed":
            self.console.print_failure(f"failed: {reason}")
        elif self._is_live and state == "written":
            self.console.print(f"written: {out}", soft_wrap=True)

    def finish(self, *, not_begun: int = 0, waiting: Sequence[Path] = (), left_out: Sequence[str] = ()) -> int:
        """Report the run.

        Args:
            not_begun: number of pictures that were not begun.
            waiting: pictures that wait for their masks.
            left_out: descriptions of files that were not read.

        Returns:
            The exit code.
        """
        for reason in [] if self._is_live else self._failures:
            self.console.print_failure(f"failed: {reason}")
        counts = {**self.counts, **({"not begun": not_begun} if not_begun else {})}
        self.console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
        if waiting:
            self.console.print(f"without a mask: {', '.join(map(str, waiting))}", soft_wrap=True)
        if left_out:
            self.console.print(f"left out: {', '.join(left_out)}", soft_wrap=True, markup=False)
        if self._as_json:
            lists = {"without_mask": list(map(str, waiting)), "left_out": list(left_out)}
            _print_json({"type": "summary", **self.counts, "not_begun": not_begun, **lists})
        return 2 if self.counts["failed"] else 0


def _describe_result(result: Result) -> dict[str, object]:
    """Return the fields of a picture."""
    job, work = result.job, result.work
    return {
        "type": "picture",
        "image": str(job.image),
        "mask": str(job.mask) if job.mask is not None else None,
        "out": str(job.out),
        "backup": str(job.backup) if job.backup is not None else None,
        "state": result.state,
        "seconds": round(work.seconds, _SECOND_DIGITS),
        "boxes": [[box.left, box.top, box.width, box.height] for box in work.boxes],
        "error": show_options(result.reason) or None,
    }


def _print_json(fields: dict[str, object]) -> None:
    print(json.dumps(fields), flush=True)
