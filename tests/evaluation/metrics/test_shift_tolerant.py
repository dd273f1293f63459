"""ST-LPIPS against its formula in NumPy, on a file of the package's shapes with fixed random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from scipy.signal import correlate

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.metrics.scores import Judge

LAYERS = {  # name, shape, padding
    "net.slice1.0": ((64, 3, 11, 11), 2),
    "net.slice2.5": ((192, 64, 5, 5), 2),
    "net.slice3.9": ((384, 192, 3, 3), 1),
    "net.slice4.11": ((256, 384, 3, 3), 1),
    "net.slice5.13": ((256, 256, 3, 3), 1),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    random = torch.Generator().manual_seed(0)
    state = {}
    for number, (name, (shape, _)) in enumerate(LAYERS.items()):
        state[f"{name}.weight"] = torch.randn(shape, generator=random) * (2 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.bias"] = torch.rand(shape[:1], generator=random) * 0.2
        state[f"lin{number}.model.1.weight"] = torch.rand((1, shape[0], 1, 1), generator=random)
    path = tmp_path_factory.mktemp("weights") / "alex_shift_tolerant.pth"
    torch.save(state, path)
    return path


def halved(x: np.ndarray) -> np.ndarray:
    """[C, H, W] blurred with 1-2-1 in both directions, mirrored by 2, every second position."""
    x = np.pad(x, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    return ((x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4)[:, ::2, ::2]


def unit_maps(image: np.ndarray, state: dict[str, np.ndarray]) -> list[np.ndarray]:
    x = ((image / 127.5 - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]).transpose(2, 0, 1)
    maps = []
    for number, (name, (_, pad)) in enumerate(LAYERS.items()):
        if number in (1, 2):
            x = halved(maximum_filter(x, (1, 3, 3))[:, 1:-1, 1:-1])
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        x = np.stack([correlate(x, kernel, mode="valid")[0] for kernel in state[f"{name}.weight"]])
        x += state[f"{name}.bias"][:, None, None]
        x = np.maximum(halved(x) if number == 0 else x, 0)
        maps.append(x)
    return [x / np.linalg.norm(x, axis=0) for x in maps]


def test_it_is_the_weighed_distance_of_unit_vectors(file):
    state = {name: value.double().numpy() for name, value in torch.load(file).items()}
    found, truth = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
    expected = 0.0
    for number, (one, other) in enumerate(zip(unit_maps(found, state), unit_maps(truth, state), strict=True)):
        weight = state[f"lin{number}.model.1.weight"][0, :, 0, 0]
        expected += np.tensordot(weight, (one - other) ** 2, axes=1).mean()
    judge = Judge(("st-lpips",), {"st-lpips": file})
    missing = np.zeros((24, 32), bool)
    missing[:, :16] = True
    values = judge.score(found, truth, missing).values
    assert values["st-lpips/whole"] == pytest.approx(expected, rel=1e-4)  # float32 through five layers
    halves = values["st-lpips/missing"], judge.score(found, truth, ~missing).values["st-lpips/missing"]
    # the mean over pixels of maps that are enlarged to the image weighs their edges a little otherwise
    assert np.mean(halves) == pytest.approx(expected, rel=0.05)
    assert halves[0] != halves[1]


def test_a_file_of_another_network_is_refused(file, tmp_path):
    path = tmp_path / file.name
    state = torch.load(file)
    torch.save({**state, "net.slice1.0.bias": torch.zeros(63)}, path)
    with pytest.raises(GlamaError, match="holds the weights of another network; install stlpips-pytorch again"):
        Judge(("st-lpips",), {"st-lpips": path})


def test_an_evaluation_reads_its_file_from_the_folder_of_weights(file, photos, tmp_path, ask):
    changes = {"metrics": ("psnr", "st-lpips"), "masks": ("EveryNLines",), "limit": 1}
    summary = evaluate(ask(photos, tmp_path / "a", "telea", weights=file.parent, **changes))
    assert summary.cell("photos", "telea", "EveryNLines", "st-lpips", "whole").value.mean > 0
