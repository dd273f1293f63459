"""Where the commands start: the entry points, which import a command's packages where Ctrl-C cannot harm.

The imports of a command take seconds. This module imports none of those packages.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import import_module


def start(command: str) -> None:
    """Run the command of the module `glama_deploy.cli.<command>`, and leave with its exit code.

    A Ctrl-C during the imports, or while the process ends, ends the process at once and without a traceback: nothing is
    written then. Where the parent has switched Ctrl-C off, it stays off.
    """
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        main = import_module(f"glama_deploy.cli.{command}").main
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


bench = partial(start, "bench")
build = partial(start, "build")
demo = partial(start, "demo")
evaluate = partial(start, "eval")
export = partial(start, "export")
inpaint = partial(start, "inpaint")
masks = partial(start, "masks")
train = partial(start, "train")
