"""Kill -9 at random moments of every command that writes (`make kill`).

After each kill the output is the old one, the new one, or absent, and whole in each case. The next run succeeds and
leaves no temporary file, folder or lock file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
import psutil
import torch
from PIL import Image

from fuzz.generators import commands
from fuzz.generators.commands import ARGUMENTS
from fuzz.report import table
from glama_deploy.bundle import MANIFEST, Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.errors import GlamaError
from glama_deploy.io import images
from glama_deploy.io.files import PREFIX, sha256
from glama_deploy.io.mask_files import read_mask
from glama_deploy.training import checkpoints as training_checkpoints

State = Literal["absent", "old", "new"]

#: Half of the kills fall into this last share of a run, where files are written.
_LAST_SHARE = 0.35

#: Whole runs that the length of a run is taken from.
_TIMED_RUNS = 2

#: The kernel counts CPU time in steps of 0.01 s.
_LOOK_SECONDS = 0.005

#: A run that takes longer than so many seconds hangs.
_HANG_SECONDS = 600

#: A colour that no picture of the old state shares with a result.
_OLD_COLOUR = (1, 2, 3)


class Broken(Exception):
    """An output that is neither whole nor absent."""


@dataclass(frozen=True)
class Job:
    """A command that writes.

    Args:
        command: the command and its arguments, for the folder that `commands.write_inputs` fills.
        state: a function that reads the output in a folder. The function raises Broken, or what our readers raise,
            where the output is not whole.
        put_old: a function that writes an older output into a folder before the run.
        again: arguments that the next run needs where there is an output.
        share: share of the moments; a run that takes half a minute gets fewer.
    """

    command: tuple[str, ...]
    state: Callable[[Path], State]
    put_old: Callable[[Path], None] | None = None
    again: tuple[str, ...] = ()
    share: float = 1.0


@dataclass
class Tally:
    """What became of a job's kills."""

    cpu_seconds: float = 0.0
    states: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.states.total() + len(self.broken)

    @property
    def passed(self) -> bool:
        return not self.lines

    @property
    def lines(self) -> list[str]:
        """What went wrong, a line for each fault."""
        return [*self.broken, *self.failed, *self.leftovers]


# ---------------------------------------------------------------- reading the outputs


def _bundle_state(folder: Path) -> State:
    """The bundle `out`; a bundle of the checkpoint in the folder is new, one of another is old."""
    if not (folder / "out").exists():
        return "absent"
    bundle = _verified(folder / "out")
    return "new" if bundle.manifest.checkpoint.sha256 == sha256(folder / "network.safetensors") else "old"


def _verified(path: Path) -> Bundle:
    """Open a bundle and verify its files. Raises BundleError."""
    bundle = Bundle.open(path)
    bundle.verify()
    return bundle


def _build_state(folder: Path) -> State:
    return "new" if "openvino" in _verified(folder / "bundle").manifest.engines else "old"


def _picture_state(folder: Path) -> State:
    return _whole_picture(folder / "out.png", folder / "image.png", folder / "mask.png")


def _whole_picture(out: Path, image: Path, mask: Path) -> State:
    """A result keeps the known pixels; the old picture is of one colour."""
    if not out.exists():
        return "absent"
    found, truth, missing = images.read_image(out).rgb, images.read_image(image).rgb, read_mask(mask)
    if (found == _OLD_COLOUR).all():
        return "old"
    if found.shape != truth.shape or not np.array_equal(found[~missing], truth[~missing]):
        raise Broken(f"{out.name} is another picture")
    return "new"


def _folder_state(folder: Path) -> State:
    names = [path.name for path in (folder / "images").iterdir()]
    states = {
        _whole_picture(folder / "out" / name, folder / "images" / name, folder / "masks" / name) for name in names
    }
    return "absent" if states == {"absent"} else "new"


