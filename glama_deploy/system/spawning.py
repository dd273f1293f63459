"""Helper processes of Python's multiprocessing that run no file of the current folder."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from glama_deploy.errors import GlamaError

#: Python 3.11 and later leave the current folder out of the search path where this variable is set.
_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def outside_current_folder() -> Iterator[None]:
    """Start helper processes in the block without the current folder in their search path.

    multiprocessing starts a process (and its resource tracker) by `python -c`, which looks for the standard library's
    modules in the current folder first: a file `signal.py` there would run.

    Raises:
        GlamaError: Python is 3.10, which cannot leave the folder out, and the folder has a file of such a name.
    """
    if sys.version_info < (3, 11):
        check_folder(Path.cwd())
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def for_workers(count: int) -> AbstractContextManager[None]:
    """Return a block to start `count` workers of multiprocessing in, by its default way.

    Workers that are forked, and no workers, start no Python that looks for modules: then the block does nothing.
    Else see :func:`outside_current_folder`.
    """
    return outside_current_folder() if count and multiprocessing.get_start_method() != "fork" else nullcontext()


def check_folder(folder: Path) -> None:
    """Raise GlamaError where a file or package in `folder` has the name of a module of the standard library."""
    for path in sorted(folder.iterdir()):
        is_module = path.suffix in (".py", ".pyc", ".so", ".pyd") or (path / "__init__.py").is_file()
        if is_module and path.name.partition(".")[0] in sys.stdlib_module_names:
            raise GlamaError(
                f"{path} has the name of a module of Python, which helper processes would run instead; run the command "
                "in another folder, or with Python 3.11 or later"
            )
