from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy import memory
from glama_deploy.bundle import ANY_SIZE, SizeRange
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting import boxes
from glama_deploy.inpainting import inpainter as planning
from glama_deploy.inpainting.boxes import LARGE_BOX_PIXELS, bounding_box, total_cost
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.planner import Plan, Region, plan_image
from glama_deploy.network import NAMED, NetworkConfig
from glama_deploy.runtime.base import Runner


@pytest.fixture(scope="module", params=["openvino", "onnxruntime", "torch"])
def inpainter(request, tiny_bundle, tiny):
    model = tiny if request.param == "torch" else tiny_bundle.path
    return glama_deploy.load(model, request.param)


@pytest.fixture(scope="module")
def one(tiny_bundle):
    return glama_deploy.load(tiny_bundle.path, "openvino")


def test_known_pixels_come_back_bit_exact(inpainter, photo, hole):
    out = inpainter(photo, hole)
    assert out.dtype == np.uint8
    assert out.shape == photo.shape
    np.testing.assert_array_equal(out[~hole], photo[~hole])
    assert (out[hole] != photo[hole]).any()


def test_an_empty_mask_gives_the_image_back(inpainter, photo):
    out = inpainter(photo, np.zeros(photo.shape[:2], np.uint8))
    np.testing.assert_array_equal(out, photo)
    assert out is not photo


def test_the_inputs_are_not_changed(inpainter, photo, hole):
    image, mask = photo.copy(), hole.copy()
    inpainter(image, mask)
    inpainter.batch(image[None], mask[None])
    np.testing.assert_array_equal(image, photo)
    np.testing.assert_array_equal(mask, hole)


def test_the_result_is_the_rounded_prediction_in_the_hole(inpainter, photo, hole):
    predicted = inpainter.predict(photo, hole)
    assert predicted.dtype == np.float32
    assert predicted.shape == photo.shape
    expected = np.rint(predicted[hole] * 255)
    difference = np.abs(inpainter(photo, hole, region="full")[hole] - expected)
    assert difference.max() <= 1  # two runs may sum in another order, and a value next to .5 then rounds the other way
    assert (difference > 0).mean() < 0.001


def test_threads_may_share_an_inpainter(inpainter, photo, hole):
    expected = inpainter(photo, hole)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: inpainter(photo, hole), range(12)))
    for result in results:
        assert np.abs(result.astype(int) - expected).max() <= 1  # another order of summation, next to a rounding


def test_pixels_under_the_mask_do_not_change_the_result(inpainter, photo, hole):
    other = photo.copy()
    other[hole] = 255 - other[hole]
    np.testing.assert_array_equal(inpainter(photo, hole)[hole], inpainter(other, hole)[hole])


