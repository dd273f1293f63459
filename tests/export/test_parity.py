"""Every backend that runs here against the reference: networks × sizes × batches × masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import glama_deploy
from glama_deploy.checkpoints import formats
from glama_deploy.masks import by_name
from glama_deploy.reference.generator import inpaint, predict
from glama_deploy.runtime import choice
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request

#: fp32 through 9 residual blocks in another order of summation: the issue's bound, ten times what is seen.
TOLERANCE = 2e-5

SIZES = [(64, 64), (256, 256), (200, 312), (101, 77), (512, 512)]


def inputs(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Four padded images [4, 3, H, W] and masks [4, 1, H, W]: strokes, one missing pixel, none and all of them."""
    rng = np.random.default_rng(sum(size))
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(y * rng.uniform(0.5, 3) + x * rng.uniform(0.5, 3)) for _ in range(12)]
    image = np.stack(waves).reshape(4, 3, height, width) * 0.35 + 0.5 + rng.normal(0, 0.05, (4, 3, height, width))
    mask = np.zeros((4, 1, height, width), np.float32)
    mask[0, 0] = by_name("MediumStrokes")(height, width, rng)
    mask[1, 0, height // 2, width // 3] = 1
    mask[3] = 1
    pad = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
    image = np.pad(image.clip(0, 1).astype(np.float32), pad, mode="symmetric")
    return image, np.pad(mask, pad, mode="symmetric")


@pytest.fixture(scope="module", params=["lama-small", "lama-9"])
def network(request, make_bundle):
    """The reference generator, and a runner for each backend."""
    source = request.getfixturevalue("lama_small" if request.param == "lama-small" else "lama9")
    bundle = make_bundle(source)
    runners = {backend: choice.open_bundle(bundle, backend) for backend in ("openvino", "onnxruntime")}
    runners["torch"] = torch_runtime.open(formats.read(source), Request())
    return formats.load(source), runners


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_backend_agrees_with_the_reference_for_one_image_and_for_four(network, size):
    generator, runners = network
    image, mask = inputs(size)
    with torch.inference_mode():
        expected = predict(generator, torch.from_numpy(image), torch.from_numpy(mask)).numpy()
        composed = mask * expected + (1 - mask) * image
    for name, runner in runners.items():
        if name != "torch":  # whose batch of four is the reference's own
            found = runner.run(image, mask, "predicted")
            assert np.abs(found - expected).max() < TOLERANCE, name
        found = runner.run(image[:1], mask[:1])
        assert np.abs(found - composed[:1]).max() < TOLERANCE, name
        known = np.broadcast_to(mask[:1] == 0, found.shape)
        np.testing.assert_array_equal(found[known], image[:1][known])


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_every_backend_agrees_with_the_independent_implementation(lama_small, goldens, make_bundle, backend):
    model = lama_small if backend == "torch" else make_bundle(lama_small).path
    inpainter = glama_deploy.load(model, backend)
    for case in goldens:
        predicted = inpainter.predict(case["image"], case["mask"])
        assert np.abs(predicted - case["predicted"]).max() < TOLERANCE
        missing = case["mask"] > 0
        out = inpainter(case["image"], case["mask"], region="full")
        np.testing.assert_array_equal(out[~missing], case["image"][~missing])
        # uint8 rounds: half a step, and the tolerance
        assert np.abs(out[missing] / 255 - case["inpainted"][missing]).max() < 0.5 / 255 + TOLERANCE


def test_the_reference_of_this_suite_composes_as_the_network_does(tiny):
    generator = formats.load(tiny)
    image, mask = (torch.from_numpy(x) for x in inputs((64, 64)))
    with torch.inference_mode():
        expected = mask * predict(generator, image, mask) + (1 - mask) * image
        assert torch.equal(inpaint(generator, image, mask), expected)
