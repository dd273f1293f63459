"""Make a command from a function. An error that the user can mend is one line and an exit code, never a traceback."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import wraps
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from glama_deploy.cli.options.groups import expand_groups
from glama_deploy.cli.output.option_names import show_options
from glama_deploy.cli.output.streams import CLOSED_PIPE, flush_output, forgiving_streams, is_closed_pipe
from glama_deploy.cli.output.verbosity import reset_verbosity, set_verbosity
from glama_deploy.errors import GlamaError
from glama_deploy.text.escapes import escape_controls, shorten_words

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

#: The exit code of a command that Ctrl-C ended.
_INTERRUPTED_EXIT_CODE = 130

#: Settings of every parser.
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}

#: Signals that ask a process to end. Windows does not have SIGHUP; Ctrl-Break and a closed console are SIGBREAK there.
_END_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class _Terminated(BaseException):
    """A signal that asks the process to end. The command cleans up as it does after Ctrl-C.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.value, self.name = number, signal.Signals(number).name


class _Interrupted(BaseException):
    """A Ctrl-C. typer would turn a KeyboardInterrupt into an exit code without a message."""


class ResumableInterrupt(GlamaError):
    """A Ctrl-C, after which the same command goes on where this one ended."""

    exit_code = _INTERRUPTED_EXIT_CODE


class _OneLineFormatter(logging.Formatter):
    """A formatter that keeps a message on one line, also with odd file names, and shows options."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record.

        Args:
            record: The record.

        Returns:
            The line.
        """
        return escape_controls(shorten_words(show_options(super().format(record))))


def _convert_interrupts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with _Interrupted in place of KeyboardInterrupt."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt as error:
            raise _Interrupted from error

    return run


def _add_verbosity(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return the function with the options of all commands: how much is printed."""

    @wraps(function)
    def run(*, quiet: bool, verbose: bool, **options: Any) -> int | None:
        set_verbosity(quiet=quiet, verbose=verbose)
        return function(**options)

    signature = inspect.signature(function, eval_str=True)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *parameters]
    )
    return run


@contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Raise _Interrupted or _Terminated when a signal asks the process to end.

    A signal can cut off an import or a native call, and the library then raises an error of its own. That error is
    replaced, too. An error that a command raises after Ctrl-C is kept.
    """
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        received.append(number)
        raise _Terminated(number)

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, end) for number in _END_SIGNALS}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        is_own_answer = isinstance(error, GlamaError) and error.exit_code == _INTERRUPTED_EXIT_CODE
        if received and not is_own_answer:
            raise (_Interrupted() if received[0] == signal.SIGINT else _Terminated(received[0])) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: An exit code above this one is this number plus the signal that ended the process.
SIGNAL_EXIT_CODE_BASE = 128


def _has_other_threads() -> bool:
    """Return whether threads still run that the end of the process would wait for."""
    return any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate())


def join_lines(text: str) -> str:
    """Join the lines of each paragraph. The terminal wraps them at its own width.

    Args:
        text: The text of a docstring, without indentation.

    Returns:
        The text with a line for each paragraph.
    """
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


