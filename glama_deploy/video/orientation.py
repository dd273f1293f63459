"""How the frames of a video are turned when they are shown: the display matrix of phones and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from glama_deploy.errors import ImageError

if TYPE_CHECKING:
    from av import VideoFrame

#: The fixed point of the matrix, which has 16 bits behind the point in its first two columns.
_ONE = 1 << 16

#: Entries of the matrix that turn and mirror, row by row.
_TURN = (0, 1, 3, 4)


@dataclass(frozen=True)
class Orientation:
    """A display matrix.

    Attributes:
        matrix: the nine numbers as they are stored; None where frames are shown as they are.
    """

    matrix: tuple[int, ...] | None = None

    @classmethod
    def read(cls, frame: VideoFrame) -> Orientation:
        """Read the display matrix of a frame.

        Args:
            frame: the frame.

        Returns:
            The orientation.

        Raises:
            ImageError: the frame is turned by another angle than a multiple of 90 degrees.
        """
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        found = cls(tuple(np.frombuffer(bytes(data), "<i4").tolist()))
        a, b, c, d = found._turn()
        if sorted((abs(a) + abs(c), abs(b) + abs(d))) != [1, 1] or abs(a) + abs(b) != 1:
            raise ImageError(
                f"the video is shown turned by {frame.rotation} degrees; a multiple of 90 is expected: turn the frames "
                "themselves first"
            )
        return found

    def _turn(self) -> tuple[int, int, int, int]:
        """Return the matrix as whole numbers: shown x = a·x + c·y, shown y = b·x + d·y."""
        if self.matrix is None:
            return 1, 0, 0, 1
        a, b, c, d = (round(self.matrix[place] / _ONE) for place in _TURN)
        return a, b, c, d

    def turn_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size as it is shown.

        Args:
            size: height and width of the stored frames.

        Returns:
            Height and width of the shown frames.
        """
        return size if self._turn()[0] else (size[1], size[0])

    def show(self, values: np.ndarray) -> np.ndarray:
        """Turn a stored picture as it is shown.

        Args:
            values: H×W or H×W×C as they are stored.

        Returns:
            The picture, upright.
        """
        a, b, c, d = self._turn()
        if not a:  # stored rows become columns
            values = values.swapaxes(0, 1)
        along_x, along_y = a + c, b + d
        return values[:: 1 if along_y > 0 else -1, :: 1 if along_x > 0 else -1]

    def store(self, values: np.ndarray) -> np.ndarray:
        """Turn a shown picture as it is stored.

        Args:
            values: H×W or H×W×C, upright.

        Returns:
            The picture as it is stored.
        """
        a, b, c, d = self._turn()
        along_x, along_y = a + c, b + d
        values = values[:: 1 if along_y > 0 else -1, :: 1 if along_x > 0 else -1]
        return values if a else values.swapaxes(0, 1)