@settings(deadline=None, max_examples=40)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 5))
def test_any_size_from_16_works(one, height, width, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = rng.random((height, width)) < 0.3
    out = one(image, mask)
    assert out.shape == image.shape
    np.testing.assert_array_equal(out[~mask], image[~mask])


def test_masks_may_be_bool_or_any_uint8_above_zero(one, photo, hole):
    expected = one(photo, hole)
    np.testing.assert_array_equal(one(photo, hole.astype(np.uint8)), expected)
    np.testing.assert_array_equal(one(photo, hole.astype(np.uint8) * 255), expected)


def test_views_and_read_only_arrays_are_taken(one, photo, hole):
    image = photo[::-1, ::-1]
    image.setflags(write=False)
    mask = np.asfortranarray(hole[::-1, ::-1])
    np.testing.assert_array_equal(one(image, mask), one(image.copy(), np.ascontiguousarray(mask)))


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), bool), "0x0"),
        (np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), bool), "1x1; both sides must be from 16"),
        (np.zeros((20, 30000, 3), np.uint8), np.zeros((20, 30000), bool), "20x30000"),
        (np.full((32, 32, 3), 255.0), np.zeros((32, 32), bool), "float64, and known values are from 255 to 255; 0 to"),
        (np.full((32, 32, 3), np.nan), np.zeros((32, 32), bool), "float64, and known values are from nan"),
        (np.zeros((32, 32, 3), np.int16), np.zeros((32, 32), bool), "int16; uint8"),
        (np.zeros((32, 32, 3), bool), np.zeros((32, 32), bool), "bool; uint8"),
        (np.zeros((32, 32, 3), np.longdouble), np.zeros((32, 32), bool), "float128; uint8"),
        (np.zeros((32, 32, 1), np.uint8), np.zeros((32, 32), bool), r"shape \[32, 32, 1\]; height × width × 3"),
        (np.zeros((3, 32, 32), np.uint8), np.zeros((32, 32), bool), r"shape \[3, 32, 32\]; height × width × 3"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((32, 32), bool), r"shape \[1, 32, 32, 3\]"),
        (np.ma.masked_array(np.zeros((32, 32, 3), np.uint8)), np.zeros((32, 32), bool), "not MaskedArray"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40), bool), "mask is 32x40, the image 32x32"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 1), bool), "without channels"),
        (np.zeros((32, 32, 3), np.uint8), np.full((32, 32), np.nan), "mask is float64 and has other values"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.int64), "mask is int64"),
        ([[1]], np.zeros((32, 32), bool), "not list; np.asarray makes an array"),
    ],
)
def test_wrong_images_and_masks_are_refused_with_the_expected_form(one, image, mask, says):
    with pytest.raises(ImageError, match=says):
        one(image, mask)
    with pytest.raises(ImageError, match=says):
        one.predict(image, mask)


class Constant(Runner):
    """A runner that gives one value everywhere: for what the inpainter does around an engine."""

    backend, description, device, precision, io = "constant", "constant", "cpu", "fp32", "float"
    network = NetworkConfig()

    def __init__(self, value: float, sizes: SizeRange = ANY_SIZE) -> None:
        self.value, self.sizes, self.seen = value, sizes, []

    def memory_needed(self, size, batch=1, window=None):
        return memory.estimate(*size, self.network, batch)

    def run(self, image, mask, output="inpainted"):
        self.seen.append((image, mask))
        return np.full(image.shape, self.value, np.float32)


def plan_of(inpainter: Inpainter, missing: np.ndarray, region: Region = "auto") -> Plan:
    """What an inpainter would show its engine."""
    with inpainter._admit(lambda limits: plan_image(missing, region, limits)) as (plan, _):
        return plan


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_engine_that_overflows_is_an_error_not_a_black_picture(photo, hole, value):
    inpainter = Inpainter(Constant(value), NetworkConfig(ngf=8))
    for call in (inpainter, inpainter.predict):
        with pytest.raises(EngineError, match="not finite; nothing was written"):
            call(photo, hole)


@pytest.mark.parametrize(("value", "expected"), [(-0.5, 0), (0.0, 0), (0.5, 128), (1.0, 255), (1.5, 255)])
def test_predictions_are_rounded_and_clipped_not_wrapped(photo, hole, value, expected):
    assert (Inpainter(Constant(value), NetworkConfig(ngf=8))(photo, hole)[hole] == expected).all()


def test_an_image_of_16_bits_is_filled_with_16_bits(inpainter, photo, hole):
    rng = np.random.default_rng(0)
    deep = photo // 2 * np.uint16(257) + rng.integers(0, 257, photo.shape, np.uint16)
    result = inpainter(deep, hole, region="full")
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result[~hole], deep[~hole])
    expected = np.rint(inpainter.predict(deep, hole) * np.float32(65535))
    # another order of summation, next to a rounding: 1e-6 of the range is 0.07 of a step
    assert np.abs(result[hole] - expected[hole]).max() <= 1
    assert np.unique(result[hole] % 257).size > 100
    same = inpainter(photo * np.uint16(257), hole, region="full")
    # the same inputs but for the last digit of float32; half a step of 8 bits is lost by rounding
    assert np.abs(same[hole] / 257 - inpainter(photo, hole, region="full")[hole]).max() < 0.51