def _in_place_state(folder: Path) -> State:
    """Every picture is its original, or a result whose original is kept."""
    states = set()
    for original in (folder / "originals").iterdir():
        image = folder / "images" / original.name
        backup = image.with_name(f"{image.stem}.orig{image.suffix}")
        if backup.exists() and backup.read_bytes() != original.read_bytes():
            raise Broken(f"{backup.name} is not the original")
        if image.read_bytes() == original.read_bytes():
            states.add("old")
        elif not backup.exists():
            raise Broken(f"{image.name} was replaced without a backup")
        else:
            _whole_picture(image, backup, folder / "masks" / image.name)
            states.add("new")
    return "new" if states == {"new"} else "old"


def _sheet_state(folder: Path) -> State:
    """A sheet, or another picture without a truth, that Pillow decodes to the end."""
    path = folder / "out.png"
    if not path.exists():
        return "absent"
    return "old" if (images.read_image(path).rgb == _OLD_COLOUR).all() else "new"


def _training_state(folder: Path) -> State:
    written = sorted((folder / "out").glob("*.pt"))
    for path in written:
        training_checkpoints.read(path)
        formats.read(path)
    return "new" if written else "absent"


def _json_state(folder: Path) -> State:
    """The results of an evaluation or a benchmark; every picture beside them is whole."""
    for path in (folder / "out").rglob("*.png"):
        if path.is_file():  # a picture's own folder is called after the picture
            images.read_image(path)
    path = folder / "out" / "results.json"
    if not path.exists():
        return "absent"
    json.loads(path.read_text(encoding="utf-8"))
    return "new"


def _demo_state(folder: Path) -> State:
    sheet = _sheet_state(folder)
    if (folder / "out" / "bundle").exists():
        _verified(folder / "out" / "bundle")
        return "new"
    return sheet


def _cache_state(folder: Path) -> State:
    """The bundle in the cache, which an inpainting of a checkpoint fills, and the picture."""
    for manifest in (folder / "cache").rglob(MANIFEST):
        if not manifest.parent.name.startswith(PREFIX):
            _verified(manifest.parent)
    return _picture_state(folder)


# ---------------------------------------------------------------- older outputs


def _put_bundle(folder: Path) -> None:
    shutil.copytree(folder / "older" / "bundle", folder / "out")


def _put_picture(folder: Path) -> None:
    Image.new("RGB", (commands.WIDTH, commands.HEIGHT), _OLD_COLOUR).save(folder / "out.png")


def _put_originals(folder: Path) -> None:
    shutil.copytree(folder / "images", folder / "originals")


def _command(name: str, *more: str) -> tuple[str, ...]:
    return (name, *ARGUMENTS[name], *more)


_FOLDERS = ("--image", "images", "--mask", "masks", "--out", "out", "--model", "bundle", "--backend", "onnxruntime")
_IN_PLACE = ("--image", "images", "--mask", "masks", "--in-place", "--model", "bundle", "--backend", "onnxruntime")
_CACHED = ("--image", "image.png", "--mask", "mask.png", "--out", "out.png", "--model", "network.safetensors")

#: Every command that writes, by its row in the table.
JOBS: dict[str, Job] = {
    "glama-export": Job(_command("glama-export"), _bundle_state, again=("--overwrite",)),
    "glama-export --overwrite": Job(_command("glama-export", "--overwrite"), _bundle_state, _put_bundle),
    "glama-build --target openvino": Job(_command("glama-build"), _build_state),
    "glama-inpaint": Job(_command("glama-inpaint"), _picture_state, again=("--overwrite",)),
    "glama-inpaint --overwrite": Job(_command("glama-inpaint", "--overwrite"), _picture_state, _put_picture),
    "glama-inpaint, a folder": Job(("glama-inpaint", *_FOLDERS), _folder_state),
    "glama-inpaint --in-place": Job(("glama-inpaint", *_IN_PLACE), _in_place_state, _put_originals),
    "glama-inpaint, empty cache": Job(("glama-inpaint", *_CACHED), _cache_state, again=("--overwrite",)),
    "glama-train": Job(_command("glama-train"), _training_state, again=("--resume",), share=0.5),
    "glama-eval": Job(_command("glama-eval"), _json_state, share=0.5),
    "glama-mask --overwrite": Job(_command("glama-mask", "--overwrite"), _sheet_state, _put_picture),
    "glama-masks --overwrite": Job(_command("glama-masks", "--overwrite"), _sheet_state, _put_picture),
    "glama-bench": Job(_command("glama-bench"), _json_state, again=("--overwrite",), share=0.1),
    "glama-demo": Job(_command("glama-demo"), _demo_state, share=0.1),
}


