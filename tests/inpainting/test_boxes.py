"""Boxes around holes: what they promise, and what an inpainter makes of them."""

from __future__ import annotations

from dataclasses import astuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy import memory
from glama_deploy.bundle import ANY_SIZE, SizeRange
from glama_deploy.cli.inpaint import main
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting import clusters, common_sizes
from glama_deploy.inpainting.boxes import (
    BOX_OVERHEAD_PIXELS,
    BOX_SIDES,
    CELL_PIXELS,
    COMPILED_SIZE_PIXELS,
    LARGE_BOX_PIXELS,
    NEW_SIZE_PIXELS,
    Box,
    Rule,
    Span,
    bounding_box,
    context_margin,
    find_holes,
    find_need,
    group_by_size,
    total_cost,
)
from glama_deploy.inpainting.inpainter import Inpainter


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


def find_boxes(rule: Rule, missing: np.ndarray) -> list[Box]:
    """Return the boxes of a mask as an inpainter makes them where no memory is short and no tiles are cheaper."""
    boxes, large = rule.find_boxes(missing)
    assert not large
    return rule.merge_boxes(boxes, missing.shape)


def has_large_hole(rule: Rule, missing: np.ndarray) -> bool:
    """Return whether a hole with its context is too large for the engine."""
    return bool(rule.find_boxes(missing)[1])


def test_boxes_are_squared_only_as_far_as_the_engine_goes():
    missing = np.zeros((4000, 4000), bool)
    missing[2000:2600, 1000:2100] = True
    wide = SizeRange(min=(64, 64), opt=(512, 512), max=(1024, 2048))
    (box,) = find_boxes(Rule(wide, compiles_sizes=True), missing)
    assert box.span.size == (1024, 1536)
    missing[1000:2100, 1000:1700] = True
    assert has_large_hole(Rule(wide, compiles_sizes=True), missing)


def shown(box: Box, hole: Span, shape: tuple[int, ...]) -> bool:
    """Whether a box contains a hole with its context, as far as the image goes."""
    need = find_need(hole)
    wanted = Span(max(0, need.top), max(0, need.left), min(shape[0], need.bottom), min(shape[1], need.right))
    return box.hole.contains(hole) and box.span.contains(wanted)


def is_aligned(span: Span, shape: tuple[int, ...]) -> bool:
    """Whether a box starts at multiples of 8 pixels, or ends with the image."""
    rows, columns = (span.top, span.bottom, shape[0]), (span.left, span.right, shape[1])
    return all(start % 8 == 0 or stop == extent for start, stop, extent in (rows, columns))


@given(masks(), st.sampled_from([0.0, 1 / 2500]), st.booleans())
@settings(max_examples=150)
def test_every_hole_is_in_a_box_with_its_context(missing, long_side, compiled):
    found = find_boxes(Rule(ANY_SIZE, fourier_cost=long_side, compiles_sizes=compiled), missing)
    filled = np.zeros_like(missing)
    for box in found:
        filled[box.hole.slices] = True
        assert missing[box.hole.slices].any()
        assert Span(0, 0, *missing.shape).contains(box.span)
        assert box.span.contains(box.hole)
        for side, extent in zip(box.span.size, missing.shape, strict=True):
            assert side in BOX_SIDES or side == extent if compiled else side % 8 == 0 or side == extent
        assert is_aligned(box.span, missing.shape)
    assert filled[missing].all()
    for hole in find_holes(missing):
        assert any(shown(box, hole, missing.shape) for box in found)


@given(masks(), st.sampled_from([0.0, 1 / 2500]), st.booleans())
@settings(max_examples=100)
def test_shared_boxes_cost_no_more_than_one_for_each_hole(missing, long_side, compiled):
    rule = Rule(ANY_SIZE, fourier_cost=long_side, compiles_sizes=compiled)
    each, _ = rule.find_boxes(missing)
    found = rule.merge_boxes(each, missing.shape)
    assert total_cost(found) <= total_cost(each)
    largest = max([LARGE_BOX_PIXELS, *(box.pixels for box in each)])
    assert max((box.pixels for box in found), default=0) <= largest
    assert found == find_boxes(rule, np.asfortranarray(missing))


