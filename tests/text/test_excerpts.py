from __future__ import annotations

import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.io.files import check_path
from glama_deploy.text.excerpts import describe_error, excerpt, first_line, last_line, quoted

EXPLOSIVE: tuple[object, ...] = ()
for _ in range(60):
    EXPLOSIVE = (EXPLOSIVE, EXPLOSIVE)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("model.1.weight", "model.1.weight"),
        ("größe 図", "größe 図"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\ud800", r"\ud800"),
        ("a\u202eb\udcff", r"a\u202eb\xff"),  # as every error's text escapes them
        ("x" * 81, "x" * 79 + "…"),
        ("x" * 80, "x" * 80),
        (True, "True"),
        (1.5, "1.5"),
        (None, "None"),
        (EXPLOSIVE, "a tuple"),  # its repr has 10^18 characters
    ],
)
def test_an_excerpt_is_short_and_printable(value, shown):
    assert excerpt(value) == shown


def test_an_integer_that_python_does_not_print_is_shown_by_its_length():
    assert excerpt(1 << 16_609) == "an integer of 16610 bits"


def test_escapes_count_towards_the_length():
    assert len(excerpt("\x1b" * 1000)) == 80


def test_strings_are_quoted_and_others_are_not():
    assert (quoted("a"), quoted(1)) == ("'a'", "1")


def test_an_exception_is_described_by_its_class_and_first_line():
    assert describe_error(OSError("disk full\nand more")) == "OSError: disk full"
    assert describe_error(MemoryError()) == "MemoryError: no reason is given"
    assert describe_error(ValueError("a" * 50), limit=10) == "ValueError: aaaaaaaaa…"
    assert describe_error(ValueError("red \x1b[31m")) == r"ValueError: red \x1b[31m"


def test_the_first_line_of_an_exception():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert (last_line(ValueError("one\ntwo\n")), last_line(ValueError(" \n"))) == ("two", "ValueError")


def test_a_path_that_is_too_long_is_cut(tmp_path):
    with pytest.raises(GlamaError, match=r"x… \(\d+ characters\): File name too long; check the path") as caught:
        check_path(tmp_path / ("x" * 5000))
    assert len(str(caught.value)) < 300
