"""Print the report of `glama-build --report`: the contents of an engine."""

from __future__ import annotations

from rich import box
from rich.table import Table

from glama_deploy.cli.output.console import Console
from glama_deploy.engines.tensorrt.inspection import Contents, Port, Report

#: Where a report comes from, by the source of the contents.
_SOURCES = {
    "network": "from the parsed network, before TensorRT fused its layers: the engine cannot be opened here (no GPU)",
    "engine": "from the engine itself, as TensorRT's inspector shows it",
}


def print_report(console: Console, report: Report) -> None:
    """Print the layers by type and precision, then the summary.

    Args:
        console: The console.
        report: The report.
    """
    contents = report.contents
    console.print(f"{contents.layers} layers, {_SOURCES[contents.source]}")
    console.print(_make_layer_table(contents))
    summary = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _list_summary(report):
        summary.add_row(name, value)
    console.print(summary)


def _make_layer_table(contents: Contents) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("layer")
    table.add_column("precision")
    table.add_column("how many", justify="right")
    for kind in contents.kinds:
        if not kind.is_about_sizes:
            table.add_row(kind.type.lower().replace("_", " "), kind.precision, str(kind.count))
    about_sizes = sum(kind.count for kind in contents.kinds if kind.is_about_sizes)
    if about_sizes:
        table.add_row("about sizes, not the image", "", str(about_sizes))
    return table


def _list_summary(report: Report) -> list[tuple[str, str]]:
    contents = report.contents
    weights = ", ".join(f"{dtype} {_format_megabytes(size)}" for dtype, size in contents.weights.items() if size >= 1e5)
    rows = [("casts", str(contents.casts)), ("reshapes and reformats", str(contents.shuffles))]
    if weights:
        rows.append(("weights", weights))
    rows += [("output" if port.is_output else "input", _format_port(port)) for port in contents.ports]
    rows += [
        (f"profile {index}", f"{profile}, tuned at {profile.opt[0]}x{profile.opt[1]}, batch ≤ {profile.max_batch or 1}")
        for index, profile in enumerate(report.profiles)
    ]
    return [*rows, ("engine", _format_megabytes(report.engine_bytes)), ("built in", f"{report.seconds:.1f} s")]


def _format_port(port: Port) -> str:
    shape = "x".join("?" if side < 0 else str(side) for side in port.shape)
    return f"{port.name} {port.dtype} {shape}"


def _format_megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
