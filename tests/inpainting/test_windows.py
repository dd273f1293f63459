"""The window around a hole: behind the last block the network computes no other pixels, and the hole is the same."""

from __future__ import annotations

from dataclasses import astuple

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


class Decoder(torch.nn.Module):
    """The layers behind the last block, as LaMa has them, of few channels; with fine blocks as a U-Net has them."""

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.levels = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1),
                torch.nn.LeakyReLU(),
                *(torch.nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect") for _ in range(2 * network.fine_blocks)),
            )
            for _ in range(network.n_downsampling)
        )
        self.head = torch.nn.Sequential(torch.nn.ReflectionPad2d(3), torch.nn.Conv2d(2, 3, 7))
        self.double()

    def forward(self, maps: list[torch.Tensor], span: Span, size: tuple[int, int]) -> torch.Tensor:
        """Decode a part of maps of every level, the smallest first; the decoder adds the larger ones."""

        def cut(values: torch.Tensor) -> torch.Tensor:
            unit = size[0] // values.shape[2]
            return values[:, :, span.top // unit : span.bottom // unit, span.left // unit : span.right // unit]

        x = cut(maps[0])
        for level, encoded in zip(self.levels, maps[1:], strict=True):
            up, *fine = level
            x = torch.nn.functional.leaky_relu(up(x)) + cut(encoded)
            for layer in fine:
                x = layer(x)
        return self.head(x)


def make_maps(network: NetworkConfig, size: tuple[int, int]) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    levels = reversed(range(network.n_downsampling + 1))
    return [torch.rand(1, 2, size[0] >> n, size[1] >> n, dtype=torch.float64, generator=rng) for n in levels]


def make_network(levels: int, fine_blocks: int = 0) -> NetworkConfig:
    return NetworkConfig(ngf=8, ratio=0.5, n_downsampling=levels, fine_blocks=fine_blocks)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(4, 16), st.integers(4, 16), st.data())
def test_a_window_gives_the_hole_as_the_whole_picture_does(levels, fine_blocks, rows, columns, data):
    network = make_network(levels, fine_blocks)
    decoder, size = Decoder(network), (rows * network.reduction, columns * network.reduction)
    top, left = (data.draw(st.integers(0, side - 1)) for side in size)
    bottom, right = data.draw(st.integers(top + 1, size[0])), data.draw(st.integers(left + 1, size[1]))
    hole = Span(top, left, bottom, right)
    window = find_window(hole, size, network)
    assert all(side <= most for side, most in zip(window.size, bound_window(hole.size, size, network), strict=True))
    assert Span(0, 0, *size).contains(window)
    assert window.contains(hole)
    assert all(side % network.reduction == 0 for side in (window.top, window.left, *window.size))
    maps = make_maps(network, size)
    with torch.inference_mode():
        whole = decoder(maps, Span(0, 0, *size), size)
        part = decoder(maps, window, size)
    inside = hole.within(window)
    # float64: sums in another order differ by 1e-15
    torch.testing.assert_close(part[0][inside.batch_slices], whole[0][hole.batch_slices], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("fine_blocks", "hole", "window"),
    [(0, Span(35, 35, 63, 63), Span(32, 32, 80, 80)), (2, Span(63, 63, 95, 95), Span(32, 32, 136, 136))],
)
def test_a_smaller_window_would_change_the_hole(fine_blocks, hole, window):
    """The window is no larger than needed: with one value less on any side, a pixel of the hole is another."""
    network, size = make_network(3, fine_blocks), (160, 160)
    decoder, maps = Decoder(network), make_maps(network, size)
    assert find_window(hole, size, network) == window
    sides = astuple(window)
    smaller = [Span(*sides[:n], sides[n] + step, *sides[n + 1 :]) for n, step in enumerate((8, 8, -8, -8))]
    with torch.inference_mode():
        whole = decoder(maps, Span(0, 0, *size), size)[0]
        for part in smaller:
            picture = torch.zeros_like(whole)
            picture[part.batch_slices] = decoder(maps, part, size)[0]
            # float64: far above 1e-15, the roundings; a tenth of the weights for each of 13 layers of the reach
            assert (picture - whole)[hole.batch_slices].abs().max() > 1e-12


#: Networks that OpenVINO computes in another way once it compiles a size.
WIDE = {"lama": NetworkConfig(ngf=32, n_blocks=1), "fine blocks": NetworkConfig(ngf=32, n_blocks=1, fine_blocks=1)}


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "openvino, each size compiled"])
def engine(request):
    return request.param


@pytest.fixture(scope="module", params=WIDE)
def checkpoint(request, make_checkpoint):
    return make_checkpoint(WIDE[request.param])


@pytest.fixture(scope="module", params=["float", "uint8"])
def windowed(request, engine, checkpoint, make_bundle):
    backend, _, compiled = engine.partition(", ")
    bundle = make_bundle(checkpoint, io=request.param)
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
