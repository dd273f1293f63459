"""The cache folder: `$GLAMA_CACHE`, or `glama-deploy` in the user's cache folder."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from glama_deploy.errors import GlamaError
from glama_deploy.io.files import remove_leftovers_once

log = logging.getLogger("glama_deploy")


def folder(name: str) -> Path | None:
    """Return a folder in the cache, and remove leftovers of killed processes from the folder.

    Args:
        name: Name of the folder, which is created if needed.

    Returns:
        The folder, or None where the cache cannot be written. In this case one warning is logged, and the caller works
        without a cache.
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


def find_folder(name: str) -> Path:
    """Find a folder in the cache without creating or checking the folder.

    Args:
        name: Name of the folder.

    Returns:
        The folder, which need not exist.

    Raises:
        GlamaError: The user has no home folder.
    """
    try:
        return _base() / name
    except RuntimeError as error:
        raise GlamaError(f"there is no place for the cache: {error}; set GLAMA_CACHE to a folder") from error


@cache
def temporary_folder() -> Path:
    """Create a temporary folder.

    Returns:
        The folder, the same for each call. The folder is removed when the process ends.
    """
    path = Path(tempfile.mkdtemp(prefix="glama-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _base() -> Path:
    """Return the cache's folder as an absolute path.

    Raises:
        RuntimeError: The user has no home folder.
    """
    asked = os.environ.get("GLAMA_CACHE")
    if asked:
        return Path(asked).expanduser().absolute()
    base = platformdirs.user_cache_path("glama-deploy", appauthor=False)
    if not base.is_absolute():  # platformdirs did not expand "~", which would become a folder of this name
        raise RuntimeError("the user has no home folder")
    return base


@cache
def _note(reason: str) -> None:
    """Log why nothing is cached. Each reason is logged once in a process."""
    log.warning("the cache cannot be used (%s); set GLAMA_CACHE to a folder that can be written", reason)
