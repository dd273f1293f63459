"""Plans: boxes, batches, tiles or the whole image, from plain sizes and bytes. No engine is opened."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from glama_deploy.bundle import ANY_SIZE, SizeRange
from glama_deploy.errors import ImageError
from glama_deploy.inpainting import tiles
from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.planner import Limits, plan_batch, plan_image
from glama_deploy.network import NAMED


def needed(size: tuple[int, int], batch: int, window: tuple[int, int] | None = None) -> int:
    """A hundred bytes for each pixel: 60 of the image, and 40 of the window."""
    decoded = size if window is None else window
    return batch * (60 * size[0] * size[1] + 40 * decoded[0] * decoded[1])


def limits(free_bytes: int | None = None, sizes: SizeRange = ANY_SIZE, **others) -> Limits:
    return Limits(sizes, "float", needed, free_bytes, **others)


def specks(*places: tuple[int, int], shape: tuple[int, int] = (1000, 1200)) -> np.ndarray:
    missing = np.zeros(shape, bool)
    for row, column in places:
        missing[row : row + 4, column : column + 4] = True
    return missing


FAR_APART = specks((104, 104), (504, 1000), (904, 200))


def test_holes_far_apart_are_boxes_in_one_batch():
    plan = plan_image(FAR_APART, "auto", limits())
    ((one, two, three),) = plan.batches
    assert {box.span.size for box in (one, two, three)} == {(136, 136)}
    assert not plan.tiles
    assert plan.engine_bytes == needed((136, 136), 3)
    assert plan.beside_bytes == 0


def test_boxes_run_one_by_one_where_memory_holds_one_alone_or_sizes_are_compiled():
    scarce, compiled = limits(needed((136, 136), 3) - 1), limits(compiles_sizes=True)
    for each, size in ((scarce, (136, 136)), (compiled, (160, 160))):
        plan = plan_image(FAR_APART, "auto", each)
        assert [len(batch) for batch in plan.batches] == [1, 1, 1]
        assert plan.engine_bytes == needed(size, 1)


def test_full_is_the_whole_image_or_an_error_that_names_what_is_free():
    plan = plan_image(FAR_APART, "full", limits(needed((1000, 1200), 1)))
    assert [box.span for batch in plan.batches for box in batch] == [Span(0, 0, 1000, 1200)]
    with pytest.raises(ImageError, match=r"the image is 1000x1200 and needs about 0\.1 GB, 0\.1 GB are free; .* tiles"):
        plan_image(FAR_APART, "full", limits(needed((1000, 1200), 1) - 1))


def test_memory_that_the_engine_holds_counts_as_free_for_the_engine():
    whole = needed((1000, 1200), 1)
    assert plan_image(FAR_APART, "full", limits(0, held_bytes=whole)).engine_bytes == whole
    assert plan_image(FAR_APART, "full", limits(whole // 2, held_bytes=whole // 2)).engine_bytes == whole
    with pytest.raises(ImageError):
        plan_image(FAR_APART, "full", limits(whole // 2, held_bytes=whole // 2 - 1))


def test_auto_takes_boxes_where_the_image_does_not_fit():
    missing = np.zeros((512, 512), bool)
    missing[::100, ::100] = True  # so many boxes that the whole image is cheaper
    (batch,) = plan_image(missing, "auto", limits()).batches
    assert [box.span.size for box in batch] == [(512, 512)]
    plan = plan_image(missing, "auto", limits(needed((512, 512), 1) - 1))
    assert max(box.pixels for batch in plan.batches for box in batch) < 512 * 512


def test_a_hole_that_memory_does_not_hold_is_tiled_and_the_tiles_fit_beside_the_picture(caplog):
    missing = np.zeros((1000, 1200), bool)
    missing[200:800, 300:900] = True
    beside = tiles.BYTES_PER_IMAGE_PIXEL * missing.size
    plan = plan_image(missing, "auto", limits(needed((384, 384), 1) + beside))
    assert plan.batches == []
    assert plan.tiles == {Span(200, 300, 800, 900): (384, 384)}
    assert (plan.engine_bytes, plan.beside_bytes) == (needed((384, 384), 1), beside)
    assert "does not fit the free memory and is filled by tiles (384x384" in caplog.text
    with pytest.raises(ImageError, match="what is looked at around a hole is 128x128 and needs about"):
        plan_image(missing, "auto", limits(needed((128, 128), 1) + beside - 1))


def test_a_batch_is_refused_for_its_number_its_size_or_its_memory():
    few = SizeRange(min=(16, 16), opt=(96, 96), max=(96, 96), max_batch=2)
    assert plan_batch((90, 90), 2, limits(sizes=few)).engine_bytes == needed((96, 96), 2)  # padded
    with pytest.raises(ImageError, match="3 images at once, this engine takes 2"):
        plan_batch((90, 90), 3, limits(sizes=few))
    with pytest.raises(ImageError, match=r"the image is 100x90 .*, this engine takes 16x16…96x96"):
        plan_batch((100, 90), 1, limits(sizes=few))
    with pytest.raises(ImageError, match="the image is 96x96, 2 at once, and needs about"):
        plan_batch((96, 96), 2, limits(needed((96, 96), 2) - 1))


def test_the_planner_imports_no_runner_and_no_engine():
    code = "import sys, glama_deploy.inpainting.planner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "glama_deploy.inpainting.planner" in loaded
    assert not [name for name in loaded if name.startswith("glama_deploy.runtime")]


def test_a_plan_counts_the_window_of_an_engine_that_computes_windows():
    missing = np.zeros((512, 512), bool)
    missing[200:300, 100:400] = True
    window = 100 + 2 * 3 + 3 * 8, 300 + 2 * 3 + 3 * 8
    with_window = limits(needed((512, 512), 1, window), windowed=NAMED["lama"])
    plan = plan_image(missing, "full", with_window)
    assert plan.engine_bytes == needed((512, 512), 1, window)
    with pytest.raises(ImageError, match="the image is 512x512 and needs about"):
        plan_image(missing, "full", limits(needed((512, 512), 1, window)))
    with pytest.raises(ImageError, match="the image is 512x512 and needs about"):
        plan_image(~missing, "full", with_window)


def test_boxes_of_a_batch_are_planned_with_the_window_of_all_their_holes():
    plan = plan_image(FAR_APART, "crop", limits(windowed=NAMED["lama"]))
    (batch,) = plan.batches
    assert plan.engine_bytes < needed(batch[0].span.size, len(batch))
