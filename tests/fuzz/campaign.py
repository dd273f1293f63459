"""Many cases of a subject in child processes that are watched; the faulty inputs are kept."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from fuzz.case import load_subject
from fuzz.oracle import Verdict
from fuzz.worker import work

#: A case is a hang once it has taken so many seconds of CPU, however busy the machine is; or, where the child waits
#: without working (a deadlock), so many seconds of wall clock.
HANG_CPU_SECONDS, HANG_WALL_SECONDS = 60.0, 600.0

#: How often a child is looked at while a case runs.
_LOOK_SECONDS = 0.5


@dataclass
class Tally:
    """The results of a subject's cases; `faults` holds the first verdict of each signature, with the count."""

    subject: str
    right: int = 0
    refused: int = 0
    slowest_seconds: float = 0.0
    largest_growth_bytes: int = 0
    faults: dict[str, Verdict] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> bool:
        """Count a verdict. Returns True for the first fault of a signature."""
        self.slowest_seconds = max(self.slowest_seconds, verdict.seconds)
        self.largest_growth_bytes = max(self.largest_growth_bytes, verdict.grown_bytes)
        if verdict.state == "fault":
            self.counts[verdict.signature] += 1
            return self.faults.setdefault(verdict.signature, verdict) is verdict
        if verdict.state == "right":
            self.right += 1
        else:
            self.refused += 1
        return False

    @property
    def cases(self) -> int:
        return self.right + self.refused + self.counts.total()


def run(name: str, seeds: range, keep: Path | None, processes: int = 1) -> Tally:
    """Judge the cases of all seeds.

    Args:
        name: a subject of `SUBJECTS`.
        seeds: one case a seed.
        keep: folder for the input of the first fault of each signature; None keeps nothing.
        processes: children that work at once.
    """
    tally = Tally(name)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        base = Path(place) / "base"
        base.mkdir()
        load_subject(name).prepare(base)
        shares = [seeds[number::processes] for number in range(processes)]
        with ThreadPoolExecutor(processes) as threads:
            folders = [Path(place) / f"worker-{number}" for number in range(processes)]
            for verdicts in threads.map(lambda share, folder: list(_judge(name, share, base, folder)), shares, folders):
                for verdict in sorted(verdicts, key=lambda each: each.seed):
                    if tally.add(verdict) and keep is not None:
                        _keep(name, verdict, base, keep)
    return tally


def _judge(name: str, seeds: range, base: Path, folder: Path) -> Iterator[Verdict]:
    """Yield the verdicts of the seeds; a child that hangs or dies is a verdict, and another child goes on."""
    child = None
    for number, seed in enumerate(seeds):
        if child is None:
            child = _Child(name, base, folder / str(number))
        verdict, alive = child.judge(seed)
        yield verdict
        if not alive:
            child.end()
            child = None
    if child is not None:
        child.end()


class _Child:
    """A process that judges cases; it leads a process group of its own."""

    def __init__(self, name: str, base: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._name, self._base, self._folder = name, base, folder
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_begin, args=(name, base, folder, theirs), daemon=False)
        self._process.start()
        theirs.close()
        if not self._connection.poll(HANG_WALL_SECONDS):
            self.end()
            raise TimeoutError(f"the child for {name} did not start; see {folder}")
        try:
            self._connection.recv()
        except EOFError as error:
            output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise RuntimeError(f"the child for {name} died at its start:\n{output}") from error

    def judge(self, seed: int) -> tuple[Verdict, bool]:
        """Return a seed's verdict, and whether the child can go on."""
        start, cpu = time.monotonic(), self._cpu_seconds()
        self._connection.send(seed)
        while not self._connection.poll(_LOOK_SECONDS):
            seconds = time.monotonic() - start
            if self._cpu_seconds() - cpu > HANG_CPU_SECONDS or seconds > HANG_WALL_SECONDS:
                return self._lost(seed, "hang", f"no end after {seconds:.0f} s", seconds), False
        try:
            verdict: Verdict = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            output = (self._folder / "output.txt").read_bytes()[-2_000:].decode("utf-8", "replace")
            return self._lost(seed, f"the process died ({cause})", output, time.monotonic() - start), False
        return verdict, True

    def _lost(self, seed: int, kind: str, detail: str, seconds: float) -> Verdict:
        label = load_subject(self._name).generate(seed, self._base).label
        return Verdict(seed, label, "fault", f"{kind} ({label})", detail, seconds)

    def _cpu_seconds(self) -> float:
        """Return the CPU time of the child and the processes that it started; 0 once it has ended."""
        try:
            process = psutil.Process(self._process.pid)
            times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        except psutil.NoSuchProcess:
            return 0.0
        return sum(each.user + each.system for each in times)

    def end(self) -> None:
        """End the child and everything that it started, and remove its folder."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=1)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _begin(name: str, base: Path, folder: Path, connection: Connection) -> None:
    os.setsid()
    work(name, base, folder, connection)


def _keep(name: str, verdict: Verdict, base: Path, keep: Path) -> None:
    """Write the input of a fault, with how to run the case again."""
    folder = keep / f"{name}-{verdict.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = load_subject(name).generate(verdict.seed, base)
    case.write(folder)
    again = f"PYTHONPATH=tests python -m fuzz --subject {name} --seed {verdict.seed} --cases 1"
    lines = [verdict.signature, verdict.label, f"again: {again}", repr(case.arguments), "", verdict.detail]
    (folder / "FAULT.txt").write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
