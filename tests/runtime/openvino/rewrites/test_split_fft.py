"""Transforms in split form where a size is compiled."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.fourier import split
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import split_fft


def of_size(bundle, height, width):
    model = openvino.core().read_model(str(bundle.files("openvino")[0]))
    model.reshape({"image": [1, 3, height, width], "mask": [1, 1, height, width]})
    return model


def found(model, height, width):
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, height, width), np.float32)
    mask = (rng.random((1, 1, height, width)) < 0.3).astype(np.float32)
    compiled = openvino.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"image": image, "mask": mask})["inpainted"]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 80), (104, 120)])
def test_the_network_computes_the_same_with_split_transforms(tiny_bundle, monkeypatch, height, width):
    """Of sizes that are quickly computed here, where it would not pay."""
    monkeypatch.setattr(split, "is_cheaper", lambda height, width: True)
    plain, parts = of_size(tiny_bundle, height, width), of_size(tiny_bundle, height, width)
    assert split_fft.rewrite(parts)
    names = {node.get_friendly_name() for node in parts.get_ordered_ops()}
    units = 2 * tiny_bundle.manifest.network.n_blocks
    assert sum(name.endswith("/rfft/row_minor") for name in names) == units
    assert not any(name.endswith(("/rfft/row", "/irfft/row")) for name in names)
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(found(parts, height, width), found(plain, height, width), rtol=0, atol=2e-5)


def test_a_size_where_it_does_not_pay_is_left_alone(tiny_bundle):
    model = of_size(tiny_bundle, 64, 64)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert not split_fft.rewrite(model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before
