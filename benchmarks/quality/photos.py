"""The photographs that the benchmarks fill holes in."""

from __future__ import annotations

from pathlib import Path

from glama_deploy.io.images import SUFFIXES

#: The photographs that come with the benchmarks.
PHOTOS = Path(__file__).parents[1] / "photos"


def list_photos(folder: Path) -> list[Path]:
    """List the images in a folder.

    Args:
        folder: the folder.

    Returns:
        The paths, sorted by name.
    """
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
