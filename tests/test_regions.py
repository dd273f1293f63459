"""Boxes around holes: what they promise, and what an inpainter makes of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy import memory, regions
from glama_deploy.bundle import ANY_SIZE, SizeRange
from glama_deploy.cli.inpaint import main
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainter import Inpainter
from glama_deploy.regions import Rule, Span


@st.composite
def masks(draw):
    """Some boxes and specks in an image of any size."""
    height, width = draw(st.integers(16, 700)), draw(st.integers(16, 700))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 6))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[top : top + draw(st.integers(1, 120)), left : left + draw(st.integers(1, 120))] = True
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    specks = draw(st.sampled_from([0, 3, 60]))
    mask[rng.integers(0, height, specks), rng.integers(0, width, specks)] = True
    return mask


def test_boxes_are_squared_only_as_far_as_the_engine_goes():
    missing = np.zeros((4000, 4000), bool)
    missing[2000:2100, 1000:1700] = True
    wide = SizeRange(min=(64, 64), opt=(512, 512), max=(1024, 2048))
    (box,) = Rule(wide, square=True).boxes(missing)
    assert box.span.size == (1024, 1536)
    missing[1000:2100, 1000:1700] = True
    assert Rule(wide, square=True).boxes(missing) is None


@given(masks())
@settings(deadline=None, max_examples=150)
def test_every_missing_pixel_is_in_one_hole_and_every_hole_in_its_box(missing):
    found = Rule(ANY_SIZE).boxes(missing)
    owners = np.zeros(missing.shape, int)
    for box in found:
        owners[box.hole.slices] += 1
        assert missing[box.hole.slices].any()
        assert 0 <= box.span.top <= box.hole.top < box.hole.bottom <= box.span.bottom <= missing.shape[0]
        assert 0 <= box.span.left <= box.hole.left < box.hole.right <= box.span.right <= missing.shape[1]
        for side, extent in zip(box.span.size, missing.shape, strict=True):
            assert side in regions.STEPS or side == extent
    assert owners.max(initial=0) <= 1
    assert (owners[missing] == 1).all()
    assert len(found) <= regions.MOST_HOLES


@given(masks())
@settings(deadline=None, max_examples=60)
def test_a_box_has_context_on_each_side_as_far_as_the_image_goes(missing):
    for box in Rule(ANY_SIZE).boxes(missing):
        margin = max(regions.LEAST_CONTEXT, int(regions.CONTEXT * max(box.hole.size)))
        edges = (
            (box.hole.top - box.span.top, box.hole.top),
            (box.hole.left - box.span.left, box.hole.left),
            (box.span.bottom - box.hole.bottom, missing.shape[0] - box.hole.bottom),
            (box.span.right - box.hole.right, missing.shape[1] - box.hole.right),
        )
        for there, most in edges:
            assert there >= min(margin, most)


def test_holes_close_together_share_a_box_and_those_far_apart_do_not():
    missing = np.zeros((1024, 1024), bool)
    missing[100:120, 100:130] = True
    missing[122:140, 140:160] = True  # in a cell that touches
    missing[800:810, 700:720] = True
    far, near = sorted(Rule(ANY_SIZE).boxes(missing), key=lambda box: -box.hole.top)
    assert near.hole == Span(100, 100, 140, 160)
    assert far.hole == Span(800, 700, 810, 720)
    missing[160:165, 100:105] = True  # its own box would overlap the first; together they cost less
    assert [box.hole for box in Rule(ANY_SIZE).boxes(missing) if box.hole.top == 100] == [Span(100, 100, 165, 160)]
    missing[250:255, 100:105] = True  # one for these would cost more than two that overlap
    assert len(Rule(ANY_SIZE).boxes(missing)) == 3


def test_an_engine_of_one_size_gets_boxes_of_that_size():
    sizes = SizeRange(min=(256, 256), opt=(256, 256), max=(256, 256))
    missing = np.zeros((600, 800), bool)
    missing[300:320, 20:40] = True
    (box,) = Rule(sizes).boxes(missing)
    assert box.span.size == (256, 256)
    missing[100:500, 300:600] = True
    assert Rule(sizes).boxes(missing) is None
    assert Rule(sizes).boxes(missing[:, :200]) is None  # an image that is narrower than the engine


def test_the_engines_largest_size_is_a_box_too():
    sizes = SizeRange(min=(64, 64), opt=(512, 512), max=(1280, 1280))
    missing = np.zeros((3000, 3000), bool)
    missing[1000:1540, 1000:1540] = True  # wants 1080; the next step is 1536
    (box,) = Rule(sizes).boxes(missing)
    assert box.span.size == (1280, 1280)
    missing[1000:1700, 1000:1540] = True
    assert Rule(sizes).boxes(missing) is None
    large = np.zeros((9000, 6000), bool)
    large[3000:5100, 3000:5100] = True  # wants 4200, beyond the steps
    (box,) = Rule(ANY_SIZE).boxes(large)
    assert box.span.size == (5120, 5120)


def test_thousands_of_specks_are_found_fast_and_are_few_boxes():
    """Dust on a scan; the number of pairs would take minutes."""
    missing = np.zeros((3072, 3072), bool)
    rng = np.random.default_rng(0)
    missing[rng.integers(0, 3072, 9000), rng.integers(0, 3072, 9000)] = True
    start = time.process_time()
    assert len(Rule(ANY_SIZE).boxes(missing)) <= regions.MOST_HOLES
    assert time.process_time() - start < 20  # it takes one; without the bound it did not end


def test_square_boxes_are_of_few_sizes():
    missing = np.zeros((900, 1000), bool)
    missing[100:110, 100:300] = True
    (box,) = Rule(ANY_SIZE, square=True).boxes(missing)
    assert box.span.size == (512, 512)
    (box,) = Rule(ANY_SIZE).boxes(missing)
    assert box.span.size == (256, 512)


def test_stage_one_of_two_counts_for_every_box():
    missing = np.zeros((512, 512), bool)
    for top in (20, 400):
        for left in (20, 400):
            missing[top : top + 10, left : left + 10] = True
    assert regions.pay(Rule(ANY_SIZE).boxes(missing), 512, 512)
    assert not regions.pay(Rule(ANY_SIZE, extra=regions.OVERHEAD + 256**2).boxes(missing), 512, 512)


def test_boxes_pay_for_a_small_hole_and_not_for_a_grid():
    small, grid = np.zeros((512, 512), bool), np.zeros((512, 512), bool)
    small[200:230, 300:340] = True
    grid[::2] = True
    assert regions.pay(Rule(ANY_SIZE).boxes(small), 512, 512)
    assert not regions.pay(Rule(ANY_SIZE).boxes(grid), 512, 512)


def test_boxes_of_one_size_run_together_as_far_as_a_batch_goes():
    missing = np.zeros((900, 900), bool)
    for n in range(3):
        missing[300 * n + 100, 300 * n + 100] = True
    missing[800, 100:300] = True
    found = Rule(ANY_SIZE).boxes(missing)
    groups = list(regions.alike(found, None))
    assert sorted(len(group) for group in groups) == [1, 3]
    assert sorted(len(group) for group in regions.alike(found, 2)) == [1, 1, 2]
    for group in groups:
        assert len({box.span.size for box in group}) == 1


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def inpainter(request, tiny_bundle):
    return glama_deploy.load(tiny_bundle.path, request.param)


@pytest.fixture(scope="module")
def scene():
    """uint8 400×420×3 and a mask of three holes far apart, two of which have boxes of one size."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (400, 420, 3), np.uint8)
    mask = np.zeros((400, 420), bool)
    mask[40:60, 30:50] = mask[330:350, 360:380] = mask[200:206, 180:240] = True
    return image, mask


