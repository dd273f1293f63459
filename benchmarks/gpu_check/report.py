"""The report of `make gpu-check`: what was run, what came out, and the figures, as Markdown and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from glama_deploy.frozen import FrozenModel
from glama_deploy.io.files import atomic_file

#: The files of the report, in its folder.
MARKDOWN, JSON = "report.md", "report.json"

#: How a check ended. A check that was not run has a reason.
State = Literal["passed", "failed", "not run"]


class Check(FrozenModel):
    """One check.

    Attributes:
        name: what was checked.
        state: how the check ended.
        reason: why it failed or was not run; empty for a check that passed.
        seconds: how long it took.
        log: the file with all that its command printed, in the report's folder; empty without a command.
        figures: what was measured, by name.
    """

    name: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    log: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it


class Report(FrozenModel):
    """The report.

    Attributes:
        schema_version: version of these fields.
        date: date and time in UTC.
        gpu: the GPU's name.
        target: the target of the engines.
        model: the model.
        machine: the machine and the versions of its packages.
        checks: the checks, in their order.
    """

    schema_version: Literal[1] = 1
    date: str
    gpu: str
    target: str
    model: str
    machine: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.state != "failed" for check in self.checks)


def format_markdown(report: Report) -> str:
    """Format a report for people.

    Args:
        report: the report.

    Returns:
        The text.
    """
    counts = {state: sum(check.state == state for check in report.checks) for state in ("passed", "failed", "not run")}
    text = [f"# GPU check: {report.gpu}", "", f"{report.date}, target {report.target}, model {report.model}.", ""]
    text += [", ".join(f"{count} {state}" for state, count in counts.items()) + ".", ""]
    text += ["| check | result | seconds | log |", "|---|---|---:|---|"]
    for check in report.checks:
        result = check.state + (f": {check.reason}" if check.reason else "")
        log = f"[{check.log}]({check.log})" if check.log else ""
        text.append(f"| {check.name} | {_escape(result)} | {check.seconds:.0f} | {log} |")
    for check in report.checks:
        if check.figures:
            text += ["", f"## {check.name}", "", "| | |", "|---|---|"]
            text += [f"| {_escape(name)} | {_escape(str(value))} |" for name, value in check.figures.items()]
    text += ["", "## Machine", "", "| | |", "|---|---|"]
    text += [f"| {_escape(name)} | {_escape(value)} |" for name, value in report.machine.items()]
    return "\n".join(text) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write a report into a folder.

    Args:
        report: the report.
        folder: the folder, which exists.

    Raises:
        GlamaError: A file cannot be written.
    """
    for name, text in ((MARKDOWN, format_markdown(report)), (JSON, report.model_dump_json(indent=1))):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
