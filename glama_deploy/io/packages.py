"""Find data files in installed packages without importing the packages."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def find_packaged_file(package: str, name: str) -> Path | None:
    """Find a file of an installed package by its name.

    Args:
        package: The name of the package, as pip installs it.
        name: The file's name without folders.

    Returns:
        The path, or None where the package is not installed or does not have the file.
    """
    try:
        files = metadata.distribution(package).files or ()
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == name)
    return next((path for path in paths if path.is_file()), None)
