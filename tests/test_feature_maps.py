"""The feature maps of a network, and the memory that they take at once."""

from __future__ import annotations

import pytest

from glama_deploy import feature_maps
from glama_deploy.network import NAMED, NetworkConfig

LAMA = NAMED["lama"]
SIZES = [(64, 64), (256, 256), (256, 512), (512, 512), (1024, 1024), (2048, 2048)]


def peak(network, size, value_bytes=4, window=None) -> float:
    return feature_maps.find_peak(network, size, value_bytes, window)


def test_lama_peaks_where_its_head_pads_the_last_feature_map():
    """OpenVINO's own plan of LaMa at 256×256 has 540 bytes a pixel alive there: two maps of 64 channels, and inputs."""
    assert peak(LAMA, (1024, 1024)) / 1024**2 == pytest.approx(2 * 64 * 4 + 16, rel=0.05)  # the padding adds 3 %


def test_half_types_take_half_but_for_pictures():
    size = (512, 512)
    pictures = 16 * size[0] * size[1]  # image and mask, float32
    assert peak(LAMA, size, 2) == pytest.approx((peak(LAMA, size) - pictures) / 2 + pictures)


@pytest.mark.parametrize(
    "network",
    [
        *NAMED.values(),
        NetworkConfig(ngf=8, n_downsampling=1, fill="pull-push"),
        NetworkConfig(ngf=8, fine_blocks=2, fill="pull-push"),
    ],
)
def test_larger_images_take_more_and_sets_no_less_than_the_peak(network):
    for value_bytes in (2, 4):
        peaks = [peak(network, size, value_bytes) for size in SIZES]
        sums = [feature_maps.find_set_sum(network, size, value_bytes) for size in SIZES]
        assert peaks == sorted(peaks)
        assert sums == sorted(sums)
        assert all(whole >= most for whole, most in zip(sums, peaks, strict=True))


def test_a_small_window_leaves_the_encoders_peak():
    size = (1024, 1024)
    whole, small, tiny = (peak(LAMA, size, 4, window) for window in (None, (256, 256), (8, 8)))
    assert tiny == small < whole
    decoder = peak(LAMA, (512, 512)) - peak(LAMA, (504, 504))
    assert decoder > 0
    assert peak(LAMA, size, 4, size) >= whole  # a window as large as the image also has the margin


def test_each_map_is_read_after_it_is_written():
    for one in feature_maps.list_feature_maps(NAMED["big-lama"], (512, 512)):
        assert one.first <= one.last
        assert one.values > 0