# ---------------------------------------------------------------- running and killing


def write_template(folder: Path) -> None:
    """Write the inputs that every run gets a copy of, with another checkpoint's bundle in `older`."""
    commands.write_inputs(folder)
    (folder / "older").mkdir()
    commands.write_inputs(folder / "older", seed=1)


def run(name: str, moments: int, seed: int, template: Path, place: Path, keep: Path | None, at_once: int = 2) -> Tally:
    """Kill a job at random moments, and check what is left.

    Args:
        name: a key of `JOBS`.
        moments: kills, before the job's own share; at least one.
        template: the folder of `write_template`.
        place: an empty folder to work in.
        keep: folder for what a kill broke; None keeps nothing.
    """
    job, tally, rng = JOBS[name], Tally(), random.Random(f"{name} {seed}")
    # the shorter one: the first run of a command also compiles what Python keeps
    tally.cpu_seconds = min(_timed(job, template, place / f"timed-{n}") for n in range(_TIMED_RUNS))
    shares = [_moment(rng, number) for number in range(max(1, round(moments * job.share)))]
    with ThreadPoolExecutor(at_once) as pool:

        def kill(number: int) -> None:
            folder = place / f"kill-{number}"
            _kill(job, shares[number] * tally.cpu_seconds, template, folder, tally)
            lost = any(entry.startswith(f"{folder.name}:") for entry in tally.lines)
            if lost and keep is not None:
                shutil.copytree(folder, keep / f"{name.replace(' ', '-')}-{number}", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(folder)

        list(pool.map(kill, range(len(shares))))
    return tally


def _moment(rng: random.Random, number: int) -> float:
    """A share of a run: anywhere, and for every second kill near the end."""
    return rng.uniform(1 - _LAST_SHARE, 1.0) if number % 2 else rng.random()


def _timed(job: Job, template: Path, folder: Path) -> float:
    """CPU seconds of a whole run, with the processes that it started."""
    _place(job, template, folder)
    output = folder / "temporary" / "output.txt"
    with output.open("wb") as file:
        child = _start(job.command, folder, file)
        _, status, usage = os.wait4(child.pid, 0)
    code, seconds = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    child.returncode = code  # or Popen waits for the process once more
    said = output.read_text(encoding="utf-8", errors="replace")[-500:]
    if code not in (0, 4):  # 4: TensorRT-RTX is not here, and the rest is
        raise RuntimeError(f"{' '.join(job.command)} does not end well without a kill (exit code {code}): {said}")
    state = job.state(folder)
    shutil.rmtree(folder)
    if state != "new":
        raise RuntimeError(f"{' '.join(job.command)} ended well, and the output is {state}")
    return seconds


def _kill(job: Job, seconds: float, template: Path, folder: Path, tally: Tally) -> None:
    """Start, kill after so many seconds of CPU time, look, run again, look.

    CPU time says how far a run is, however busy the machine is.
    """
    _place(job, template, folder)
    child = _start(job.command, folder, subprocess.DEVNULL)
    while child.poll() is None and _cpu_seconds(child.pid) < seconds:
        time.sleep(_LOOK_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    state = _look(job, folder, tally)
    if state is None:
        return
    tally.states[state] += 1
    again = job.again if state == "new" else ()
    code, said = _finish((*job.command, *again), folder)
    if code not in (0, 4):
        tally.failed.append(f"{folder.name}: the next run's exit code is {code}: {said}")
    elif _look(job, folder, tally) not in ("new", None):
        tally.failed.append(f"{folder.name}: the next run ended well without a new output")
    tally.leftovers += [f"{folder.name}: {path} is left" for path in leftovers(folder)]


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files, folders and lock files below a folder, by their paths relative to the folder."""
    found = (path for path in folder.rglob("*") if path.name.startswith(PREFIX))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _start(command: Sequence[str], folder: Path, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a process group."""
    return subprocess.Popen(
        _real(command),
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _cpu_seconds(number: int) -> float:
    """Return the CPU time of a process and of those that it started; infinite once the process has ended."""
    try:
        process = psutil.Process(number)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return math.inf
    return sum(each.user + each.system for each in times)


def _look(job: Job, folder: Path, tally: Tally) -> State | None:
    """Return the state of the output; None where the output is broken, which is counted."""
    try:
        state = job.state(folder)
    except (Broken, GlamaError, OSError, ValueError) as error:
        tally.broken.append(f"{folder.name}: {error}")
        return None
    if state == "absent" and job.put_old is not None:
        tally.broken.append(f"{folder.name}: the old output is gone, and the new one is not there")
        return None
    return state


def _place(job: Job, template: Path, folder: Path) -> None:
    shutil.copytree(template, folder)
    (folder / "temporary").mkdir()
    if job.put_old is not None:
        job.put_old(folder)


def _finish(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a command to its end; return the exit code and the last line that was said."""
    child = _start(command, folder, subprocess.PIPE)
    try:
        _, said = child.communicate(timeout=_HANG_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return child.returncode, lines[-1] if lines else ""


def _real(command: Sequence[str]) -> list[str]:
    return [str(Path(sys.executable).parent / command[0]), *command[1:]]


def _environment(folder: Path) -> dict[str, str]:
    """One thread of PyTorch, as two runs share the machine; cache and temporary files of the run's own."""
    own = {"GLAMA_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


COLUMNS = (
    *("command", "CPU seconds a run", "kills", "absent", "old", "new", "broken", "next run failed"),
    "leftovers after the next run",
)


def row(name: str, tally: Tally) -> tuple[object, ...]:
    """Return a tally as a row of the table."""
    states = [tally.states[state] for state in ("absent", "old", "new")]
    losses = (len(tally.broken), len(tally.failed), len(tally.leftovers))
    return (name, f"{tally.cpu_seconds:.1f}", tally.kills, *states, *losses)


def main() -> int:
    """Return 1 where a kill broke an output, a next run failed, or something was left."""
    parser = argparse.ArgumentParser(prog="kill", description=__doc__)
    parser.add_argument("--moments", type=int, default=100, help="kills of each command (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", choices=tuple(JOBS), help="all by default; may be given again")
    parser.add_argument("--at-once", type=int, default=2, help="runs at once (2)")
    parser.add_argument("--keep", type=Path, default=Path("build/kill"), help="folder for what was lost (build/kill)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        template = Path(name) / "template"
        template.mkdir()
        write_template(template)
        for number, job in enumerate(options.command or JOBS):
            place = Path(name) / str(number)
            place.mkdir()
            try:
                tallies[job] = run(job, options.moments, options.seed, template, place, options.keep, options.at_once)
            except (RuntimeError, GlamaError, subprocess.TimeoutExpired) as error:  # the other commands still run
                tallies[job] = Tally(failed=[str(error)])
            print(*row(job, tallies[job]), sep=", ", file=sys.stderr, flush=True)
    print(table(COLUMNS, [row(job, tally) for job, tally in tallies.items()]))
    for job, tally in tallies.items():
        for line in tally.lines:
            print(f"{job}: {line}")
    return 0 if all(tally.passed for tally in tallies.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