@given(masks())
@settings(max_examples=60)
def test_holes_are_the_components_that_opencv_finds(missing):
    cell = CELL_PIXELS
    padded = np.pad(missing, ((0, -missing.shape[0] % cell), (0, -missing.shape[1] % cell)))
    cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).any(axis=(1, 3))
    count, labels = cv2.connectedComponents(cells.astype(np.uint8), connectivity=8)
    labels = labels.repeat(cell, axis=0).repeat(cell, axis=1)[: missing.shape[0], : missing.shape[1]]
    expected = {bounding_box(missing & (labels == label)) for label in range(1, count)}
    found = find_holes(missing)
    assert len(found) == len(expected)
    assert set(found) == expected
    turned = {Span(hole.left, hole.top, hole.right, hole.bottom) for hole in find_holes(missing.T)}
    assert turned == expected


def test_a_hole_that_winds_through_the_image_is_one():
    spiral = np.zeros((1600, 1600), bool)
    for turn in range(0, 800, 64):
        spiral[turn : turn + 16, turn : 1600 - turn] = True
        spiral[turn : 1600 - turn, 1584 - turn : 1600 - turn] = True
        spiral[1584 - turn : 1600 - turn, turn : 1600 - turn] = True
        spiral[turn + 64 : 1600 - turn, turn : turn + 16] = True
        spiral[turn + 64 : turn + 80, turn : turn + 80] = True
    assert find_holes(spiral) == [Span(0, 0, 1600, 1600)]


def test_holes_close_together_share_a_box_and_those_far_apart_do_not():
    missing = np.zeros((1024, 1024), bool)
    missing[100:120, 100:130] = True
    missing[122:140, 140:160] = True  # in a cell that touches
    missing[800:810, 700:720] = True
    near, far = find_boxes(Rule(ANY_SIZE), missing)
    assert near.hole == Span(100, 100, 140, 160)
    assert far.hole == Span(800, 700, 810, 720)
    missing[160:165, 100:105] = True  # two boxes of 168x192 and 136x136, or one of 200x192
    assert [box.hole for box in find_boxes(Rule(ANY_SIZE), missing)] == [Span(100, 100, 165, 160), far.hole]
    missing[365:370, 100:105] = True  # a box of 400x192 would cost more than one of 200x192 and one of 136x136
    assert len(find_boxes(Rule(ANY_SIZE), missing)) == 3


