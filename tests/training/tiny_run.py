"""Settings of a run that takes seconds."""

from __future__ import annotations

from pathlib import Path


def list_overrides(photos: Path, **changes: object) -> list[str]:
    """Return overrides of `glama-tiny` for images of 32 pixels, with `changes` as `section__key=value`."""
    settings = {
        "network__ngf": 8,
        "network__n_blocks": 1,
        "discriminator__channels": 8,
        "discriminator__layers": 2,
        "weights__perceptual": 0,
        "data__train": f"[{photos}]",
        "data__side": 32,
        "data__workers": 0,
        "optimization__batch": 2,
        **changes,
    }
    return [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
