"""Write and read the checkpoints of a training run: the last few and the best.

Each checkpoint is a `.pt` file that the exporter reads: `config` and `state_dict` are those of the averaged generator.
The state that a resumed run needs is under `training`.
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

#: Exceptions that `torch.load` raises for damaged files, which its unpickler does not check.
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
    """The checkpoints in a folder.

    Args:
        folder: The run's folder.
        keep: Number of checkpoints that are kept, in addition to the best one.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, then remove the oldest checkpoints.

        Args:
            step: Number of the step.
            state: The state of the run (:meth:`glama_deploy.training.trainer.Trainer.state`).

        Returns:
            The checkpoint.

        Raises:
            GlamaError: The file cannot be written. No checkpoint is removed.
        """
        path = self.name_path(step)
        _write(path, state)
        for old in self.list_steps()[: -self._keep]:
            self.name_path(old).unlink()
        return path

    def save_best(self, name: str, state: dict[str, Any]) -> None:
        """Write a best checkpoint.

        Args:
            name: The file's name.
            state: The state of the run.

        Raises:
            GlamaError: The file cannot be written. The best checkpoint before is not changed.
        """
        _write(self._folder / name, state)

    def list_steps(self) -> list[int]:
        """List the steps of all checkpoints except the best one.

        Returns:
            The steps in ascending order.
        """
        names = (_NAME.fullmatch(path.name) for path in self._folder.glob("step-*.pt"))
        return sorted(int(match.group(1)) for match in names if match)

    def find_latest(self) -> Path | None:
        """Find the last checkpoint.

        Returns:
            The checkpoint, or None where the folder has no checkpoint.
        """
        steps = self.list_steps()
        return self.name_path(steps[-1]) if steps else None

    def name_path(self, step: int) -> Path:
        """Return the path of a step's checkpoint.

        Args:
            step: Number of the step.

        Returns:
            The path, which need not exist.
        """
        return self._folder / f"step-{step:08}.pt"


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training run.

    Args:
        path: The checkpoint.

    Returns:
        The state of the run.

    Raises:
        CheckpointError: The file is damaged, or is not a checkpoint of a training run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged ({first_line(error)}); remove the file to resume from the checkpoint before"
        ) from error
    if not isinstance(state, dict) or "training" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of a training run; give the folder of a run")
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint completely or not at all.

    If torch opens the file itself, the reason of a failed write is lost in C++. If Python opens the file, torch raises
    a RuntimeError from the OSError, which `atomic_file` finds.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
