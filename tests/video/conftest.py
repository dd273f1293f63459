from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.inpainting.folder import AS_THEY_ARE, Masks
from glama_deploy.video.options import VideoOptions
from glama_deploy.video.run import Outcome, fill_video, open_job


def paint_gray(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An inpainter that paints the missing pixels gray: for what is about frames, times and files."""
    results = images.copy()
    results[:, mask] = np.iinfo(images.dtype).max // 2
    return results


@pytest.fixture
def hole() -> np.ndarray:
    """bool 64×96, with odd edges, so that blocks of chroma are cut."""
    mask = np.zeros((64, 96), bool)
    mask[21:40, 31:60] = True
    return mask


@pytest.fixture
def mask_file(tmp_path: Path, hole: np.ndarray) -> Path:
    path = tmp_path / "mask.png"
    Image.fromarray(hole).save(path)
    return path


@pytest.fixture
def fill() -> Callable[..., Outcome]:
    """A function that fills a clip with gray."""

    def run(
        image: Path, mask: Path | None, out: Path, *, masks: Masks = AS_THEY_ARE, overwrite: bool = False, **settings
    ) -> Outcome:
        fields = {name: settings.pop(name) for name in VideoOptions.__dataclass_fields__ if name in settings}
        job = open_job(image, mask, out, masks, VideoOptions(**fields), overwrite=overwrite)
        fill_frames = settings.pop("fill_frames", paint_gray)
        return fill_video(job, fill_frames, "gray", overwrite=overwrite, **settings)

    return run
