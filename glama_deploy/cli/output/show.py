"""What the commands print: steps as they are done, and the parity table."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich import box
from rich.status import Status
from rich.table import Table
from rich.text import Text

from glama_deploy.bundle import NOT_ASKED, Engine, Manifest, Parity
from glama_deploy.catalogue import ENGINES, TENSORRT, find_target
from glama_deploy.cli.output.console import Console
from glama_deploy.text.escapes import escape_controls

if TYPE_CHECKING:  # glama-build prints with this file too, and does not export
    from glama_deploy.export.pipeline import Outcome

#: How an engine's outcome reads in the table; colours are for terminals.
_PASS = Text("pass", "green")
_EMULATED = Text("emulated", "green")
_FAIL = Text("FAIL", "bold red")
_OPEN = Text("not measured", "yellow")
_MISSING = Text("not built", "bold red")

#: The spinners, by whether the terminal's encoding has the first one's characters.
_SPINNERS = {True: "dots", False: "line"}


class Steps:
    """A spinner with the step that is being done; each finished one becomes a line with its seconds, on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._step, self._since = "", 0.0

    def __enter__(self) -> Steps:
        self._status = self._console.status("", spinner=_SPINNERS[self._console.encoding.startswith("utf")])
        self._status.start()
        return self

    def __call__(self, step: str) -> None:
        """The last step is done, `step` begins."""
        self._finish()
        self._step, self._since = step, time.monotonic()
        if self._status is not None:
            self._status.update(Text(escape_controls(step)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        if self._step:
            seconds = Text(f"{time.monotonic() - self._since:7.1f} s", "dim")
            self._console.print(seconds, f" {self._step}")


def print_outcome(console: Console, outcome: Outcome) -> int:
    """Print a table of engine, precision, sizes, largest error, PSNR and verdict, with the reasons of what is open
    below; give the exit code: 3 where an engine is over its tolerance, 4 where a target is missing, else 0."""
    engines, failures = list(outcome.bundle.manifest.engines.values()), outcome.failures
    asked = any(engine.parity.measured or engine.parity.reason != NOT_ASKED for engine in engines)
    title = "Parity with the PyTorch reference (fp32)" if asked else "Engines (parity was not asked for)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))  # 80 columns hold it
    for column in ("engine", "precision", "sizes", "max error", "PSNR", "verdict"):
        table.add_column(column, no_wrap=True)
    reasons: dict[str, str] = {find_target(target).name: reason for target, reason in failures.items()}
    results: list[tuple[str, Parity]] = []
    for engine in engines:
        parity = engine.parity
        if not parity.measured and parity.reason != NOT_ASKED:
            reasons[engine.name] = f"built, not measured: {parity.reason.removeprefix(f'{engine.name}: ')}"
        elif parity.emulated:
            reasons[engine.name] = parity.reason.replace(f"{engine.name}: ", "")
        table.add_row(engine.name, engine.precision, str(engine.sizes), *_result(parity))
        results.append((engine.name, parity))
    for precision, graph in outcome.bundle.manifest.graphs.items():
        name = f"{TENSORRT.title} {precision}"  # what it will compute where it is built
        if graph.parity is not None and not any(ENGINES[e.name].is_strongly_typed for e in engines):
            table.add_row(name, precision, "–", *_result(graph.parity))
            results.append((name, graph.parity))
    for name, parity in results:
        if parity.measured and not parity.passed:
            reasons[name] = f"{_describe_miss(parity)}, worst at {parity.worst}"
    for target in failures:
        table.add_row(find_target(target).name, "–", "–", "–", "–", _MISSING)
    console.print(table)
    for name, reason in reasons.items():
        console.print(f"{name}: {reason}", soft_wrap=True)
    if any(parity.measured and not parity.passed for _, parity in results):
        return 3
    return 4 if failures else 0


def _describe_miss(parity: Parity) -> str:
    if parity.least_psnr is not None:
        return f"below the {parity.least_psnr:g} dB that it should reach"
    return f"over its tolerance of {parity.tolerance:.1e}".replace(".0e", "e")


def print_bound(console: Console, engine: Engine) -> int:
    """Print whether an engine's emulated parity is within its bound; return the exit code: 0, or 3 where it is not."""
    error, psnr, _ = _result(engine.parity)
    verdict = "within the tolerance" if engine.parity.passed else _describe_miss(engine.parity)
    found = f"{engine.name}: emulated at the export, largest error {error}, PSNR {psnr}"
    console.print(f"{found}: {verdict}", soft_wrap=True)
    return 0 if engine.parity.passed else 3


def _result(parity: Parity) -> tuple[str, str, Text]:
    """Largest error, PSNR and verdict."""
    if not parity.measured:
        return "–", "–", _OPEN
    psnr = "identical" if parity.psnr is None else f"{parity.psnr:.1f} dB"
    passed = _EMULATED if parity.emulated else _PASS
    return f"{parity.max_abs_error:.1e}", psnr, passed if parity.passed else _FAIL


def print_flops(console: Console, manifest: Manifest, size: tuple[int, int]) -> None:
    """The network's FLOPs (two a multiply-add) by part, for one image of `size`."""
    from glama_deploy import cost

    counts = cost.count_multiply_adds(manifest.network, size, manifest.fft)
    total = sum(counts.values())
    table = Table(title=f"GFLOP at {size[0]}x{size[1]}, FFT as {manifest.fft}", box=box.SIMPLE, title_justify="left")
    table.add_column("part")
    table.add_column("GFLOP", justify="right")
    table.add_column("share", justify="right")
    for part, count in counts.items():
        by_library = part == "fft" and manifest.fft in ("dft", "plugin")
        table.add_row(part, *(("in a library", "") if by_library else (f"{2e-9 * count:.1f}", f"{count / total:.1%}")))
    table.add_row("all", f"{2e-9 * total:.1f}", "100%")
    console.print(table)
