"""The sizes of a TensorRT engine on the command line."""

from __future__ import annotations

import pytest

from glama_deploy.cli.options.sizes import SizeOptions
from glama_deploy.errors import GlamaError


def test_sizes_out_of_order_are_refused():
    with pytest.raises(GlamaError, match="sizes opt and max are 512x512 and 256x256; min ≤ opt ≤ max"):
        SizeOptions(opt_size="512x512", max_size="256x256").read()


def test_a_given_size_limits_the_default_ones():
    sizes = SizeOptions(max_size="256x256", max_batch=2).read()
    assert (sizes.min, sizes.opt, sizes.max, sizes.max_batch) == ((64, 64), (256, 256), (256, 256), 2)