def test_a_box_is_filled_as_if_it_were_an_image_of_its_own(inpainter, scene):
    image, mask = scene
    found = Rule(ANY_SIZE).boxes(mask)
    assert len(found) == 3
    filled = inpainter(image, mask, region="crop")
    assert (filled[~mask] == image[~mask]).all()
    for box in found:
        alone = inpainter(np.ascontiguousarray(image[box.span.slices]), mask[box.span.slices], region="full")
        own = np.zeros_like(mask)
        own[box.hole.slices] = mask[box.hole.slices]
        difference = filled[own].astype(int) - alone[own[box.span.slices]]
        assert np.abs(difference).max() <= 1  # a batch may sum in another order, next to a rounding


def test_auto_takes_boxes_where_they_pay_and_the_whole_image_where_not(inpainter, scene):
    image, mask = scene
    many = mask.copy()
    many[60:90, 300:330] = True  # four boxes
    np.testing.assert_array_equal(inpainter(image, many), inpainter(image, many, region="full"))
    one = np.zeros_like(mask)
    one[40:60, 30:50] = True
    np.testing.assert_array_equal(inpainter(image, one), inpainter(image, one, region="crop"))
    assert (inpainter(image, one) != inpainter(image, one, region="full")).any()


def test_an_image_that_is_too_large_for_an_engine_is_filled_by_boxes(tiny, make_bundle, scene):
    image, mask = scene
    small = glama_deploy.load(make_bundle(tiny, ("onnx",), size=(192, 192)).path)
    filled = small(image, mask)
    assert (filled[~mask] == image[~mask]).all()
    assert (filled[mask] != image[mask]).mean() > 0.9
    with pytest.raises(ImageError, match=r"this engine takes 192x192; .*, or use region auto, which fills large holes"):
        small(image, mask, region="full")


