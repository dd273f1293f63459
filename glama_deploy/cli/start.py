"""The entry points of the commands. They import a command's packages while Ctrl-C can do no harm.

The imports of a command take seconds. This module does not import those packages.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import import_module

from glama_deploy.cli.ending import end_at_once


@end_at_once()
def start(command: str) -> None:
    """Run a command, and end the process with its exit code.

    Ctrl-C during the imports, or while the process ends, ends the process at once and without a traceback. No file is
    open at these times. If the parent process has switched Ctrl-C off, it stays off.

    Args:
        command: The name of the command's module in `glama_deploy.cli`.
    """
    is_enabled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if is_enabled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        main = import_module(f"glama_deploy.cli.{command}").main
        if is_enabled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if is_enabled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


bench = partial(start, "bench")
build = partial(start, "build")
demo = partial(start, "demo")
evaluate = partial(start, "eval")
export = partial(start, "export")
inpaint = partial(start, "inpaint")
mask = partial(start, "mask")
masks = partial(start, "masks")
models = partial(start, "models")
serve = partial(start, "serve")
train = partial(start, "train")
