"""glama-doctor: report what this machine has, and which engines run on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.output.console import Console
from glama_deploy.doctor.report import Diagnosis, diagnose

#: The exit code where no engine runs.
_NO_ENGINE_EXIT_CODE = 4

#: Columns of the names.
_NAME_WIDTH = 26


def glama_doctor(as_json: Annotated[bool, option("--json", help="Print JSON.")] = False) -> int:
    """Report what this machine has, which engines run on it, and why the others do not.

    Each engine fills a small image with the embedded network, in a process of its own. TensorRT engines are built for
    each bundle, so their packages and the GPU are tried alone. Please add the report to a bug report. Exit codes: 0 an
    engine runs; 4 no engine runs.
    """
    notes = Console(stderr=True)
    if not as_json:
        notes.print("trying each engine; this takes some seconds", style="dim")
    found = diagnose()
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=1))
    else:
        console = Console()
        for line in _format(found):
            console.print(line, soft_wrap=True)
    return 0 if any(engine.runs for engine in found.engines) else _NO_ENGINE_EXIT_CODE


def _format(found: Diagnosis) -> Iterable[str]:
    """Yield the lines of the report."""
    machine = found.machine
    memory = f"{machine.memory_bytes / 1e9:.1f} GB"
    if machine.free_memory_bytes is not None:
        memory += f", {machine.free_memory_bytes / 1e9:.1f} GB of them free for this process"
    features = " ".join(machine.features) or "unknown"
    yield _align("CPU", f"{machine.cpu or 'unknown'}, {machine.cores} cores, {features}")
    yield _align("memory", memory)
    yield _align("NVIDIA GPUs", ", ".join(machine.gpus) or "none")
    for number, name in enumerate(machine.cuda):
        yield _align(f"  cuda:{number}", name)
    yield _align("system", machine.system)
    yield _align("packages", ", ".join(f"{name} {version}" for name, version in found.packages.items()))
    for name, value in found.variables.items():
        yield _align(name, value)
    yield _align("cache", found.cache or "none")
    yield ""
    yield "engines"
    for engine in found.engines:
        if engine.runs:
            others = [name for name in engine.precisions if not engine.description.endswith(name)]
            text = f"runs: {engine.description}" + (f"; also {', '.join(others)}" if others else "")
            text += f"; devices: {', '.join(engine.devices)}" if engine.devices else ""
        else:
            text = f"does not run: {engine.reason}"
        yield _align(f"  {engine.name}", text)
    yield "targets of glama-export"
    for target in found.targets:
        yield _align(f"  {target.name}", "can be built" if target.builds else f"cannot be built: {target.reason}")


def _align(name: str, text: str) -> str:
    return f"{name:{_NAME_WIDTH}} {text}"


main = Command("glama-doctor", glama_doctor)