def test_an_image_that_memory_does_not_hold_is_filled_by_boxes(inpainter, scene, monkeypatch):
    image, mask = scene
    many = mask.copy()
    many[60:90, 300:330] = True  # four boxes, which do not pay
    network = inpainter._network
    monkeypatch.setattr(memory, "available", lambda: memory.estimate(200, 200, network, backend=inpainter.backend))
    monkeypatch.setattr(regions, "MOST_TOGETHER", 1)
    filled = inpainter(image, many)
    assert (filled[~many] == image[~many]).all()
    inpainter = Inpainter(inpainter._runner, network)  # which knows of nothing that its engine holds
    with pytest.raises(ImageError, match=r"the image is 400x424 and needs about .*, or use region auto"):
        inpainter(image, many, region="full")
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ImageError, match=r"what is looked at around a hole is 128x128 and needs about"):
        inpainter(image, many, region="crop")


def test_the_graphs_own_bytes_are_cropped_alike(tiny, make_bundle, scene):
    image, mask = scene
    whole = glama_deploy.load(make_bundle(tiny).path, "onnxruntime")
    given = glama_deploy.load(make_bundle(tiny, io="uint8").path, "onnxruntime")
    difference = whole(image, mask, region="crop").astype(int) - given(image, mask, region="crop")
    assert np.abs(difference).max() <= 1


def test_an_unknown_region_is_one_line(inpainter, scene, tmp_path, capsys):
    with pytest.raises(GlamaError, match="region is 'some'; expected auto, full, crop"):
        inpainter(*scene, region="some")
    arguments = ["--image", "a.png", "--mask", "b.png", "--out", str(tmp_path / "c.png"), "--region", "some"]
    assert main.run(arguments) == 2
    assert "region is 'some'; expected auto, full, crop" in capsys.readouterr().err


def test_boxes_that_do_not_fit_into_memory_together_are_filled_one_by_one(inpainter, scene, monkeypatch):
    image, _ = scene
    many = np.zeros(image.shape[:2], bool)
    for top in range(20, 380, 120):
        for left in range(20, 400, 120):
            many[top : top + 6, left : left + 6] = True
    one = memory.estimate(192, 192, inpainter.network, backend=inpainter.backend)
    monkeypatch.setattr(memory, "available", lambda: 2 * one)  # of twelve boxes
    filled = inpainter(image, many, region="crop")
    monkeypatch.setattr(regions, "MOST_TOGETHER", 1)
    assert (filled == inpainter(image, many, region="crop")).all()
