"""Photographs that tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five smooth pictures, 60 × 80."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:60, 0:80]
    for n in range(5):
        waves = [128 + 100 * np.sin((y * (c + 1) + x * (n + 1)) / 15) for c in range(3)]
        Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).save(folder / f"{n}.png")
    return folder
