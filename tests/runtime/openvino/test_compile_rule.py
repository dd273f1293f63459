"""When a size is compiled, told in seconds that the tests choose."""

from __future__ import annotations

import pytest

from glama_deploy.runtime.openvino.compile_rule import (
    FIRST_COMPILE_SECONDS,
    LARGE_PIXELS,
    MAX_SIZES,
    SAVED_SHARE,
    SAVED_SHARE_OF_PRODUCTS,
    CompileRule,
)

SIZE, OTHER = (1, 3, 64, 64), (1, 3, 64, 72)


def test_a_size_is_compiled_once_the_lost_seconds_equal_those_of_compiling():
    rule, enough = CompileRule(None), FIRST_COMPILE_SECONDS / SAVED_SHARE
    assert not rule.is_due(SIZE)
    rule.note_run(SIZE, 0.75 * enough)
    rule.note_run(OTHER, 0.75 * enough)
    assert not rule.is_due(SIZE)
    rule.note_run(SIZE, 0.25 * enough)
    assert rule.is_due(SIZE)
    assert not rule.is_due(OTHER)


def test_the_seconds_follow_what_compiling_took_on_this_machine():
    rule = CompileRule(None)
    rule.note_run(SIZE, 2.5 * FIRST_COMPILE_SECONDS / SAVED_SHARE)
    rule.note_compile(3 * FIRST_COMPILE_SECONDS)
    assert not rule.is_due(SIZE)
    rule.note_compile(2 * FIRST_COMPILE_SECONDS)
    assert rule.is_due(SIZE)


def test_a_size_is_compiled_the_later_the_less_that_saves():
    assert SAVED_SHARE_OF_PRODUCTS < SAVED_SHARE
    patient, rule = CompileRule(None, SAVED_SHARE_OF_PRODUCTS), CompileRule(None)
    ratio = patient.seconds_before_compile / rule.seconds_before_compile
    assert ratio == pytest.approx(SAVED_SHARE / SAVED_SHARE_OF_PRODUCTS)


def test_a_job_loses_at_most_one_compilation_against_a_job_that_knows_its_images():
    """For each number of images: the time with the rule, and the better of compiling at once and never."""
    run, compiling = 0.5, FIRST_COMPILE_SECONDS
    compiled = run * (1 - SAVED_SHARE)
    for images in range(1, 100):
        rule, spent, is_compiled = CompileRule(None), 0.0, False
        for _ in range(images):
            if not is_compiled and rule.is_due(SIZE):
                spent, is_compiled = spent + compiling, True
            spent += compiled if is_compiled else run
            if not is_compiled:
                rule.note_run(SIZE, run)
        best = min(images * run, compiling + images * compiled)
        # one run more, because a size is compiled between two runs
        assert spent <= best + compiling + run * SAVED_SHARE + 1e-9


def test_sizes_are_compiled_at_once_or_never_where_that_is_asked_for():
    at_once, never = CompileRule(True), CompileRule(False)
    assert at_once.is_due(SIZE)
    never.note_run(SIZE, 1e9)
    assert not never.is_due(SIZE)
    assert (at_once.is_immediate, never.is_immediate, CompileRule(None).is_immediate) == (True, False, False)


def test_each_removal_doubles_the_seconds_and_starts_the_size_anew():
    rule = CompileRule(None)
    before = rule.seconds_before_compile
    rule.note_run(SIZE, 3 * before)
    rule.note_removal(SIZE)
    assert rule.seconds_before_compile == pytest.approx(2 * before)
    assert not rule.is_due(SIZE)
    rule.note_run(SIZE, 2 * before)
    assert rule.is_due(SIZE)


def test_a_size_that_cannot_be_compiled_is_never_due():
    rule = CompileRule(None)
    rule.note_run(SIZE, 1e9)
    assert rule.is_due(SIZE)
    rule.note_failure(SIZE)
    rule.note_run(SIZE, 1e9)
    assert not rule.is_due(SIZE)
    rule.note_run(OTHER, 1e9)
    assert rule.is_due(OTHER)


def test_as_many_sizes_are_counted_as_are_needed():
    """A process that runs for months sees any number of sizes."""
    rule = CompileRule(None)
    for width in range(10 * MAX_SIZES):
        rule.note_run(SIZE, 0.1)
        rule.note_run((1, 3, 64, width), 0.1)
    assert len(rule._seconds) == MAX_SIZES
    assert rule.is_due(SIZE)  # a size that comes often is not forgotten
    for compile_sizes in (True, False):
        rule = CompileRule(compile_sizes)
        rule.note_run(SIZE, 0.1)
        assert not rule._seconds


def test_a_large_size_is_compiled_before_its_first_run_unless_no_size_is():
    rule = CompileRule(None)
    assert rule.is_due_at_first(LARGE_PIXELS)
    assert not rule.is_due_at_first(LARGE_PIXELS - 1)
    assert CompileRule(True).is_due_at_first(1)
    assert not CompileRule(False).is_due_at_first(LARGE_PIXELS)
    rule.note_removal(OTHER)  # more sizes than are kept
    assert not rule.is_due_at_first(LARGE_PIXELS)
    assert rule.is_due_at_first(2 * LARGE_PIXELS)
