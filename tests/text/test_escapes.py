"""Names from elsewhere stay one harmless line, in errors and on terminals."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glama_deploy.cli.entry import _OneLineFormatter
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.streams import as_encodable
from glama_deploy.errors import CheckpointError
from glama_deploy.text.escapes import escape_controls, shorten_words


@pytest.mark.parametrize(
    ("unsafe", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028\u2069", r"\u2028\u2069"),
        ("\udcff\udc80", r"\xff\x80"),  # bytes of a file name, as os.fsdecode has them
        ("\ud800", r"\ud800"),
        ("Größe [red] 写真 ≥", "Größe [red] 写真 ≥"),
    ],
)
def test_unsafe_characters_are_escaped_once(unsafe, shown):
    assert escape_controls(unsafe) == shown
    assert escape_controls(shown) == shown
    assert str(CheckpointError(f"{unsafe} is damaged")) == f"{shown} is damaged"


@given(st.text(st.characters()))
def test_whatever_is_escaped_is_one_line_that_utf8_can_write(text):
    escaped = escape_controls(text)
    escaped.encode("utf-8")
    assert len(escaped.splitlines()) <= 1
    assert all(character.isprintable() or character > "\x9f" for character in escaped)


def test_a_word_of_thousands_of_characters_is_shortened():
    text = f"--size is {'9' * 5000}x16; expected HxW"
    assert shorten_words(text) == f"--size is {'9' * 40}...(4924 more)...{'9' * 36}x16; expected HxW"
    assert shorten_words("x" * 1000) == "x" * 1000


def test_notes_are_escaped_too():
    record = logging.LogRecord("glama_deploy", logging.WARNING, "", 0, "%s cannot be read", ("a\n\x1b[2J.png",), None)
    assert _OneLineFormatter("note: %(message)s").format(record) == r"note: a\n\x1b[2J.png cannot be read"


@pytest.mark.parametrize(("encoding", "at_least"), [("ascii", ">="), ("cp1252", ">="), ("utf-8", "≥")])
def test_a_console_prints_what_its_encoding_can_show(monkeypatch, encoding, at_least):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", screen)
    Console(width=60).print("[red]\x1b[1m :smile: ≥ 16…", "写" if encoding == "utf-8" else "")
    screen.flush()
    shown = screen.buffer.getvalue().decode(encoding).rstrip()
    assert shown.startswith(rf"[red]\x1b[1m :smile: {at_least} 16")


def test_characters_without_a_lookalike_become_escapes():
    assert as_encodable("±1 × 写…", "ascii") == r"+-1 x \u5199..."
    assert as_encodable("é…", "cp1252") == "é…"
    assert as_encodable("≥", "latin-1") == ">="
