"""The folder for files that can be made again: `$GLAMA_CACHE`, else `glama-deploy` in the user's cache folder."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from glama_deploy.io.files import remove_leftovers_once

log = logging.getLogger("glama_deploy")


def folder(name: str) -> Path | None:
    """Return the cache's folder of that name, made if needed, without what killed processes left in it.

    Where the cache cannot be written, log one note and return None: the work goes on without a cache.
    """
    try:
        path = _base() / name
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers_once(path)
    except (OSError, RuntimeError) as error:
        _note(f"{getattr(error, 'strerror', None) or error}")
        return None
    if not os.access(path, os.W_OK):
        _note(f"{path} is not writable")
        return None
    return path


@cache
def temporary_folder() -> Path:
    """Return a folder for files that must lie somewhere, which is removed when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="glama-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _base() -> Path:
    """Return the cache's folder as an absolute path. Raises RuntimeError where a user without a home has none."""
    asked = os.environ.get("GLAMA_CACHE")
    if asked:
        return Path(asked).expanduser().absolute()
    base = platformdirs.user_cache_path("glama-deploy", appauthor=False)
    if not base.is_absolute():  # "~" was not expanded, and would become a folder of that name
        raise RuntimeError("this user has no home folder")
    return base


@cache
def _note(reason: str) -> None:
    """Log why nothing is cached; each reason is logged once in a process."""
    log.warning("the cache cannot be used (%s), so nothing is kept; set GLAMA_CACHE to a folder that can be", reason)
