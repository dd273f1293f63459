"""The journal of a run: which pictures were begun and which are done, whatever happens to the workers.

Ray repeats the task of a worker that ended. The journal tells the next worker which pictures of the task are done, so
that no picture is written twice. A picture that was begun when a worker ended may be the cause. After
MAX_ATTEMPTS such ends the picture fails, and the run goes on.
"""

from __future__ import annotations

from typing import Literal

#: The number of times that a picture is begun. A worker that ends this often with one picture is ended by the picture.
MAX_ATTEMPTS = 3

#: What a worker does with a picture. taken: another picture has the same key.
Verdict = Literal["fill", "done", "give up", "taken"]


class Journal:
    """The journal, which is an actor of its own in a cluster."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._done: dict[str, str] = {}
        self._origins: dict[str, str] = {}

    def find_suspects(self, keys: list[str]) -> list[bool]:
        """Tell which pictures were begun and did not end.

        Args:
            keys: the keys of pictures.

        Returns:
            For each key whether a worker ended with it.
        """
        return [self._attempts.get(key, 0) > 0 for key in keys]

    def begin(self, key: str, origin: str) -> tuple[Verdict, str]:
        """Begin a picture.

        Args:
            key: the key of the picture, which is the name of its output.
            origin: what tells the picture from others.

        Returns:
            What to do with the picture. For `done`, the result as it was given to :meth:`end`. For `taken`, the
            origin of the other picture. For `fill`, a text if a worker ended with the picture before.
        """
        other = self._origins.setdefault(key, origin)
        if other != origin:
            return "taken", other
        if key in self._done:
            return "done", self._done[key]
        attempts = self._attempts.get(key, 0)
        if attempts >= MAX_ATTEMPTS:
            return "give up", ""
        self._attempts[key] = attempts + 1
        return "fill", "again" if attempts else ""

    def end(self, key: str, result: str) -> None:
        """End a picture.

        Args:
            key: the key of the picture.
            result: the result, for a worker that gets the picture again.
        """
        self._attempts.pop(key, None)
        self._done[key] = result
