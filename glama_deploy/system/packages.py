"""The installed packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def read_versions(*packages: str) -> dict[str, str]:
    """Read the versions of installed packages.

    Args:
        *packages: names of distributions, as pip knows them.

    Returns:
        The version by name. A package that is not installed is left out.
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
