"""From a function to a command: errors that the user can mend are one line and exit code 2, never a traceback."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from typing import Any

import typer
from rich.markup import escape

from glama_deploy.errors import GlamaError


class _Terminated(BaseException):
    """A signal that asks the process to end, which cleans up on its way as an interrupt does."""

    def __init__(self, number: int) -> None:
        self.value, self.name = number, signal.Signals(number).name


class _Interrupted(BaseException):
    """A Ctrl-C, which typer would make an exit code of without a word."""


def _heard(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """The same, where a Ctrl-C comes out as _Interrupted."""

    @wraps(function)
    def heard(*arguments: Any, **options: Any) -> int | None:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt as error:
            raise _Interrupted from error

    return heard


@contextmanager
def _signals_heeded() -> Iterator[None]:
    """Raise _Terminated where a signal asks the process to end, also where a library turned that into an error of its
    own on the way (an import or a native call that was cut off)."""
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        raise _Terminated(number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP) if main}
    try:
        yield
    except BaseException as error:
        if came:
            raise _Terminated(came[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command:
    """A command line around a function whose return value is the exit code (None is 0)."""

    def __init__(self, name: str, function: Callable[..., int | None]) -> None:
        self._name = name
        self._app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        self._app.command(name)(_heard(function))

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run with `arguments` (default: the process's) and leave with the exit code."""
        sys.exit(self.run(sys.argv[1:] if arguments is None else arguments))

    def run(self, arguments: Sequence[str]) -> int:
        """The exit code of a run with these arguments."""
        if list(arguments) == ["--version"]:
            print(f"{self._name} {version('glama-deploy')}")
            return 0
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"{self._name}: note: %(message)s"))
        log = logging.getLogger("glama_deploy")
        log.addHandler(handler)
        log.propagate = False
        try:
            with _signals_heeded():
                return self._app(args=list(arguments), prog_name=self._name, standalone_mode=False) or 0
        except GlamaError as error:
            return self._fail(str(error), error.exit_code)
        except typer.TyperException as error:
            return self._fail(f"{error.format_message()} (see {self._name} --help)".replace("\n", " "), 2)
        except typer.Exit as error:
            return error.exit_code
        except (KeyboardInterrupt, _Interrupted, typer.Abort):
            return self._fail("interrupted; nothing half-written is left", 130)
        except _Terminated as ended:
            return self._fail(f"ended by {ended.name}; nothing half-written is left", 128 + ended.value)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return self._fail(f"{where}{error.strerror or error}; check the path and its permissions", 2)
        except MemoryError:
            return self._fail("not enough memory; use a smaller image or fewer things at once", 2)
        finally:
            log.removeHandler(handler)
            log.propagate = True

    def _fail(self, message: str, code: int) -> int:
        print(f"{self._name}: {message}", file=sys.stderr)
        return code


def option(*names: str, help: str, **settings: Any) -> Any:  # (`help` is typer's name for it)
    """A command's option; brackets in its help are brackets, and no markup."""
    return typer.Option(*names, help=escape(help), **settings)
