"""The window around a hole: behind the last block the network computes no other pixels, and the hole is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy.export.pipeline import Request, export
from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.windows import bound_window, find_window
from glama_deploy.network import NetworkConfig
from glama_deploy.system import cpu


def make_decoder(levels: int) -> torch.nn.Module:
    """The layers behind the last block, as LaMa has them, of few channels."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(levels):
        layers += [torch.nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1), torch.nn.LeakyReLU()]
    return torch.nn.Sequential(*layers, torch.nn.ReflectionPad2d(3), torch.nn.Conv2d(2, 3, 7)).double()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9), st.data())
def test_a_window_gives_the_hole_as_the_whole_picture_does(levels, rows, columns, data):
    reduction, decoder = 2**levels, make_decoder(levels)
    size = rows * reduction, columns * reduction
    top, left = (data.draw(st.integers(0, side - 1)) for side in size)
    bottom, right = data.draw(st.integers(top + 1, size[0])), data.draw(st.integers(left + 1, size[1]))
    hole = Span(top, left, bottom, right)
    window = find_window(hole, size, reduction)
    assert all(side <= most for side, most in zip(window.size, bound_window(hole.size, size, reduction), strict=True))
    assert Span(0, 0, *size).contains(window)
    assert window.contains(hole)
    assert all(side % reduction == 0 for side in (window.top, window.left, *window.size))
    values = torch.rand(1, 2, rows, columns, dtype=torch.float64)
    first, behind = (
        (window.top // reduction, window.left // reduction),
        (window.bottom // reduction, window.right // reduction),
    )
    with torch.inference_mode():
        whole = decoder(values)
        part = decoder(values[:, :, first[0] : behind[0], first[1] : behind[1]])
    inside = hole.within(window)
    # float64: sums in another order differ by 1e-15
    torch.testing.assert_close(part[0][inside.batch_slices], whole[0][hole.batch_slices], rtol=0, atol=1e-12)


def test_a_smaller_window_would_change_the_hole():
    """The window is no larger than needed: with one value less on any side, a pixel of the hole is another."""
    decoder, hole, window = make_decoder(3), Span(35, 35, 63, 63), Span(32, 32, 80, 80)
    assert find_window(hole, (96, 96), 8) == window
    values = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    with torch.inference_mode():
        whole = decoder(values)[0]
        for top, left, bottom, right in ((5, 4, 10, 10), (4, 5, 10, 10), (4, 4, 9, 10), (4, 4, 10, 9)):
            picture = torch.zeros_like(whole)
            picture[:, 8 * top : 8 * bottom, 8 * left : 8 * right] = decoder(values[:, :, top:bottom, left:right])[0]
            assert (picture - whole)[hole.batch_slices].abs().max() > 1e-6


#: A network that OpenVINO computes in another way once it compiles a size.
WIDE = NetworkConfig(ngf=32, n_blocks=1)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "openvino, each size compiled"])
def engine(request):
    return request.param


@pytest.fixture(scope="module", params=["float", "uint8"])
def windowed(request, engine, tiny, make_checkpoint, make_bundle):
    backend, _, compiled = engine.partition(", ")
    bundle = make_bundle(make_checkpoint(WIDE) if compiled else tiny, io=request.param)
    inpainter = glama_deploy.load(bundle.path, backend, compile_sizes=bool(compiled) or None)
    if compiled and cpu.is_x86():  # the faster form was not measured on other CPUs
        inpainter(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
        assert inpainter._runner.holder[0] != ()
    return inpainter


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 120), st.integers(16, 120), st.integers(0, 2**16))
@example(height=120, width=120, seed=1)
def test_engines_fill_a_hole_in_a_window_as_in_the_whole_picture(engine, windowed, height, width, seed):
    if engine.endswith("compiled"):  # of few sizes, which are compiled once
        height, width = (60 * -(-side // 60) - 3 for side in (height, width))
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(0, 256, (height, width, 3), np.uint8), np.zeros((height, width), bool)
    top, left = rng.integers(height), rng.integers(width)
    mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
    assert windowed._runner.takes_windows
    found = windowed(image, mask, region="full")
    windowed._runner.takes_windows = False
    try:
        whole = windowed(image, mask, region="full")
    finally:
        windowed._runner.takes_windows = True
    np.testing.assert_array_equal(found[~mask], image[~mask])
    # a kernel may sum in another order at another size; a value next to a rounding then becomes the other one
    assert np.abs(found.astype(int) - whole).max() <= 1
    assert (found != whole).sum() <= max(1, 0.001 * mask.sum())


def test_a_batch_of_holes_in_different_places_is_filled(windowed):
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 256, (3, 64, 72, 3), np.uint8), np.zeros((3, 64, 72), bool)
    for number, mask in enumerate(masks[:2]):  # nothing is missing in the third
        mask[10 + 20 * number : 20 + 20 * number, 30:40] = True
    found = windowed.batch(images, masks)
    np.testing.assert_array_equal(found[~masks], images[~masks])
    for image, mask, filled in zip(images[:2], masks[:2], found[:2], strict=True):
        # a kernel may sum in another order for another batch
        assert np.abs(filled.astype(int) - windowed(image, mask, region="full")).max() <= 1


def test_a_graph_of_one_size_has_no_window(tiny, tmp_path):
    bundle = export(Request(tiny, tmp_path / "bundle", ("openvino",), size=(64, 64), parity=False)).bundle
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    for backend in ("onnxruntime", "openvino"):
        inpainter = glama_deploy.load(bundle.path, backend)
        assert not inpainter._runner.takes_windows
        assert inpainter(image, mask).shape == image.shape
