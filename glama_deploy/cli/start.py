"""The entry points of the commands. They import a command's packages while Ctrl-C can do no harm.

The imports of a command take seconds. This module does not import those packages.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from glama_deploy.cli.ending import end_at_once
from glama_deploy.cli.subcommands import SUBCOMMANDS

#: The variable by which a shell asks `glama` for completions.
_COMPLETION = "_GLAMA_COMPLETE"


@end_at_once()
def start(module: str, name: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a command, and end the process with its exit code.

    Ctrl-C during the imports, or while the process ends, ends the process at once and without a traceback. No file is
    open at these times. If the parent process has switched Ctrl-C off, it stays off.

    Args:
        module: The name of the command's module in `glama_deploy.cli`.
        name: The command's name in messages; None: its own.
        arguments: The arguments; None: those of the process.
    """
    is_enabled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if is_enabled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        main = import_module(f"glama_deploy.cli.{module}").main
        if is_enabled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        (main.rename(name) if name else main)(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if is_enabled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run `glama`. A subcommand that is the first argument starts as its own command does, without a parser before."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in SUBCOMMANDS and _COMPLETION not in os.environ:
        start(SUBCOMMANDS[name].module, f"glama {name}", sys.argv[2:])
    start("glama")


def __getattr__(name: str) -> Callable[[], None]:
    """Return the entry point of `glama-NAME`.

    Args:
        name: The name of a subcommand.

    Returns:
        The function that runs the command.
    """
    if name in SUBCOMMANDS:
        return partial(start, SUBCOMMANDS[name].module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
