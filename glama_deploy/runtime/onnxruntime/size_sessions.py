"""Sessions of ONNX Runtime for one size each, the last few of which are kept."""

from __future__ import annotations

from collections import OrderedDict

from glama_deploy.network import SIZE_MULTIPLE
from glama_deploy.runtime.onnxruntime.providers import Session, Shape

#: The number of sessions that are kept. Each has its own copy of the weights.
MAX_SESSIONS = 4


class SizeSessions:
    """Opens a session for each batch, height and width, and closes the one that ran the longest ago."""

    def __init__(self, first: Session) -> None:
        """Keep the first session.

        Args:
            first: A session with a shape.
        """
        assert first.shape is not None
        self._open_shape = first.open_shape
        self._kept: OrderedDict[Shape, Session] = OrderedDict({first.shape: first})
        #: The shape that ran last, and how many times another shape or a new session ran than before.
        self.holder: tuple[Shape, int] = (first.shape, 0)

    def has(self, batch: int, size: tuple[int, int]) -> bool:
        """Return whether images have a session.

        Args:
            batch: The number of images.
            size: Their height and width, padded to what the network reduces. A graph of bytes pads by itself.

        Returns:
            True for a session that is open.
        """
        return any((kept[0], *map(_pad, kept[1:])) == (batch, *size) for kept in [*self._kept])

    def get(self, shape: Shape) -> Session:
        """Return the session of a shape. The caller holds a lock until the session ran.

        Args:
            shape: Batch, height and width.

        Returns:
            The session, which is opened unless it was kept.

        Raises:
            EngineError: The session cannot be opened.
        """
        if shape != self.holder[0]:
            self.holder = (shape, self.holder[1] + 1)
        if shape not in self._kept:
            while len(self._kept) >= MAX_SESSIONS:  # before the new one takes memory
                self._kept.popitem(last=False)
            assert self._open_shape is not None
            self._kept[shape] = self._open_shape(shape)
        self._kept.move_to_end(shape)
        return self._kept[shape]


def _pad(side: int) -> int:
    return -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE
