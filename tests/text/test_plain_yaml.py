from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from glama_deploy.text import plain_yaml

#: Twenty levels of aliases stand for 10^20 values; the text has 500 bytes.
ALIAS_BOMB = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 21))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 21)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: {b: [1, 2.5, yes, ~, x]}", {"a": {"b": [1, 2.5, True, None, "x"]}}),
        ("indir: ${location.root}/train", {"indir": "${location.root}/train"}),
        ("when: 2024-99-99", {"when": "2024-99-99"}),
        ("when: 2024-12-31", {"when": "2024-12-31"}),
        ("a: =", {"a": "="}),
        ("'<<': 1", {"<<": 1}),
        ("", None),
    ],
)
def test_plain_yaml_is_read(text, value):
    assert plain_yaml.parse(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ALIAS_BOMB, "line 1: anchors and aliases"),
        (MERGE_BOMB, "line 1: anchors and aliases"),
        ("a: *b", "line 1: anchors and aliases"),
        ("a: 1\n<<: {b: 1}", "line 2: merge keys"),
        ("a: !!bool x", "line 1: tags"),
        ("a: !!int x", "line 1: tags"),
        ("a: !!timestamp x", "line 1: tags"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tags"),
        ("a: ! x", "line 1: tags"),
        ("[" * 5000, "line 1: more than 32 nested levels"),
        ("{a: " * 40 + "}" * 40, "line 1: more than 32 nested levels"),
        ("- " * 5000, "line 1: more than 32 nested levels"),
        ("a: 1\nb: 2\na: 3", "line 3: the key a is repeated"),
        ("? [1]\n: 2", "line 1: a key is a mapping or a list"),
        ("9" * 5000, "line 1: a number has 5000 characters"),
        ("a: " + "1:" * 4000 + "1", "line 1: a number has"),
        ("'" + "x" * 20_000 + "'", "line 1: a value has 20000 characters"),
        ("0x_", "invalid literal"),
        ('"\\UFFFFFFFF"', "too large"),
        ("a: \x1b[31m", "special characters"),
        ("--- 1\n--- 2", "line 2: but found another document"),
        ("a: [", "line 1: expected the node content"),
    ],
)
def test_full_yaml_is_refused_in_one_line_and_in_little_memory(text, says):
    tracemalloc.start()
    try:
        with pytest.raises(plain_yaml.PlainYamlError, match=says) as caught:
            plain_yaml.parse(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    assert peak < 4 << 20  # of texts of at most 20 kB


def test_a_file_past_the_bound_is_not_parsed(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_text("a: 1 #" + "x" * plain_yaml.MAX_YAML_BYTES, encoding="utf-8")
    with pytest.raises(plain_yaml.PlainYamlError, match="larger than 64 KiB"):
        plain_yaml.read(path)


def test_a_file_that_is_not_utf_8_or_cannot_be_read_is_refused_in_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(plain_yaml.PlainYamlError, match="byte 3 is not UTF-8"):
        plain_yaml.read(tmp_path / "latin.yaml")
    with pytest.raises(plain_yaml.PlainYamlError, match="directory"):
        plain_yaml.read(Path(tmp_path))
