"""The one engine of a server, and the models that it can be changed to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from glama_deploy.catalogue import PRECISIONS, join_names
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.errors import ApiError

#: Opens a model (a bundle or checkpoint) in a precision.
OpenModel = Callable[[str, str], Inpainter]


@dataclass(frozen=True)
class Choice:
    """What a client asks for.

    Attributes:
        model: the name of a model; None for the one that is open.
        precision: the precision; None for any.
    """

    model: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class OpenEngine:
    """An open engine.

    Attributes:
        model: the name of the model.
        asked: the precision that the model was opened with, as it was asked for.
        inpainter: the inpainter.
    """

    model: str
    asked: str
    inpainter: Inpainter

    def serves(self, choice: Choice) -> bool:
        """Return whether the engine is what a client asks for.

        Args:
            choice: what the client asks for.

        Returns:
            True if neither model nor precision is another.
        """
        return choice.model in (None, self.model) and choice.precision in (None, self.asked, self.inpainter.precision)


class Engine:
    """Holds one open engine, and changes it while nobody uses it.

    A new engine is opened before the old one is let go, so that the server keeps an engine where the new one does not
    open. Callers that come meanwhile wait. All methods may be called from any thread.
    """

    def __init__(self, open_model: OpenModel, models: Mapping[str, str], precision: str) -> None:
        """Name the models; :meth:`open` opens the first.

        Args:
            open_model: opens a model in a precision.
            models: names that clients use, each with a bundle or checkpoint.
            precision: the precision at the start.
        """
        self._open_model, self._models, self._first_precision = open_model, dict(models), precision
        self._changed = threading.Condition()
        self._current: OpenEngine | None = None
        self._users, self._changing = 0, True

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    @property
    def first_model(self) -> str:
        """The name of the model that is opened at the start."""
        return next(iter(self._models))

    @property
    def current(self) -> OpenEngine | None:
        """The open engine; None before :meth:`open` is done."""
        return self._current

    @property
    def is_ready(self) -> bool:
        """Whether an engine is open and is not being changed."""
        return self._current is not None and not self._changing

    def open(self) -> OpenEngine:
        """Open the first model.

        Returns:
            The engine.

        Raises:
            GlamaError: the model cannot be opened. Callers that wait get an error, too.
        """
        opened = None
        try:
            inpainter = self._open_model(self._models[self.first_model], self._first_precision)
            opened = OpenEngine(self.first_model, self._first_precision, inpainter)
        finally:
            with self._changed:
                self._current, self._changing = opened, False
                self._changed.notify_all()
        return opened

    def check(self, choice: Choice) -> None:
        """Check what a client asks for, as far as possible without opening an engine.

        Args:
            choice: what the client asks for.

        Raises:
            ApiError: the model is not one of this server's, or the precision is unknown or not supported here.
        """
        if choice.model is not None and choice.model not in self._models:
            raise ApiError(
                422, "model", f"`model` is {choice.model!r}; this server has {join_names(self._models, 'and')}"
            )
        if choice.precision not in (None, "auto", *PRECISIONS):
            raise ApiError(
                422, "precision", f"`precision` is {choice.precision!r}; expected {join_names(('auto', *PRECISIONS))}"
            )
        current = self._current
        if current is not None and choice.model in (None, current.model) and not current.serves(choice):
            _check_precision(choice, current.inpainter)

    @contextmanager
    def use(self, choice: Choice) -> Iterator[OpenEngine]:
        """Use the engine that a client asks for. The engine is changed first if it is another.

        Args:
            choice: what the client asks for.

        Yields:
            The engine, which is not changed during the block.

        Raises:
            ApiError: the engine that the client asks for cannot be opened.
        """
        self.check(choice)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._changing)
                current = self._require_engine()
                if current.serves(choice):
                    self._users += 1
                    break
                self._changing = True
                self._changed.wait_for(lambda: self._users == 0)
            self._change(current, choice)
        try:
            yield current
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _require_engine(self) -> OpenEngine:
        if self._current is None:
            raise ApiError(503, "engine", "the model did not open; the log of the server has the reason")
        return self._current

    def _change(self, current: OpenEngine, choice: Choice) -> None:
        """Open another engine. The caller has set `_changing`, and nobody uses the current one."""
        model = choice.model or current.model
        opened = current
        try:
            inpainter = self._open_model(self._models[model], choice.precision or "auto")
            _check_precision(choice, inpainter)
            opened = OpenEngine(model, choice.precision or "auto", inpainter)
        except GlamaError as error:
            raise ApiError(409, "engine", f"{model} cannot be opened, {current.model} stays open: {error}") from error
        finally:
            with self._changed:
                self._current, self._changing = opened, False
                self._changed.notify_all()


def _check_precision(choice: Choice, inpainter: Inpainter) -> None:
    """Raise ApiError for a precision that a model cannot be opened in. An engine may open another one instead."""
    if choice.precision not in (None, "auto", *inpainter.precisions):
        raise ApiError(
            422,
            "precision",
            f"`precision` is {choice.precision}; {inpainter.description} supports {join_names(inpainter.precisions)} "
            "for this model and machine",
        )
