"""The table of a run's validations, `scores.csv`: a row for each step, mask and score."""

from __future__ import annotations

import csv
from pathlib import Path

from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file

#: Name of the table in the run's folder.
SCORES = "scores.csv"

_COLUMNS = ["step", "mask", "score", "value"]


class ScoreLog:
    """Adds validations to a run's table.

    Args:
        folder: The run's folder.
        step: The step from which the run begins or continues. Rows of later steps are left out.

    Raises:
        GlamaError: The table of a run that continues is damaged.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / SCORES
        self._rows = [row for row in _read(self._path) if int(row[0]) <= step] if step else []

    def add(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """Write the table with a further validation.

        Args:
            step: The number of completed steps.
            scores: The values by mask and score.

        Raises:
            GlamaError: The file cannot be written. The table before is not changed.
        """
        self._rows += [[str(step), mask, name, repr(value)] for mask in scores for name, value in scores[mask].items()]
        with atomic_file(self._path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *self._rows])


def _read(path: Path) -> list[list[str]]:
    """Return the rows of a table, none where the file does not exist. Raises GlamaError for another file."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise GlamaError(f"{path} cannot be read ({error}); move the file away") from error
    if header != _COLUMNS or not all(len(row) == len(_COLUMNS) and row[0].isdecimal() for row in rows):
        raise GlamaError(f"{path} is not a table of {', '.join(_COLUMNS)}; move the file away")
    return rows
