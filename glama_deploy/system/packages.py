"""The installed packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def read_versions(*packages: str) -> dict[str, str]:
    """Return the version of each of these packages that is installed, by the package's name."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
