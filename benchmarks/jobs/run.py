"""Run the subjects of each job in turns, each in a fresh process, and compare what they filled."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from glama_deploy.benchmarks.bench import machine
from glama_deploy.benchmarks.bench.machine import LOAD_KEY
from glama_deploy.benchmarks.jobs import pictures
from glama_deploy.benchmarks.jobs.scenes import JOBS, Folders, Job, write_job
from glama_deploy.benchmarks.jobs.subjects import REFERENCE, SUBJECTS, Networks, Subject
from glama_deploy.benchmarks.jobs.worker import Report, Task
from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.psnr import compute_mean_square, compute_psnr
from glama_deploy.system.spawning import outside_current_folder

#: A picture of more pixels is not shown whole for the reference.
MAX_WHOLE_PIXELS = 2 * 1024 * 1024

#: The PSNR of equal pixels in a file, where infinity cannot stand, in dB.
MAX_PSNR = 200.0


class Row(FrozenModel):
    """A subject at one job.

    Attributes:
        job: letter of the job.
        subject: name of the subject.
        description: engine, version and precision.
        pictures: number of pictures.
        seconds: wall seconds of each run, from the start of the process to its end.
        start_seconds: of these, the seconds until the network was open.
        cpu_seconds: CPU seconds of each run.
        peak_bytes: the most memory that a run held.
        psnr: PSNR of the filled pixels against the reference, in dB.
        max_difference: the largest difference of a filled byte against the reference.
        steps: median seconds by step, summed over threads.
        reason: why the subject was not measured.
    """

    job: str
    subject: str
    description: str = ""
    pictures: int = 0
    seconds: tuple[float, ...] = ()
    start_seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    psnr: float | None = None
    max_difference: int | None = None
    steps: dict[str, float] = Field(default_factory=dict)
    reason: str = ""

    @property
    def median(self) -> float:
        """The median of the wall seconds."""
        return statistics.median(self.seconds)

    @property
    def median_after_start(self) -> float:
        """The median of the wall seconds without the start."""
        pairs = zip(self.seconds, self.start_seconds, strict=True)
        return statistics.median(seconds - start for seconds, start in pairs)


class JobResults(FrozenModel):
    """All that was measured of jobs with one network; `jobs.json` has the same fields.

    Attributes:
        network: the network, for people.
        checkpoint: SHA-256 of the network's checkpoint.
        machine: the machine, as `bench.machine.describe_machine` has it.
        scale: factor of sides and counts.
        runs: number of runs of each subject.
        threads: CPU threads; None for each subject's default.
        references: how the reference was made, by job.
        rows: the rows, by job and subject.
    """

    schema_version: Literal[2] = 2
    network: str
    checkpoint: str
    machine: dict[str, str]
    scale: float
    runs: int
    threads: int | None
    references: dict[str, str] = Field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def check_continues(self, earlier: JobResults) -> None:
        """Check that rows of an earlier run can stand beside rows of this one.

        Args:
            earlier: results of an earlier run.

        Raises:
            GlamaError: the earlier run was of another network, machine, scale, or number of runs or threads.
        """
        ours, theirs = self._list_conditions(), earlier._list_conditions()
        for name in dict.fromkeys((*theirs, *ours)):
            if ours.get(name) != theirs.get(name):
                raise GlamaError(
                    f"the folder has results with {name} {theirs.get(name, 'unknown')}, these are with "
                    f"{ours.get(name, 'unknown')}; choose another folder"
                )

    def _list_conditions(self) -> dict[str, str]:
        """Return all that rows of one table have in common, by a name for people."""
        machine = {name: value for name, value in self.machine.items() if name != LOAD_KEY}
        own = {"scale": self.scale, "runs": self.runs, "threads": self.threads or "by default"}
        return {"network": self.network, "checkpoint": self.checkpoint, **machine} | {k: str(v) for k, v in own.items()}

    def replace(self, earlier: JobResults) -> JobResults:
        """Return these results with the rows of an earlier run that were not measured again.

        Args:
            earlier: results of an earlier run.

        Returns:
            Rows of both.

        Raises:
            GlamaError: the two runs differ, as :meth:`check_continues` says.
        """
        self.check_continues(earlier)
        rows = {(row.job, row.subject): row for row in (*earlier.rows, *self.rows)}
        order = [(job, name) for job in JOBS for name in SUBJECTS]
        return self.model_copy(
            update={
                "rows": tuple(rows[key] for key in order if key in rows),
                "references": earlier.references | self.references,
            }
        )


@dataclass(frozen=True)
class Setting:
    """How jobs are measured.

    Attributes:
        scale: factor of sides and counts.
        runs: number of runs of each subject.
        threads: CPU threads; None for each subject's default.
        step: called with a line before each step.
    """

    scale: float
    runs: int
    threads: int | None
    step: Callable[[str], None]


#: What the subjects filled, by job and subject: uint8 [H, W, 3], the surroundings of the largest hole.
Views = dict[str, dict[str, np.ndarray]]


def prepare(bundle: Bundle, setting: Setting) -> JobResults:
    """Describe a run before anything is measured.

    Args:
        bundle: the network's bundle.
        setting: how jobs are measured.

    Returns:
        Results without rows.
    """
    manifest = bundle.manifest
    return JobResults(
        network=f"{manifest.network.n_blocks} blocks, {manifest.network.ngf} channels ({manifest.checkpoint.file})",
        checkpoint=manifest.checkpoint.sha256,
        machine=machine.describe_machine(),
        scale=setting.scale,
        runs=setting.runs,
        threads=setting.threads,
    )


def measure(
    bundle: Bundle, checkpoint: Path | None, jobs: Sequence[str], subjects: Sequence[str], setting: Setting
) -> tuple[JobResults, Views]:
    """Measure subjects at jobs.

    Args:
        bundle: the network's bundle.
        checkpoint: the bundle's checkpoint, for the peers; None if there is none.
        jobs: letters of the jobs.
        subjects: names of the subjects.
        setting: how jobs are measured.

    Returns:
        The results, and what the subjects filled. A subject that does not run has a row with the reason.
    """
    prepared = prepare(bundle, setting)
    if busy := machine.warn_of_load(prepared.machine):
        setting.step(f"note: {busy}")
    rows: list[Row] = []
    references: dict[str, str] = {}
    views: Views = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = Networks(bundle, checkpoint, folder)
        for letter in jobs:
            setting.step(f"job {letter}: {JOBS[letter].title}")
            work = folder / letter
            running = _JobRun(JOBS[letter], write_job(JOBS[letter], setting.scale, work), networks, setting, work)
            rows += running.measure([SUBJECTS[subject] for subject in subjects])
            references[letter], views[letter] = running.reference, running.views
    return prepared.model_copy(update={"references": references, "rows": tuple(rows)}), views


class _JobRun:
    """One job with its files and its reference."""

    def __init__(self, job: Job, folders: Folders, networks: Networks, setting: Setting, work: Path) -> None:
        """Prepare a job.

        Args:
            job: the job.
            folders: its files.
            networks: the network in the forms that the subjects open.
            setting: how jobs are measured.
            work: folder for the results.
        """
        self._job, self._folders, self._networks, self._setting, self._work = job, folders, networks, setting, work
        #: How the reference was made.
        self.reference = ""
        #: What the subjects filled, by subject.
        self.views: dict[str, np.ndarray] = {}

    def measure(self, subjects: Sequence[Subject]) -> list[Row]:
        """Measure the subjects in turns, and compare what they filled.

        Args:
            subjects: the subjects.

        Returns:
            A row for each subject.
        """
        rows = {subject: Row(job=self._job.letter, subject=subject.name) for subject in subjects}
        runs: dict[Subject, list[tuple[float, Report]]] = {}
        for subject in subjects:
            try:
                self._networks.check_memory(subject, self._folders.images)
                self._networks.find(subject)
                runs[subject] = []
            except GlamaError as error:
                rows[subject] = rows[subject].model_copy(update={"reason": str(error)})
        for turn in range(self._setting.runs):
            for subject in list(runs):
                self._setting.step(f"  {subject.name}, run {turn + 1} of {self._setting.runs}")
                try:
                    runs[subject].append(self._run(subject))
                except GlamaError as error:
                    del runs[subject]
                    rows[subject] = rows[subject].model_copy(update={"reason": str(error)})
        for subject, measured in runs.items():
            rows[subject] = _add_times(rows[subject], measured)
        self._compare(runs, rows)
        if runs:
            results = {subject.name: self._find_out(subject) for subject in runs}
            self.views = pictures.cut_views(self._folders, results)
        return list(rows.values())

    def _find_out(self, subject: Subject) -> Path:
        return self._work / "out" / subject.name.replace(":", "-")

    def _run(self, subject: Subject) -> tuple[float, Report]:
        """Run a subject in a fresh process. Return the wall seconds, and what the process reports."""
        out = self._find_out(subject)
        for old in out.glob("*"):
            old.unlink()
        told, answer = self._work / "task.json", self._work / "report.json"
        answer.unlink(missing_ok=True)
        command = [sys.executable, "-m", "glama_deploy.benchmarks.jobs.worker", str(told), str(answer)]
        task = Task(
            subject=subject.name,
            images=self._folders.images,
            masks=self._folders.masks,
            out=out,
            out_suffix=self._job.out_suffix,
            kept=out.with_suffix(".npz"),
            network=self._networks.find(subject),
            threads=self._setting.threads,
            max_whole_pixels=MAX_WHOLE_PIXELS,
            started=time.time(),
        )
        out.parent.mkdir(exist_ok=True)
        told.write_text(task.model_dump_json(), encoding="utf-8")
        with outside_current_folder():
            start = time.perf_counter()
            child = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
            seconds = time.perf_counter() - start
        if child.returncode or not answer.is_file():
            said = child.stderr.strip().splitlines() or [f"its process ended ({child.returncode}); is memory short?"]
            raise GlamaError(said[-1])
        return seconds, Report.model_validate_json(answer.read_text(encoding="utf-8"))

    def _compare(self, runs: dict[Subject, list[tuple[float, Report]]], rows: dict[Subject, Row]) -> None:
        """Add the distance from the reference to the rows."""
        if not runs:
            return
        self._setting.step("  the reference")
        try:
            _, report = self._run(REFERENCE)
        except GlamaError as error:
            self.reference = f"not made: {error}"
            return
        self.reference = report.description
        with np.load(self._find_out(REFERENCE).with_suffix(".npz")) as file:
            wanted = np.concatenate([file[name] for name in sorted(file.files)])
        for subject in runs:
            with np.load(self._find_out(subject).with_suffix(".npz")) as file:
                found = np.concatenate([file[name] for name in sorted(file.files)])
            psnr = min(compute_psnr(compute_mean_square(found, wanted)), MAX_PSNR)
            largest = int(np.abs(found.astype(int) - wanted).max())
            rows[subject] = rows[subject].model_copy(update={"psnr": psnr, "max_difference": largest})


def _add_times(row: Row, measured: Sequence[tuple[float, Report]]) -> Row:
    """Return a row with the times of its runs."""
    reports = [report for _, report in measured]
    names = list(dict.fromkeys(name for report in reports for name in report.steps))
    return row.model_copy(
        update={
            "description": reports[0].description,
            "pictures": reports[0].pictures,
            "seconds": tuple(seconds for seconds, _ in measured),
            "start_seconds": tuple(report.steps["start"] for report in reports),
            "cpu_seconds": tuple(report.cpu_seconds for report in reports),
            "peak_bytes": max(report.peak_bytes for report in reports),
            "steps": {name: statistics.median(report.steps.get(name, 0.0) for report in reports) for name in names},
        }
    )
