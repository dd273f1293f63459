"""Where things are kept that can be made again: `$GLAMA_CACHE`, else `glama-deploy` in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def folder(name: str) -> Path | None:
    """The cache's folder of that name, made if needed; None where the cache cannot be written."""
    base = os.environ.get("GLAMA_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "glama-deploy")
    path = Path(base) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK) else None
