"""Print the steps of a command, and the tables of parity and FLOPs."""

from __future__ import annotations

import time
from pathlib import Path
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

if TYPE_CHECKING:  # glama-build uses this file too, and does not need the export
    from glama_deploy.export.pipeline import Outcome

#: The verdicts in the table of parity. Terminals show the colours.
_PASS = Text("pass", "green")
_EMULATED = Text("emulated", "green")
_FAIL = Text("FAIL", "bold red")
_NOT_MEASURED = Text("not measured", "yellow")
_NOT_BUILT = Text("not built", "bold red")

#: The spinners, by whether the terminal has Unicode.
_SPINNERS = {True: "dots", False: "line"}


class Steps:
    """A spinner with the current step, on standard error. Each finished step becomes a line with its seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._step, self._since = "", 0.0

    def __enter__(self) -> Steps:
        self._status = self._console.status("", spinner=_SPINNERS[self._console.encoding.startswith("utf")])
        self._status.start()
        return self

    def __call__(self, step: str) -> None:
        """Finish the last step, and begin another one.

        Args:
            step: The description of the step.
        """
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
    """Print the table of parity, and below it the reasons for failures and missing measurements.

    Args:
        console: The console.
        outcome: The outcome of an export.

    Returns:
        The exit code: 3 if an engine is beyond its tolerance, 4 if a target is missing, else 0.
    """
    engines, failures = list(outcome.bundle.manifest.engines.values()), outcome.failures
    asked = any(engine.parity.measured or engine.parity.reason != NOT_ASKED for engine in engines)
    title = "Parity with the PyTorch reference (fp32)" if asked else "Engines (parity was not asked for)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))  # fits into 80 columns
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
        table.add_row(engine.name, engine.precision, str(engine.sizes), *_format_parity(parity))
        results.append((engine.name, parity))
    for precision, graph in outcome.bundle.manifest.graphs.items():
        name = f"{TENSORRT.title} {precision}"  # the engine that will be built from the graph
        if graph.parity is not None and not any(ENGINES[e.name].is_strongly_typed for e in engines):
            table.add_row(name, precision, "–", *_format_parity(graph.parity))
            results.append((name, graph.parity))
    for name, parity in results:
        if parity.measured and not parity.passed:
            reasons[name] = f"{_describe_miss(parity)}, worst at {parity.worst}"
    for target in failures:
        table.add_row(find_target(target).name, "–", "–", "–", "–", _NOT_BUILT)
    console.print(table)
    for name, reason in reasons.items():
        console.print(f"{name}: {reason}", soft_wrap=True)
    if any(parity.measured and not parity.passed for _, parity in results):
        return 3
    return 4 if failures else 0


def print_site(console: Console, out: Path) -> None:
    """Print the site's networks, the size of its parts, and how to look at the site.

    Args:
        console: The console.
        out: The site's folder.
    """
    from glama_deploy.export.web.site import count_bytes, read_networks

    table = Table(title="The site's networks", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("precision", "WebAssembly", "WebGPU", "max error against the ONNX model"):
        table.add_column(column, no_wrap=True)
    for network in read_networks(out):
        sizes = [f"{network.download_bytes[provider] / 1e6:.1f} MB" for provider in ("wasm", "webgpu")]
        table.add_row(network.precision, *sizes, f"{network.error:.1e}")
    console.print(table)
    parts = ", ".join(f"{part} {size / 1e6:.1f} MB" for part, size in count_bytes(out).items() if size)
    console.print(f"site: {out} ({parts})", soft_wrap=True)
    console.print(f"look at the site: python -m http.server -d {out}", soft_wrap=True)


def _describe_miss(parity: Parity) -> str:
    if parity.least_psnr is not None:
        return f"below the {parity.least_psnr:g} dB that it should reach"
    return f"over its tolerance of {parity.tolerance:.1e}".replace(".0e", "e")


def print_bound(console: Console, engine: Engine) -> int:
    """Print whether an engine's emulated parity is within its bound.

    Args:
        console: The console.
        engine: The engine.

    Returns:
        The exit code: 0 within the bound, else 3.
    """
    error, psnr, _ = _format_parity(engine.parity)
    verdict = "within the tolerance" if engine.parity.passed else _describe_miss(engine.parity)
    found = f"{engine.name}: emulated at the export, largest error {error}, PSNR {psnr}"
    console.print(f"{found}: {verdict}", soft_wrap=True)
    return 0 if engine.parity.passed else 3


def print_device_check(console: Console, engine: Engine) -> None:
    """Print how far an engine is from ONNX Runtime on this machine, or why that was not measured.

    Args:
        console: The console.
        engine: The engine. Nothing is printed for an engine that is not TensorRT's.
    """
    found = engine.device_check
    if found is None:
        return
    if not found.measured:
        console.print(f"{engine.name}: not checked on this device: {found.reason}", soft_wrap=True)
        return
    error, psnr, _ = _format_parity(found)
    sizes = f"{len(found.cases)} sizes, largest error {error}, PSNR {psnr} against ONNX Runtime on the CPU"
    console.print(f"{engine.name}: checked on {found.gpu}: {sizes}", soft_wrap=True)
    for left_out in found.not_checked:
        console.print(f"{engine.name}: not checked at {left_out}", soft_wrap=True)


def _format_parity(parity: Parity) -> tuple[str, str, Text]:
    """Format the largest error, the PSNR and the verdict."""
    if not parity.measured:
        return "–", "–", _NOT_MEASURED
    psnr = "identical" if parity.psnr is None else f"{parity.psnr:.1f} dB"
    passed = _EMULATED if parity.emulated else _PASS
    return f"{parity.max_abs_error:.1e}", psnr, passed if parity.passed else _FAIL


def print_flops(console: Console, manifest: Manifest, size: tuple[int, int]) -> None:
    """Print the FLOPs of the network's parts for one image. A multiply-add counts as two.

    Args:
        console: The console.
        manifest: The manifest of the bundle.
        size: The size of the image (height, width).
    """
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
