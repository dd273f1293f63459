from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glama_deploy.bundle import DEFAULT_PROFILE, SizeRange
from glama_deploy.catalogue import find_target
from glama_deploy.engines.tensorrt.engine import choose_profiles
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.engines.tensorrt.profiles import nest_profiles, parse_profiles
from glama_deploy.errors import GlamaError

SIDES = st.integers(2, 512).map(lambda n: 8 * n)


@st.composite
def ranges(draw: st.DrawFn) -> SizeRange:
    height, width = (sorted(draw(st.tuples(SIDES, SIDES, SIDES))) for _ in "hw")
    corners = [(height[index], width[index]) for index in range(3)]
    return SizeRange(min=corners[0], opt=corners[1], max=corners[2], max_batch=2)


def described(sizes: SizeRange) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [(profile.opt, profile.max) for profile in nest_profiles(sizes)]


def test_the_default_has_a_small_a_middle_and_a_large_profile():
    expected = [((256, 256), (384, 384)), ((512, 512), (1024, 1024)), ((1448, 1448), (2048, 2048))]
    assert described(DEFAULT_PROFILE) == expected


def test_height_and_width_follow_the_rule_independently():
    sizes = SizeRange(min=(64, 64), opt=(512, 768), max=(1080, 1920))
    assert described(sizes) == [((256, 384), (384, 576)), ((512, 768), (1024, 1536)), ((1048, 1712), (1080, 1920))]


def test_a_range_that_ends_at_its_opt_has_no_large_profile():
    assert described(SizeRange(min=(64, 64), opt=(512, 512), max=(512, 512)))[-1] == ((512, 512), (512, 512))


def test_a_range_that_begins_at_its_opt_has_no_small_profile():
    sizes = SizeRange(min=(512, 512), opt=(512, 512), max=(2048, 2048))
    assert described(sizes) == [((512, 512), (1024, 1024)), ((1448, 1448), (2048, 2048))]


@given(ranges())
def test_profiles_nest_and_the_last_takes_everything(sizes):
    found = nest_profiles(sizes)
    assert 1 <= len(found) <= 3
    assert found[-1].max == sizes.max
    assert sizes.opt in [profile.opt for profile in found]
    for smaller, larger in itertools.pairwise(found):
        assert smaller.max != larger.max
        assert all(a <= b for a, b in zip(smaller.max, larger.max, strict=True))
    for profile in found:
        assert profile.min == sizes.min
        assert profile.max_batch == 2
        SizeRange.model_validate(profile.model_dump())  # min ≤ opt ≤ max, multiples of 8


@given(SIDES, SIDES)
def test_a_static_engine_has_one_profile(height, width):
    sizes = SizeRange(min=(height, width), opt=(height, width), max=(height, width))
    assert nest_profiles(sizes) == (sizes,)


@pytest.mark.parametrize(("target", "asked", "count"), [("trt", "auto", 3), ("trt", "one", 1), ("trt-rtx", "auto", 1)])
def test_auto_is_three_profiles_for_tensorrt_and_one_for_tensorrt_rtx(target, asked, count):
    found = choose_profiles(find_target(target), DEFAULT_PROFILE, DEFAULT_PROFILE, Options(profiles=asked))
    assert len(found) == count
    assert found[-1].max == DEFAULT_PROFILE.max


def test_another_number_of_profiles_is_an_error():
    with pytest.raises(GlamaError, match="`profiles` is 'two'; expected auto, one, three"):
        parse_profiles("two")
