"""The Markdown files of the checkout lead somewhere. `make docs` checks the links between pages of the site, not its
pictures, and not the files outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])

#: README stays short: it is read in two minutes.
MAX_README_LINES, MAX_README_WORDS = 90, 700


def find_links(file: Path) -> list[str]:
    """Return the targets of a file's links and pictures that lie in the checkout, without anchors."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_and_picture_is_a_file(file):
    assert [link for link in find_links(file) if not (file.parent / link).is_file()] == []


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert len(text.split()) <= MAX_README_WORDS