class Program:
    """A command that typer parses. Its errors are lines, and its end is an exit code.

    Args:
        name: The name of the program, for usage and messages.
        app: The application, which returns an exit code or None.
    """

    def __init__(self, name: str, app: typer.Typer) -> None:
        self._name = name
        self._app = app

    def rename(self, name: str) -> Self:
        """Return this command under another name.

        Args:
            name: The name, such as `glama inpaint`.

        Returns:
            The command, whose usage and messages have the name.
        """
        renamed = copy(self)
        renamed._name = name
        return renamed

    def make_parser(self) -> TyperCommand | TyperGroup:
        """Return the parser of the command's arguments, which also completes them.

        Returns:
            The command as typer's parser.
        """
        return typer.main.get_command(self._app)  # type: ignore[return-value]

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run the command, and end the process with the exit code.

        Args:
            arguments: The arguments; None: those of the process.
        """
        code = self.run(sys.argv[1:] if arguments is None else arguments)
        if code > SIGNAL_EXIT_CODE_BASE and _has_other_threads():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # sys.exit would wait for the threads, for minutes if they are in an engine
        sys.exit(code)

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command, and write out all that it printed.

        Args:
            arguments: The arguments.

        Returns:
            The exit code.
        """
        with forgiving_streams():
            code = self._run(arguments)
            error = flush_output()
            if error is None or code:
                return code
            if is_closed_pipe(error):
                return CLOSED_PIPE
            return self._fail(f"cannot write to standard output: {error.strerror}; what was printed is cut off", 2)

    def _run(self, arguments: Sequence[str]) -> int:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLineFormatter(f"{self._name}: note: %(message)s"))
        log = logging.getLogger("glama_deploy")
        log.addHandler(handler)
        log.propagate = False
        try:
            with _raise_on_signals():
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
            return self._fail("interrupted; nothing half-written is left", _INTERRUPTED_EXIT_CODE)
        except _Terminated as ended:
            return self._fail(
                f"ended by {ended.name}; nothing half-written is left", SIGNAL_EXIT_CODE_BASE + ended.value
            )
        except SystemExit as error:  # typer and its console exit with 1 when a pipe was closed
            if is_closed_pipe(error.__context__):
                return CLOSED_PIPE
            raise
        except OSError as error:
            return CLOSED_PIPE if is_closed_pipe(error) else self._explain(error)
        except MemoryError:
            return self._fail("not enough memory; use a smaller image or fewer things at once", 2)
        finally:
            reset_verbosity()
            log.removeHandler(handler)
            log.propagate = True

    def _explain(self, error: OSError) -> int:
        """Print what the operating system refused, and return the exit code."""
        reason = error.strerror or str(error)
        if error.filename:
            return self._fail(f"{error.filename}: {reason}; check the path and its permissions", 2)
        return self._fail(f"cannot read or write a file or standard output: {reason}; check where they are", 2)

    def _fail(self, message: str, code: int) -> int:
        with suppress(OSError):  # a closed standard error: the message cannot be shown anywhere
            print(f"{self._name}: {escape_controls(shorten_words(message))}", file=sys.stderr)
        return code


class Command(Program):
    """A command around a function. The function returns the exit code (None is 0).

    Args:
        name: The name of the command.
        function: The function. Its annotated parameters are the options, its docstring is the help.
    """

    def __init__(self, name: str, function: Callable[..., int | None]) -> None:
        app = _make_app()
        _add_function(app, name, function)
        super().__init__(name, app)


class CommandGroup(Program):
    """A command with subcommands.

    Args:
        name: The name of the command.
        help: The help text of the command, as plain text.
        functions: The function of each subcommand, as :class:`Command` takes it.
    """

    def __init__(self, name: str, help: str, functions: Mapping[str, Callable[..., int | None]]) -> None:
        app = _make_app(help=escape(join_lines(help)), context_settings=CONTEXT_SETTINGS)
        app.callback()(lambda: None)  # a single function stays a subcommand
        for each, function in functions.items():
            _add_function(app, each, function)
        super().__init__(name, app)


def _make_app(**settings: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", **settings)


def _add_function(app: typer.Typer, name: str, function: Callable[..., int | None]) -> None:
    """Add a function as a command. Its docstring is the help."""
    app.command(name, help=escape(join_lines(inspect.getdoc(function) or "")), context_settings=CONTEXT_SETTINGS)(
        _convert_interrupts(_add_verbosity(expand_groups(function)))
    )


def option(
    *names: str,
    help: str,  # typer's name
    list_values: Callable[[], Iterable[str]] | None = None,
    **settings: Any,
) -> Any:
    """Describe an option of a command.

    Args:
        *names: The spellings, such as `--out`.
        help: The help text, as plain text: brackets are not markup.
        list_values: Returns the values that a shell completes. Where no value fits, the shell completes file names.
        **settings: Further arguments of `typer.Option`.

    Returns:
        What typer expects in the annotation of a parameter.
    """
    if list_values is not None:

        def complete(incomplete: str) -> list[str]:
            return [value for value in list_values() if value.startswith(incomplete)]

        settings["autocompletion"] = complete
    return typer.Option(*names, help=escape(help), **settings)


def argument(*, help: str, **settings: Any) -> Any:
    """Describe a positional argument of a command.

    Args:
        help: The help text, as plain text: brackets are not markup.
        **settings: Further arguments of `typer.Argument`.

    Returns:
        What typer expects in the annotation of a parameter.
    """
    return typer.Argument(help=escape(help), **settings)


#: The options of all commands.
Quiet = Annotated[bool, option("--quiet", "-q", help="Print results and errors only: no notes, no progress.")]
Verbose = Annotated[bool, option("--verbose", "-v", help="Print more notes of what happens.")]