def test_a_graph_of_bytes_and_tiles_fill_an_image_of_16_bits_with_8(tiny, make_bundle, one, photo, hole, monkeypatch):
    deep = photo.astype(np.uint16) * 257
    result = glama_deploy.load(make_bundle(tiny, io="uint8").path, "openvino")(deep, hole)
    np.testing.assert_array_equal(result[~hole], deep[~hole])
    assert not (result % 257).any()

    monkeypatch.setattr(planning, "plan_images", lambda *_: Plan([], {bounding_box(hole): (64, 64)}, 0))
    tiled = one(deep, hole)
    np.testing.assert_array_equal(tiled, one(photo, hole).astype(np.uint16) * 257)


def test_padding_is_symmetric_at_the_bottom_and_the_right():
    runner = Constant(0.5)
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (18, 21, 3), np.uint8), rng.random((18, 21)) < 0.5
    Inpainter(runner, NetworkConfig(ngf=8))(image, mask)
    ((planar, padded_mask),) = runner.seen
    assert planar.shape == (1, 3, 24, 24)
    assert padded_mask.shape == (1, 1, 24, 24)
    expected = image.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(planar[0].transpose(1, 2, 0)[:18, :21], expected)
    np.testing.assert_array_equal(planar[0, :, 18:24], planar[0, :, 12:18][:, ::-1])
    np.testing.assert_array_equal(planar[0, :, :, 21:24], planar[0, :, :, 18:21][:, :, ::-1])
    np.testing.assert_array_equal(padded_mask[0, 0, 18:24], padded_mask[0, 0, 12:18][::-1])


def test_an_image_outside_the_engines_sizes_names_the_range_and_the_remedy(photo, hole):
    small = SizeRange(min=(16, 16), opt=(32, 32), max=(64, 64))
    with pytest.raises(
        ImageError, match=r"96x120, this engine takes 16x16…64x64; export again with `max_size=96x120`, or"
    ):
        Inpainter(Constant(0.5, small), NetworkConfig(ngf=8))(photo, hole, region="full")
    static = SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64))
    with pytest.raises(ImageError, match=r"60x50 \(padded to 64x56\), this engine takes 64x64; .*`size=64x56`"):
        Inpainter(Constant(0.5, static), NetworkConfig(ngf=8))(photo[:60, :50], hole[:60, :50])


def test_an_image_that_does_not_fit_into_memory_is_refused_before_the_work(photo, hole, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    runner = Constant(0.5)
    with pytest.raises(ImageError, match=r"needs about .* GB, 0\.0 GB are free"):
        Inpainter(runner, NetworkConfig())(photo, hole)
    assert not runner.seen


def test_what_an_engine_holds_since_it_ran_is_there_for_the_next_image(photo, hole, monkeypatch):
    network, runner = NetworkConfig(), Constant(0.5)
    height, width = photo.shape[:2]
    once = runner.memory_needed((height, width))
    monkeypatch.setattr(memory, "available", lambda: once * 3 // 2 - (once if runner.seen else 0))
    inpainter = Inpainter(runner, network)
    for _ in range(2):
        inpainter(photo, hole, region="full")
    with pytest.raises(ImageError, match="2 at once, and needs about"):
        inpainter.batch(np.stack([photo] * 2), np.stack([hole] * 2))
    small = np.ascontiguousarray(photo[: height - 16]), np.ascontiguousarray(hole[: height - 16])
    inpainter(*small, region="full")


def test_memory_that_an_engine_freed_is_not_counted_twice(photo, hole, monkeypatch):
    network, runner = NetworkConfig(), Constant(0.5)
    once = runner.memory_needed(photo.shape[:2])
    free = once * 3 // 2
    monkeypatch.setattr(memory, "available", lambda: free)
    inpainter = Inpainter(runner, network)
    inpainter(photo, hole, region="full")
    free -= once
    small = np.ascontiguousarray(photo[:32]), np.ascontiguousarray(hole[:32])
    runner.holder = "another model"  # which holds a third, and the first gave all back
    free += once - once // 3
    inpainter(*small, region="full")
    with pytest.raises(ImageError, match="2 at once, and needs about"):
        inpainter.batch(np.stack([photo] * 2), np.stack([hole] * 2))
    inpainter(photo, hole, region="full")


def test_a_batch_is_its_images_one_by_one(inpainter, photo, hole):
    images, masks = np.stack([photo, photo[::-1]]), np.stack([hole, hole[:, ::-1]])
    together = inpainter.batch(images, masks)
    for image, mask, filled in zip(images, masks, together, strict=True):
        assert (filled[~mask] == image[~mask]).all()
        alone = inpainter(np.ascontiguousarray(image), np.ascontiguousarray(mask), region="full")
        assert np.abs(filled.astype(int) - alone).max() <= 1  # another order of summation, next to a rounding


def test_a_batch_that_is_none_or_too_large_is_one_line(one, photo, hole):
    with pytest.raises(ImageError, match=r"as many images .* as masks"):
        one.batch(photo[None], np.stack([hole, hole]))
    with pytest.raises(ImageError, match="at least 1"):
        one.batch(photo[None][:0], hole[None][:0])
    few = SizeRange(min=(16, 16), opt=(96, 120), max=(96, 120), max_batch=1)
    with pytest.raises(ImageError, match="2 images at once, this engine takes 1"):
        Inpainter(Constant(0.5, few), NetworkConfig(ngf=8)).batch(np.stack([photo] * 2), np.stack([hole] * 2))


class Numbered(Constant):
    """A runner that paints with the number of its run, from 1, and notes the shape of what it is shown."""

    io = "uint8"

    def __init__(self) -> None:
        super().__init__(0.0)

    def run(self, image, mask, output="inpainted"):
        self.seen.append(image.shape)
        return np.full(image.shape, len(self.seen), np.uint8)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["auto", "crop"]))
