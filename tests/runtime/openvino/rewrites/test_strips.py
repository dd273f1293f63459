"""Layers of full resolution in strips: the same picture, from feature maps of fewer rows."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import strips

pytest.importorskip("openvino")

#: What parity asks of any engine in fp32. On one machine the results had the same bytes; another kernel may sum in
#: another order.
TOLERANCE = 2e-5


#: Networks that have compiled sizes. A strip's rows follow from the reduction and from the fine blocks.
NETWORKS = {
    "three downsamplings": NetworkConfig(ngf=32, n_blocks=1),
    "one downsampling": NetworkConfig(ngf=64, n_blocks=1, n_downsampling=1, ratio=0.5),
    "fine blocks": NetworkConfig(ngf=32, n_blocks=1, fine_blocks=1),
}


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(request, make_checkpoint):
    return make_checkpoint(NETWORKS[request.param])


@pytest.fixture(scope="module", params=["float", "uint8"])
def bundle(request, checkpoint, make_bundle):
    """A bundle of a network that has compiled sizes."""
    return make_bundle(checkpoint, io=request.param)


@pytest.fixture
def in_strips(monkeypatch):
    """Sets the number of strips of each image."""
    return lambda count: monkeypatch.setattr(strips, "count_strips", lambda pixels: count)


def open_(bundle):
    return openvino.open(bundle, Request("fp32", compile_sizes=True))


def tensors(io, height, width, batch=1):
    rng = np.random.default_rng(0)
    if io == "uint8":
        image = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
        return image, (rng.random((batch, height, width)) < 0.3).astype(np.uint8)
    image = rng.random((batch, 3, height, width), np.float32)
    return image, (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)


def difference(found, expected):
    """The largest difference from 0 to 1; of bytes a rounding counts as none."""
    assert found.shape == expected.shape
    largest = np.abs(found.astype(float) - expected).max()
    return max(0, largest - 1) if found.dtype == np.uint8 else largest


@pytest.mark.parametrize(("height", "batch", "count"), [(96, 1, 3), (104, 2, 4), (64, 1, 5), (16, 1, 8)])
def test_strips_compute_the_whole_picture(bundle, in_strips, height, batch, count):
    inputs = tensors(bundle.manifest.io, height, 80, batch)
    expected = open_(bundle).run(*inputs)
    in_strips(count)
    assert difference(open_(bundle).run(*inputs), expected) <= TOLERANCE


@pytest.mark.parametrize(
    "window", [(0, 0, 104, 80), (16, 8, 88, 72), (40, 0, 104, 80), (0, 16, 8, 24), (48, 24, 64, 80), (96, 72, 104, 80)]
)
def test_strips_compute_a_window(bundle, in_strips, window):
    inputs = tensors(bundle.manifest.io, 104, 80)
    expected = open_(bundle).run_window(*inputs, window)
    in_strips(4)
    assert difference(open_(bundle).run_window(*inputs, window), expected) <= TOLERANCE


def test_a_picture_whose_sides_are_no_multiples_of_8_is_computed_in_strips(make_checkpoint, make_bundle, in_strips):
    bundle = make_bundle(make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)), io="uint8")
    inputs = tensors("uint8", 101, 75)
    whole, part = open_(bundle).run(*inputs), open_(bundle).run_window(*inputs, (8, 16, 104, 80))
    in_strips(4)
    assert difference(open_(bundle).run(*inputs), whole) <= TOLERANCE
    assert difference(open_(bundle).run_window(*inputs, (8, 16, 104, 80)), part) <= TOLERANCE


def test_no_feature_map_before_the_blocks_has_more_rows_than_a_strip_and_its_neighbours(bundle, in_strips):
    parts = ["stem", *(f"down{level}" for level in range(bundle.manifest.network.n_downsampling - 1))]

    def list_rows(model):
        """The rows of all feature maps with as many channels as the stem, or more, before the last downsampling.

        Maps that are put together from strips, for layers behind the blocks, do not count.
        """
        shapes = [
            node.get_output_shape(0)
            for node in model.get_ordered_ops()
            if node.get_friendly_name().split("/")[0] in parts
            and not node.get_friendly_name().endswith("/whole")
            and len(node.get_output_partial_shape(0)) == 4
        ]
        return max(shape[2] for shape in shapes if shape[1] >= 32)

    assert list_rows(open_(bundle)._fix_size(1, 256, 64)) >= 256
    in_strips(4)
    # of each neighbour: 7 rows that the strided convolutions read, and the border
    assert list_rows(open_(bundle)._fix_size(1, 256, 64)) <= 256 / 4 + 2 * 8


def test_the_strips_of_a_large_image_have_half_a_megapixel_or_less():
    assert [strips.count_strips(pixels) for pixels in (64, 2**19, 2**19 + 1, 2048**2)] == [1, 1, 2, 8]
