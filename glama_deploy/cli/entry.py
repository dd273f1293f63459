"""From a function to a command: errors that the user can mend are one line and exit code 2, never a traceback."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.metadata import version
from typing import Any

import typer
from rich.markup import escape

from glama_deploy.cli.output.option_names import show_options
from glama_deploy.cli.output.streams import CLOSED_PIPE, flush_output, forgiving_streams
from glama_deploy.errors import GlamaError
from glama_deploy.text.escapes import escape_controls, shorten_words

#: The exit code of a command that Ctrl-C ended.
_INTERRUPTED = 130

#: Signals that ask a process to end. Windows has no SIGHUP.
_ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Terminated(BaseException):
    """A signal that asks the process to end, which cleans up on its way as an interrupt does."""

    def __init__(self, number: int) -> None:
        self.value, self.name = number, signal.Signals(number).name


class _Interrupted(BaseException):
    """A Ctrl-C, which typer would make an exit code of without a word."""


class _OneLine(logging.Formatter):
    """A formatter whose lines stay single lines, whatever names they hold."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(shorten_words(show_options(super().format(record))))


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
    """Raise _Interrupted or _Terminated where a signal asks the process to end.

    A library may turn the signal into an error of its own on the way, where an import or a native call was cut off. A
    command's own answer to Ctrl-C stays.
    """
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        raise _Terminated(number)

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, end) for number in _ENDINGS}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        answered = isinstance(error, GlamaError) and error.exit_code == _INTERRUPTED
        if came and not answered:
            raise (_Interrupted() if came[0] == signal.SIGINT else _Terminated(came[0])) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: Exit codes above this stand for the signal that ended the process.
_SIGNALS_FROM = 128


def _has_other_threads() -> bool:
    """Return whether threads still run for which the end of the process would wait."""
    return any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate())


class Command:
    """A command line around a function whose return value is the exit code (None is 0)."""

    def __init__(self, name: str, function: Callable[..., int | None]) -> None:
        self._name = name
        self._app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        self._app.command(name, help=escape(inspect.getdoc(function) or ""))(_heard(function))

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run with `arguments` (default: the process's) and leave with the exit code."""
        code = self.run(sys.argv[1:] if arguments is None else arguments)
        if code > _SIGNALS_FROM and _has_other_threads():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # sys.exit would wait for them, which can be minutes in an engine
        sys.exit(code)

    def run(self, arguments: Sequence[str]) -> int:
        """Return the exit code of a run with these arguments; all that was printed is written out."""
        with forgiving_streams():
            code = self._run(arguments)
            error = flush_output()
            if error is None or code:
                return code
            if isinstance(error, BrokenPipeError):
                return CLOSED_PIPE
            return self._fail(f"cannot write to standard output: {error.strerror}; what was printed is cut off", 2)

    def _run(self, arguments: Sequence[str]) -> int:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine(f"{self._name}: note: %(message)s"))
        log = logging.getLogger("glama_deploy")
        log.addHandler(handler)
        log.propagate = False
        try:
            with _signals_heeded():
                if list(arguments) == ["--version"]:
                    print(f"{self._name} {version('glama-deploy')}")
                    return 0
                return self._app(args=list(arguments), prog_name=self._name, standalone_mode=False) or 0
        except GlamaError as error:
            return self._fail(show_options(str(error)), error.exit_code)
        except typer.TyperException as error:
            return self._fail(f"{error.format_message()} (see {self._name} --help)".replace("\n", " "), 2)
        except typer.Exit as error:
            return error.exit_code
        except (KeyboardInterrupt, _Interrupted, typer.Abort):
            return self._fail("interrupted; nothing half-written is left", _INTERRUPTED)
        except _Terminated as ended:
            return self._fail(f"ended by {ended.name}; nothing half-written is left", 128 + ended.value)
        except BrokenPipeError:
            return CLOSED_PIPE
        except SystemExit as error:  # typer and its console end the process with 1 where a pipe was closed
            if isinstance(error.__context__, BrokenPipeError):
                return CLOSED_PIPE
            raise
        except OSError as error:
            return self._explain(error)
        except MemoryError:
            return self._fail("not enough memory; use a smaller image or fewer things at once", 2)
        finally:
            log.removeHandler(handler)
            log.propagate = True

    def _explain(self, error: OSError) -> int:
        """Say what the system refused."""
        reason = error.strerror or str(error)
        if error.filename:
            return self._fail(f"{error.filename}: {reason}; check the path and its permissions", 2)
        return self._fail(f"cannot read or write a file or standard output: {reason}; check where they are", 2)

    def _fail(self, message: str, code: int) -> int:
        with suppress(OSError):  # standard error takes no more, and nothing else is left to tell
            print(f"{self._name}: {escape_controls(shorten_words(message))}", file=sys.stderr)
        return code


def option(*names: str, help: str, **settings: Any) -> Any:  # (`help` is typer's name for it)
    """A command's option; brackets in its help are brackets, and no markup."""
    return typer.Option(*names, help=escape(help), **settings)


def argument(*, help: str, **settings: Any) -> Any:
    """A command's argument; brackets in its help are brackets, and no markup."""
    return typer.Argument(help=escape(help), **settings)