def test_holes_that_overlap_are_filled_once_each_pixel_with_the_first(seed, region):
    rng = np.random.default_rng(seed)
    missing = np.zeros((600, 700), bool)
    for _ in range(rng.integers(1, 6)):  # frames, and specks within them
        (top, bottom), (left, right) = (np.sort(rng.integers(0, extent, 2)) for extent in missing.shape)
        missing[top : bottom + 3, left : right + 3] = True
        missing[top + 3 : bottom, left + 3 : right] = False
    missing[rng.integers(0, 600, 20), rng.integers(0, 700, 20)] = True
    inpainter = Inpainter(Numbered(), NetworkConfig(ngf=8))
    plan = plan_of(inpainter, missing, region)
    expected = np.zeros(missing.shape, np.uint8)
    assert not plan.tiles
    for number, batch in enumerate(plan.batches, 1):
        for box in batch:
            here = expected[box.hole.slices]
            here[(here == 0) & missing[box.hole.slices]] = number
    assert (expected[missing] > 0).all()
    filled = inpainter(np.zeros((600, 700, 3), np.uint8), missing, region=region)
    np.testing.assert_array_equal(filled, np.repeat(expected[..., None], 3, axis=2))


#: The embedded network, whose Fourier transforms are over half of the image's sides, and LaMa.
NETWORKS = [NetworkConfig(ngf=32, n_blocks=4, n_downsampling=1, ratio=0.5, fill="pull-push"), NAMED["lama"]]


