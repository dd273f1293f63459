"""Start helper processes of Python's multiprocessing without running files of the current folder."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from glama_deploy.errors import GlamaError

#: If this environment variable is set, Python 3.11 and later do not search the current folder for modules.
_SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def outside_current_folder() -> Iterator[None]:
    """Start helper processes in the block without the current folder in their search path.

    multiprocessing starts a process (and its resource tracker) with `python -c`. This command searches the current
    folder before the standard library, so a file `signal.py` in the folder would run.

    Yields:
        None.

    Raises:
        GlamaError: The current folder has a file with the name of a module of the standard library, and Python is 3.10,
            which cannot leave the folder out.
    """
    if sys.version_info < (3, 11):
        check_folder(Path.cwd())
    before = os.environ.get(_SAFE_PATH_VARIABLE)
    os.environ[_SAFE_PATH_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH_VARIABLE]
        else:
            os.environ[_SAFE_PATH_VARIABLE] = before


def protect_worker_start(count: int) -> AbstractContextManager[None]:
    """Protect the start of multiprocessing's workers by :func:`outside_current_folder`, if necessary.

    Args:
        count: Number of workers. Forked workers, and no workers, need no protection: forking does not import modules.

    Returns:
        A context manager for the block that starts the workers by multiprocessing's default method.
    """
    return outside_current_folder() if count and multiprocessing.get_start_method() != "fork" else nullcontext()


def check_folder(folder: Path) -> None:
    """Check that no module of the standard library is shadowed.

    Args:
        folder: The folder that helper processes search first.

    Raises:
        GlamaError: A file or package in the folder has the name of a module of the standard library.
    """
    for path in sorted(folder.iterdir()):
        is_module = path.suffix in (".py", ".pyc", ".so", ".pyd") or (path / "__init__.py").is_file()
        if is_module and path.name.partition(".")[0] in sys.stdlib_module_names:
            raise GlamaError(
                f"{path} has the name of a module of Python, and helper processes would run this file; run the command "
                "in another folder, or with Python 3.11 or later"
            )
