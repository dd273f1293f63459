"""Photographs, and files of weights of the published shapes filled with fixed random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from glama_deploy.evaluation.evaluate import Request
from glama_deploy.export.samples import SAMPLE


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three pieces of the sample photo, 64×72 and 56×80, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    with Image.open(SAMPLE) as photo:
        for name, box in (("a", (0, 100, 72, 164)), ("b", (300, 200, 372, 264)), ("more/c", (500, 90, 580, 146))):
            photo.crop(box).save(folder / f"{name}.png")
    return folder


def filled(shapes: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Random values that keep activations of ordinary size; of layers that no metric reads, one zero as the whole."""
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, like in shapes.items():
        if name.startswith(("classifier", "fc")):
            state[name] = torch.zeros(1).expand(like.shape)
        elif like.ndim > 1:
            state[name] = torch.randn(like.shape, generator=random) * math.sqrt(2 / like[0].numel())
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = torch.ones(like.shape)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        else:
            state[name] = torch.rand(like.shape, generator=random) * 0.2
    return state


def inception_shapes() -> dict[str, Tensor]:
    class Bare(fidelity.FeatureExtractorInceptionV3):
        """Built without its file."""

        def load_state_dict(self, *arguments: object, **options: object) -> None: ...  # type: ignore[override]

    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *arguments, **options: {})
        return nn.Module.state_dict(Bare("bare", ["2048"]))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that LPIPS and FID need."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        shapes = {
            "alexnet-owt-7be5be79.pth": torchvision.models.alexnet().state_dict(),
            "vgg16-397923af.pth": torchvision.models.vgg16().state_dict(),
        }
    shapes["weights-inception-2015-12-05-6726825d.pth"] = inception_shapes()
    for seed, (name, state) in enumerate(shapes.items()):
        torch.save(filled(state, seed), folder / name)
    return folder


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, the same with another piece in its hole, and the hole: uint8 64×72×3 twice, bool 64×72."""
    with Image.open(SAMPLE) as photo:
        truth = np.asarray(photo.crop((0, 100, 72, 164)).convert("RGB"))
        other = np.asarray(photo.crop((300, 200, 372, 264)).convert("RGB"))
    missing = np.zeros(truth.shape[:2], bool)
    missing[20:44, 10:50] = True
    return truth, np.where(missing[..., None], other, truth), missing


#: Masks of the evaluations whose tests name no masks of their own.
MASKS = ("EveryNLines", "ThickStrokes")


@pytest.fixture(scope="session")
def ask() -> Callable[..., Request]:
    """A function that requests PSNR in one process: the fastest evaluation. Tests of other metrics name their own."""

    def make(photos: Path, out: Path, *models: str, **changes: object) -> Request:
        settings = {"masks": MASKS, "metrics": ("psnr",), "processes": 1}
        return Request([f"photos={photos}"], models, out, **{**settings, **changes})  # type: ignore[arg-type]

    return make