def text(count: int) -> np.ndarray:
    """A tall page with evenly spaced lines of text."""
    missing = np.zeros((15000, 800), bool)
    for number in range(count):
        top = int((number + 0.5) * 15000 / count)
        missing[top : top + 24, 200:600] = True
    return missing


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("compiles_sizes", [False, True])
def test_a_tall_page_with_many_lines_costs_in_proportion(network, compiles_sizes, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)  # all that is wanted
    runner = Constant(0.5)
    runner.compiles_sizes = compiles_sizes
    inpainter = Inpainter(runner, network)
    costs = []
    for count in (20, 41):
        plan = plan_of(inpainter, text(count))
        boxes = [box for batch in plan.batches for box in batch]
        assert not plan.tiles
        assert max(box.pixels for box in boxes) <= LARGE_BOX_PIXELS
        costs.append(total_cost(boxes))
    assert costs[1] <= 2.1 * costs[0]  # 41 / 20


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("compiles_sizes", [False, True])
@pytest.mark.parametrize("count", [41, 60, 80])
def test_a_page_of_12_megapixels_is_never_shown_whole_for_its_lines(network, compiles_sizes, count, monkeypatch):
    """Tall and wide. Boxes of LaMa cost up to twice as much, and need a tenth of the memory or less."""
    monkeypatch.setattr(memory, "available", lambda: None)
    runner = Constant(0.5)
    runner.compiles_sizes = compiles_sizes
    for missing in (text(count), text(count).T):
        plan = plan_of(Inpainter(runner, network), missing)
        shown = [box.pixels for batch in plan.batches for box in batch]
        shown += [height * width for height, width in plan.tiles.values()]
        assert max(shown) <= LARGE_BOX_PIXELS


@pytest.mark.parametrize("network", NETWORKS)
def test_a_long_strip_is_filled_by_tiles_that_are_no_wider_than_it_needs(network, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    missing = np.zeros((15000, 800), bool)
    missing[500:14500, 380:420] = True
    monkeypatch.setattr(boxes, "MAX_CONTEXT_PIXELS", 9999)  # so much context that the box is the whole image
    plan = plan_of(Inpainter(Constant(0.5), network), missing)
    assert (plan.batches, plan.tiles) == ([], {bounding_box(missing): (2048, 192)})


def test_tiles_of_a_long_strip_show_less_than_the_image(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    missing = np.zeros((8000, 500), bool)
    missing[500:7500, 230:270] = True
    monkeypatch.setattr(boxes, "MAX_CONTEXT_PIXELS", 9999)  # so much context that the box is the whole image
    runner = Numbered()
    filled = Inpainter(runner, NETWORKS[0])(np.zeros((8000, 500, 3), np.uint8), missing)
    assert (filled[missing] > 0).all()
    assert not filled[~missing].any()
    assert {shape[1:3] for shape in runner.seen} == {(2048, 192)}
    assert len(runner.seen) * 2048 * 192 < missing.size  # the box around the strip is the whole image


def test_a_compact_hole_is_filled_at_once_where_it_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    missing = np.zeros((2000, 3000), bool)
    missing[500:1500, 1000:2000] = True
    for network in NETWORKS:
        plan = plan_of(Inpainter(Constant(0.5), network), missing)
        assert not plan.tiles
        assert len(plan.batches) == 1


def test_no_more_is_shown_at_once_however_many_holes_there_are(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    missing = np.zeros((2000, 3000), bool)
    missing[50:2000:150, 50:3000:150] = True
    runner = Numbered()
    Inpainter(runner, NETWORKS[0])(np.zeros((2000, 3000, 3), np.uint8), missing)
    assert len(runner.seen) > 10
    assert max(batch * height * width for batch, height, width, _ in runner.seen) <= LARGE_BOX_PIXELS


def test_frames_of_one_mask_are_filled_as_one_by_one(one, photo, hole):
    frames = np.stack([photo, photo[::-1], photo[:, ::-1]])
    expected = np.stack([one(frame, hole, region="crop") for frame in frames])
    filled = one.fill_frames(frames, hole, region="crop")
    np.testing.assert_array_equal(filled[:, ~hole], frames[:, ~hole])
    # a batch is summed in another order, which may round a value to the next step
    assert np.abs(filled.astype(int) - expected).max() <= 1
    with pytest.raises(ImageError, match="batch × height × width × 3 are expected"):
        one.fill_frames(photo, hole)


def test_frames_run_together_as_far_as_the_engine_and_the_memory_allow():
    hole = np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    sizes = SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64), max_batch=2)
    runner = Constant(0.5, sizes=sizes)
    Inpainter(runner, NetworkConfig(ngf=8)).fill_frames(np.zeros((5, 64, 64, 3), np.uint8), hole)
    assert [len(images) for images, _ in runner.seen] == [2, 2, 1]
