"""The networks that the package contains.

Each has a checkpoint in `assets`, and a bundle in a folder of the checkpoint's name: the graph as the exporter writes
it, without engines. A name of these networks is never a path.
"""

from __future__ import annotations

from pathlib import Path

#: The names of the embedded networks. The first one is used where no model is given.
NAMES = ("default",)

_ASSETS = Path(__file__).parent.parent / "assets"


def is_embedded(model: str | Path) -> bool:
    """Tell whether a model is an embedded network.

    Args:
        model: A name or a path.

    Returns:
        True for a name of an embedded network.
    """
    return str(model) in NAMES


def find_checkpoint(model: str | Path) -> Path | None:
    """Find the checkpoint of an embedded network.

    Args:
        model: A name or a path.

    Returns:
        The file; None where the model is no embedded network.
    """
    return _ASSETS / f"{model}.safetensors" if is_embedded(model) else None


def find_bundle(model: str | Path) -> Path | None:
    """Find the bundle of an embedded network.

    Args:
        model: A name or a path.

    Returns:
        The folder; None where the model is no embedded network.
    """
    return _ASSETS / str(model) if is_embedded(model) else None
