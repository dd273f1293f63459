"""One run of `make gpu-check`: its commands, logs and bundles. A check that fails does not end the others."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glama_deploy.benchmarks.gpu_check.report import Check, State
from glama_deploy.bundle import Bundle
from glama_deploy.catalogue import EngineRecord
from glama_deploy.errors import GlamaError
from glama_deploy.text.excerpts import describe_error

#: Seconds after which a command is taken to hang. Builds on small devices are slow; how slow is not measured.
_MAX_SECONDS = 4 * 3600

#: The greatest number of characters of a command's last line in the report.
MAX_REASON = 300


@dataclass(frozen=True)
class Ran:
    """A command that has ended.

    Attributes:
        code: its exit code.
        out: what it printed to standard output.
        log: the name of the file with all that it printed.
        last: the last line of its errors or its output.
    """

    code: int
    out: str
    log: str
    last: str


class NotRun(Exception):
    """A check that cannot run here. The text is the reason."""


class Failed(Exception):
    """A check that failed. The text is the reason."""


@dataclass
class Session:
    """One run of all checks.

    Attributes:
        source: the bundle that is copied.
        record: the engine that is built.
        out: the folder of the report.
        work: a folder for bundles, which is removed at the end.
        runs: the number of timed runs.
        step: called with a line before each check.
        built: the folders of bundles with an engine, by the way they were built.
        log: the log of the check that runs.
    """

    source: Bundle
    record: EngineRecord
    out: Path
    work: Path
    runs: int
    step: Callable[[str], None]
    built: dict[str, Path] = field(default_factory=dict)
    log: str = ""

    def run(self, name: str, command: Sequence[str], folder: Path | None = None, **environment: str) -> Ran:
        """Run a command, and keep what it prints in a log.

        Args:
            name: the name of the log, without suffix.
            command: the command.
            folder: the folder to run in.
            **environment: variables that are set.

        Returns:
            The command.
        """
        self.log = f"{name}.log"
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=_MAX_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(
                f"the command did not end within {_MAX_SECONDS // 3600} hours: {shlex.join(command)}"
            ) from error
        text = f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}\nexit code {done.returncode}\n"
        (self.out / self.log).write_text(text, encoding="utf-8")
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        return Ran(done.returncode, done.stdout, self.log, lines[-1][:MAX_REASON])

    def run_glama(self, name: str, *arguments: str) -> Ran:
        """Run a command of this project, as :meth:`run` does.

        Args:
            name: the name of the log, without suffix.
            *arguments: the subcommand and its arguments.

        Returns:
            The command.
        """
        return self.run(name, [sys.executable, "-m", "glama_deploy", *arguments])

    def copy_bundle(self, name: str) -> Path:
        """Copy the bundle, so that no build sees the engine of another.

        Args:
            name: the name of the copy.

        Returns:
            The folder of the copy.
        """
        return Path(shutil.copytree(self.source.path, self.work / name))

    def find_built(self, way: str) -> Path:
        """Find a bundle that an earlier check has built.

        Args:
            way: the way it was built.

        Returns:
            The bundle's folder.

        Raises:
            NotRun: there is no such bundle.
        """
        if way not in self.built:
            raise NotRun(f"there is no engine that was built with {way}")
        return self.built[way]


#: A check: it returns figures, or raises Failed or NotRun.
CheckFunction = Callable[[Session], dict[str, Any]]


def run_check(session: Session, name: str, function: CheckFunction) -> Check:
    """Run one check. An error ends this check alone.

    Args:
        session: the run of all checks.
        name: the check's name.
        function: the check.

    Returns:
        How the check ended.
    """
    session.step(name)
    session.log = ""
    start = time.perf_counter()

    def end(state: State, reason: str = "", figures: dict[str, Any] | None = None) -> Check:
        seconds = round(time.perf_counter() - start, 1)
        session.step(f"  {state}" + (f": {reason}" if reason else ""))
        return Check(name=name, state=state, reason=reason, seconds=seconds, log=session.log, figures=figures or {})

    try:
        return end("passed", figures=function(session))
    except NotRun as error:
        return end("not run", str(error))
    except (Failed, GlamaError, OSError) as error:
        return end("failed", str(error))
    except Exception as error:  # noqa: BLE001 - the other checks shall run, and the report names the error
        return end("failed", describe_error(error))
