"""A run's checkpoints: whole or not there, the last few and the best.

Each is a `.pt` that `glama-export` takes as it is (`config` and `state_dict` are the averaged generator's); all else
that the run needs to go on is under `training`.
"""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch

from glama_deploy.errors import CheckpointError
from glama_deploy.io.files import atomic_file
from glama_deploy.text.excerpts import first_line

BEST = "best.pt"
#: What a damaged file makes `torch.load` raise: its unpickler takes what the file says without a check.
DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
)
_NAME = re.compile(r"step-(\d+)\.pt")


class Checkpoints:
    """The checkpoints in a folder, of which `keep` stay beside the best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, then remove those that are too many. Raises GlamaError where the disk is full
        or cannot be written; what was there stays."""
        path = self._folder / f"step-{step:08}.pt"
        _write(path, state)
        for old in self.steps()[: -self._keep]:
            self._path(old).unlink()
        return path

    def save_best(self, state: dict[str, Any]) -> None:
        _write(self._folder / BEST, state)

    def steps(self) -> list[int]:
        """Of the checkpoints that are there, in order."""
        names = (_NAME.fullmatch(path.name) for path in self._folder.glob("step-*.pt"))
        return sorted(int(match.group(1)) for match in names if match)

    def latest(self) -> Path | None:
        steps = self.steps()
        return self._path(steps[-1]) if steps else None

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08}.pt"


def read(path: Path) -> dict[str, Any]:
    """What :meth:`Checkpoints.save` was given. Raises CheckpointError: damaged, or no checkpoint of a run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged ({first_line(error)}); remove it to go on from the one before"
        ) from error
    if not isinstance(state, dict) or "training" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a training run; give the folder of one to --out")
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; see :meth:`Checkpoints.save`.

    torch writes a file that it opens itself in C++, where the reason of a failure is lost. Of a file that Python
    opened, torch raises a RuntimeError that carries the OSError, which `atomic_file` finds.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
