"""Orders of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.runtime.openvino.rewrites.pixel_order import by_columns, by_rows, by_tiles

ORDERS = {
    "rows": by_rows(5, 7),
    "columns": by_columns(5, 7),
    "tiles": by_tiles(5, 7, (4, 4)),
    "lines": by_tiles(5, 7, (1, 8)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_each_pixel_has_one_position(name):
    order = ORDERS[name]
    np.testing.assert_array_equal(order.pixels[order.positions], np.arange(5 * 7))
    assert np.prod(order.grid) == order.pixels.size


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("other", ORDERS)
def test_pixels_keep_their_values_from_one_order_to_another(name, other):
    image = np.arange(100, 135)
    given = image[ORDERS[other].pixels]
    found = given[ORDERS[name].index_from(ORDERS[other])]
    np.testing.assert_array_equal(found[ORDERS[name].positions], image)


def test_orders_are_what_they_say():
    np.testing.assert_array_equal(by_columns(2, 3).pixels, [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(by_tiles(2, 4, (2, 2)).pixels, [0, 1, 4, 5, 2, 3, 6, 7])
    np.testing.assert_array_equal(by_tiles(1, 3, (1, 2)).pixels, [0, 1, 2, 2])