def test_a_box_of_two_holes_shows_what_each_needs_and_no_more():
    missing = np.zeros((1024, 1024), bool)
    missing[500:510, 200:210] = missing[500:510, 500:510] = True
    for box in find_boxes(Rule(ANY_SIZE, overhead_pixels=512**2), missing):
        # 64 pixels around both make 138x438; half of their distance, 155 pixels, would make 320x620
        assert box.span.size == (136, 440)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_twenty_fifth_speck_costs_as_much_as_the_others(compiled):
    rule, costs = Rule(ANY_SIZE, compiles_sizes=compiled), {}
    for count in (1, 24, 25, 60):
        missing = np.zeros((3000, 4000), bool)
        for number in range(count):
            top, left = 200 + 400 * (number // 9), 200 + 400 * (number % 9)
            missing[top : top + 8, left : left + 8] = True
        costs[count] = total_cost(find_boxes(rule, missing))
    assert {count: price / costs[1] for count, price in costs.items()} == {1: 1, 24: 24, 25: 25, 60: 60}


def specks(count: int) -> np.ndarray:
    """24 megapixels with specks of 3 to 12 pixels, anywhere."""
    rng, missing = np.random.default_rng(0), np.zeros((4000, 6000), bool)
    for _ in range(count):
        side = int(rng.integers(3, 13))
        top, left = int(rng.integers(4000 - side)), int(rng.integers(6000 - side))
        missing[top : top + side, left : left + side] = True
    return missing


def need(missing: np.ndarray) -> int:
    """Pixels that the holes need: the area that their bounding boxes cover together, each with its context."""
    covered = np.zeros_like(missing)
    for hole in find_holes(missing):
        around = find_need(hole)
        covered[max(0, around.top) : around.bottom, max(0, around.left) : around.right] = True
    return int(covered.sum())


@pytest.fixture
def comparisons(monkeypatch):
    """Counts the boxes that are compared with those that they would replace."""
    counts = [0]

    def counted(boxes, merge, reach):
        def merge_and_count(parts):
            counts[0] += 1
            return merge(parts)

        return clusters.merge_boxes(boxes, merge_and_count, reach)

    monkeypatch.setattr("glama_deploy.inpainting.boxes.merge_boxes", counted)
    return counts


@pytest.mark.parametrize(("long_side", "compiled", "sizes"), [(0.0, False, 40), (1 / 2500, False, 40), (0.0, True, 5)])
def test_five_hundred_specks_need_little_work_and_few_sizes(long_side, compiled, sizes, comparisons):
    missing = specks(500)
    holes = len(find_holes(missing))
    rule = Rule(ANY_SIZE, fourier_cost=long_side, compiles_sizes=compiled)
    found = rule.share_sizes(find_boxes(rule, missing), missing.shape)
    assert sum(box.pixels for box in found) <= 3 * need(missing)  # the union, which is less than the sum
    assert len({box.span.size for box in found}) <= sizes
    assert comparisons[0] <= 8 * holes  # MAX_NEIGHBOURS for each box; most pairs are found from both sides


@pytest.mark.parametrize("compiled", [False, True])
def test_thousands_of_specks_need_work_in_proportion_and_no_great_box(compiled, comparisons):
    """Dust on a scan: together the boxes are a few times the image, and each takes little memory."""
    missing = specks(9000)
    holes = len(find_holes(missing))
    assert holes > clusters.MAX_BOXES_WITHOUT_BLOCKS
    found = find_boxes(Rule(ANY_SIZE, compiles_sizes=compiled), missing)
    assert comparisons[0] <= 12 * holes
    assert max(box.pixels for box in found) <= LARGE_BOX_PIXELS
    assert sum(box.pixels for box in found) <= 3 * missing.size


def test_specks_within_a_large_hole_s_box_cost_nothing(comparisons):
    missing = specks(3000)
    missing[500:3500, 500:5500] = True
    (box,) = find_boxes(Rule(ANY_SIZE), missing)
    assert box.span == Span(0, 0, 4000, 6000)
    assert comparisons[0] <= 12 * len(find_holes(missing))


@given(masks(), st.booleans())
@settings(max_examples=60)
def test_shared_sizes_show_no_less_and_cost_no_more_than_sizes_of_their_own(missing, compiled):
    rule = Rule(ANY_SIZE, compiles_sizes=compiled)
    found = find_boxes(rule, missing)
    shared = rule.share_sizes(found, missing.shape)
    new_size = COMPILED_SIZE_PIXELS if compiled else NEW_SIZE_PIXELS

    def cost(boxes: list[Box]) -> float:
        return total_cost(boxes) + new_size * len({box.span.size for box in boxes})

    assert cost(shared) <= cost(found)
    for before, after in zip(found, shared, strict=True):
        assert (after.hole, after.need) == (before.hole, before.need)
        assert Span(0, 0, *missing.shape).contains(after.span)
        assert is_aligned(after.span, missing.shape)
        for side, own, extent in zip(after.span.size, before.span.size, missing.shape, strict=True):
            assert own <= side <= extent
            assert side % 8 == 0 or side == extent
    for hole in find_holes(missing):
        assert any(shown(box, hole, missing.shape) for box in shared)


def test_boxes_of_nearly_one_size_become_one_and_far_sizes_stay_apart():
    missing = np.zeros((4000, 4000), bool)
    for place, side in ((100, 10), (1000, 30), (2000, 24), (3000, 700)):
        missing[place : place + side, place : place + side] = True
    rule = Rule(ANY_SIZE)
    *small, large = rule.share_sizes(rule.find_boxes(missing)[0], missing.shape)
    assert {box.span.size for box in small} == {(160, 160)}
    assert large.span.size == (1048, 1048)  # 700 + 2·175


def test_sizes_are_not_shared_where_the_larger_box_does_not_fit():
    missing = np.zeros((1000, 1000), bool)
    missing[100:110, 100:130] = missing[700:730, 700:710] = True
    rule = Rule(ANY_SIZE)
    found = rule.find_boxes(missing)[0]
    assert {box.span.size for box in rule.share_sizes(found, missing.shape)} == {(152, 152)}
    apart = rule.share_sizes(found, missing.shape, lambda height, width: height * width <= 140 * 152)
    assert [box.span.size for box in apart] == [box.span.size for box in found] == [(136, 152), (152, 136)]


def test_thousands_of_sizes_become_few():
    rng = np.random.default_rng(0)
    sizes = [(int(high), int(wide)) for high, wide in rng.integers(16, 400, (3000, 2)) * 8]
    shared = common_sizes.choose_common_sizes(
        sizes, (3000, 3001), Rule(ANY_SIZE).cost_of, NEW_SIZE_PIXELS, lambda *_: True
    )
    assert len(set(shared)) <= common_sizes.MAX_SIZES
    for (high, wide), (own_high, own_wide) in zip(shared, sizes, strict=True):
        assert high >= own_high
        assert wide >= own_wide
        assert high <= max(3000, own_high)
        assert wide <= max(3001, own_wide)


def test_noise_is_one_hole():
    missing = np.random.default_rng(0).random((1000, 1500)) < 0.3
    assert len(find_holes(missing)) == 1


def test_an_engine_of_one_size_gets_boxes_of_that_size():
    sizes = SizeRange(min=(256, 256), opt=(256, 256), max=(256, 256))
    missing = np.zeros((600, 800), bool)
    missing[300:320, 20:40] = True
    (box,) = find_boxes(Rule(sizes), missing)
    assert box.span.size == (256, 256)
    missing[100:500, 300:600] = True
    assert has_large_hole(Rule(sizes), missing)
    assert has_large_hole(Rule(sizes), missing[:, :200])  # an image that is narrower than the engine


def test_the_engines_largest_size_is_a_box_too():
    sizes = SizeRange(min=(64, 64), opt=(512, 512), max=(1280, 1280))
    missing = np.zeros((3000, 3000), bool)
    missing[1000:1832, 1000:1832] = True  # wants 1248
    rule = Rule(sizes, compiles_sizes=True)
    (box,) = find_boxes(rule, missing)
    assert box.span.size == (1280, 1280)
    (box,) = find_boxes(Rule(sizes), missing)
    assert box.span.size == (1248, 1248)
    missing[1000:1900, 1000:1832] = True
    assert has_large_hole(Rule(sizes), missing)
    large = np.zeros((9000, 6000), bool)
    large[3000:5800, 2000:4800] = True  # wants 4200, beyond the steps
    (box,) = find_boxes(Rule(ANY_SIZE, compiles_sizes=True), large)
    assert box.span.size == (5120, 5120)


def test_boxes_for_compiled_sizes_are_square_unless_they_are_long():
    missing = np.zeros((900, 2000), bool)
    missing[100:110, 100:300] = True
    (box,) = find_boxes(Rule(ANY_SIZE, compiles_sizes=True), missing)
    assert box.span.size == (448, 448)
    (box,) = find_boxes(Rule(ANY_SIZE), missing)
    assert box.span.size == (208, 400)
    missing[100:110, 300:700] = True
    (box,) = find_boxes(Rule(ANY_SIZE, compiles_sizes=True), missing)
    assert box.span.size == (320, 896)


@pytest.mark.parametrize(
    ("size", "margin"), [((9, 9), 64), ((200, 30), 100), ((300, 300), 128), ((90, 1200), 128), ((1000, 2000), 250)]
)
def test_context_is_half_of_the_hole_up_to_a_bound_that_grows_with_its_shorter_side(size, margin):
    assert context_margin(Span(0, 0, *size)) == margin


@given(*[st.integers(0, 4000)] * 4)
def test_the_edges_of_the_context_are_the_nearest_multiples_of_8(top, left, height, width):
    hole = Span(top, left, top + height + 1, left + width + 1)
    around, need = hole.grown(context_margin(hole)), find_need(hole)
    for exact, edge in zip(astuple(around), astuple(need), strict=True):
        assert edge % 8 == 0
        assert abs(edge - exact) <= 4


@pytest.mark.parametrize("least", [64, 256])
def test_a_hole_that_an_engine_takes_at_one_place_is_taken_at_every_place(least):
    """Rounding moves both edges of a context, so the side is never more than the next multiple of 8."""
    rule = Rule(SizeRange(min=(least, least), opt=(256, 256), max=(256, 256)))
    for place in range(400, 408):
        missing = np.zeros((2000, 2000), bool)
        missing[place : place + 128, place : place + 128] = True  # with its context 256
        (box,) = find_boxes(rule, missing)
        assert box.span.size == (256, 256)
        assert shown(box, box.hole, missing.shape)


def pays(rule: Rule, missing: np.ndarray) -> bool:
    boxes = find_boxes(rule, missing)
    return rule.is_better_than_whole(total_cost(boxes), missing.shape, max(box.pixels for box in boxes))


def test_stage_one_of_two_counts_for_every_box():
    missing = np.zeros((512, 512), bool)
    for top in (20, 400):
        for left in (20, 400):
            missing[top : top + 10, left : left + 10] = True
    assert pays(Rule(ANY_SIZE), missing)
    assert not pays(Rule(ANY_SIZE, overhead_pixels=BOX_OVERHEAD_PIXELS + 256**2), missing)


def test_boxes_pay_for_a_small_hole_and_not_for_a_grid():
    small, grid = np.zeros((512, 512), bool), np.zeros((512, 512), bool)
    small[200:230, 300:340] = True
    grid[::2] = True
    assert pays(Rule(ANY_SIZE), small)
    assert not pays(Rule(ANY_SIZE), grid)


@pytest.mark.parametrize(
    ("shape", "worth"),
    [
        ((1024, 1024), 0.75),
        ((1024, 1040), 1),
        ((2048, 2048), 1),
        ((2048, 2064), 2),
        ((15000, 800), 2),
    ],
)
def test_boxes_may_cost_the_more_the_more_memory_the_image_needs(shape, worth):
    rule = Rule(ANY_SIZE, fourier_cost=1 / 2500)
    cost, pixels = rule.whole_image(shape).cost, shape[0] * shape[1]
    assert rule.is_better_than_whole(0.999 * worth * cost, shape, 256**2)
    assert not rule.is_better_than_whole(1.001 * worth * cost, shape, 256**2)
    assert not rule.is_better_than_whole(1.001 * min(worth, 1) * cost, shape, pixels // 2)  # which saves little memory


def test_boxes_of_one_size_run_together_as_far_as_a_batch_goes():
    missing = np.zeros((900, 900), bool)
    for n in range(3):
        missing[300 * n + 100, 300 * n + 100] = True
    missing[800, 100:300] = True
    found = find_boxes(Rule(ANY_SIZE), missing)
    groups = list(group_by_size(found, None))
    assert sorted(len(group) for group in groups) == [1, 3]
    assert sorted(len(group) for group in group_by_size(found, 2)) == [1, 1, 2]
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
    found = Rule(ANY_SIZE).share_sizes(find_boxes(Rule(ANY_SIZE), mask), mask.shape)
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
    many[40:360:150, 30:390:110] = True  # twelve pixels, whose boxes show most of the image twice
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
    many[40:360:150, 30:390:110] = True  # so many boxes that they do not pay
    free = inpainter._runner.memory_needed((200, 200))
    monkeypatch.setattr(memory, "available", lambda: free)
    monkeypatch.setattr("glama_deploy.inpainting.boxes.MAX_BATCH_COST_PIXELS", 1)
    filled = inpainter(image, many)
    assert (filled[~many] == image[~many]).all()
    inpainter = Inpainter(inpainter._runner, inpainter.network)  # which knows of nothing that its engine holds
    with pytest.raises(ImageError, match=r"the image is 400x424 and needs about .*, or use region auto"):
        inpainter(image, many, region="full")
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ImageError, match=r"what is looked at around a hole is 128x128 and needs about"):
        inpainter(image, many, region="crop")


def test_uint8_graphs_give_the_same_crops(tiny, make_bundle, scene):
    image, mask = scene
    whole = glama_deploy.load(make_bundle(tiny).path, "onnxruntime")
    given = glama_deploy.load(make_bundle(tiny, io="uint8").path, "onnxruntime")
    difference = whole(image, mask, region="crop").astype(int) - given(image, mask, region="crop")
    assert np.abs(difference).max() <= 1


def test_an_unknown_region_is_one_line(inpainter, scene, tmp_path, capsys):
    with pytest.raises(GlamaError, match="`region` is 'some'; expected auto, full, crop"):
        inpainter(*scene, region="some")
    arguments = ["--image", "a.png", "--mask", "b.png", "--out", str(tmp_path / "c.png"), "--region", "some"]
    assert main.run(arguments) == 2
    assert "--region is 'some'; expected auto, full, crop" in capsys.readouterr().err


def test_boxes_that_do_not_fit_into_memory_together_are_filled_one_by_one(inpainter, scene, monkeypatch):
    image, _ = scene
    many = np.zeros(image.shape[:2], bool)
    for top in range(20, 380, 120):
        for left in range(20, 400, 120):
            many[top : top + 6, left : left + 6] = True
    one = inpainter._runner.memory_needed((192, 192))
    monkeypatch.setattr(memory, "available", lambda: 2 * one)  # of twelve boxes
    # two inpainters, which know of nothing that their engine holds
    first, second = (Inpainter(inpainter._runner, inpainter.network) for _ in range(2))
    filled = first(image, many, region="crop")
    monkeypatch.setattr("glama_deploy.inpainting.boxes.MAX_BATCH_COST_PIXELS", 1)
    assert (filled == second(image, many, region="crop")).all()
