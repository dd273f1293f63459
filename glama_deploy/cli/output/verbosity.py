"""How much a command prints beside its results: `--quiet` and `--verbose`."""

from __future__ import annotations

import logging

from glama_deploy.errors import GlamaError

_log = logging.getLogger("glama_deploy")

#: Whether notes and progress are left out. One process runs one command at a time.
_quiet = False


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Choose how much is printed until :func:`reset_verbosity`.

    Args:
        quiet: whether notes and progress are left out.
        verbose: whether the library's notes of what happens are printed, too.

    Raises:
        GlamaError: both are asked for.
    """
    global _quiet
    if quiet and verbose:
        raise GlamaError("--quiet and --verbose are both given; give one of them")
    _quiet = quiet
    _log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.NOTSET)


def reset_verbosity() -> None:
    """Print the usual again."""
    global _quiet
    _quiet = False
    _log.setLevel(logging.NOTSET)


def is_quiet() -> bool:
    """Return whether notes and progress are left out.

    Returns:
        True after `--quiet`.
    """
    return _quiet
