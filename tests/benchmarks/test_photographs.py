"""The photographs for training can be had again from the packages that the credits name."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.quality import photographs
from glama_deploy.benchmarks.quality.photographs import (
    CREDITS,
    MORE_CREDITS,
    Photograph,
    list_credited,
    read_package,
    save_photograph,
)


def collection(version: int, files: dict[str, tuple[bytes, bool]]) -> bytes:
    """A Qt resource collection of one folder `a` with these files, some compressed, as `rcc --binary` writes it."""
    names, places = b"", []
    for name in ("a", *files):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    time = b"" if version == 1 else bytes(8)
    nodes = struct.pack(">IHII", 0, 2, 1, 1) + time + struct.pack(">IHII", places[0], 2, len(files), 2) + time
    data = b""
    for place, (content, squeezed) in zip(places[1:], files.values(), strict=True):
        nodes += struct.pack(">IHHHI", place, int(squeezed), 0, 1, len(data)) + time
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if squeezed else content
        data += struct.pack(">I", len(stored)) + stored
    head = 20 if version < 3 else 24
    offsets = head, head + len(nodes), head + len(nodes) + len(data)
    return struct.pack(">4s4I", b"qres", version, *offsets) + bytes(head - 20) + nodes + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_photograph_is_found_in_a_package_and_in_its_resources(tmp_path, version):
    package = tmp_path / "package" / "usr" / "share"
    package.mkdir(parents=True)
    Image.new("RGB", (2000, 1536), (10, 200, 30)).save(package / "large.png")
    small = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    content = (tmp_path / "small.png").read_bytes()
    (package / "all.rcc").write_bytes(collection(version, {"b.png": (content, False), "č.png": (content, True)}))
    files = read_package(tmp_path / "package")
    save_photograph(Photograph("package", "share/large.png", held_out=False), files, tmp_path / "out")
    for name in ("a/b.png", "a/č.png"):
        save_photograph(Photograph("package", name, held_out=True), files, tmp_path / "out")
    with Image.open(tmp_path / "out" / "photos" / "package-share_large.png") as image:
        assert image.size == (1000, 768)
    for name in ("package-a_b.png", "package-a_č.png"):
        with Image.open(tmp_path / "out" / "held-out" / name) as image:
            np.testing.assert_array_equal(np.asarray(image), small)
    with pytest.raises(SystemExit, match=r"package has no gone\.png"):
        save_photograph(Photograph("package", "gone.png", held_out=False), files, tmp_path / "out")


def test_a_photograph_is_found_in_an_archive_of_game_data(tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    (tmp_path / "package").mkdir()
    with zipfile.ZipFile(tmp_path / "package" / "textures.pk3", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "small.png", "textures/wall.png")
        archive.writestr("textures/other.png", b"never read")
    files = read_package(tmp_path / "package")
    save_photograph(Photograph("package", "textures/wall.png", held_out=False), files, tmp_path / "out")
    with Image.open(tmp_path / "out" / "photos" / "package-textures_wall.png") as image:
        np.testing.assert_array_equal(np.asarray(image), small)


def test_credits_without_photographs_are_refused(tmp_path):
    (tmp_path / "credits.md").write_text("# Credits\n\nNone.\n", encoding="utf-8")
    for name, reason in (("credits.md", "has no table of photographs"), ("gone.md", "is not a file")):
        command = [sys.executable, photographs.__file__, "--out", tmp_path / "out", "--credits", tmp_path / name]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 2
        assert reason in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_credits_name_every_photograph_with_its_package():
    found = list(list_credited(CREDITS.read_text(encoding="utf-8")))
    assert len(found) == len({photograph.name for photograph in found}) == 134 + 12
    assert sum(photograph.held_out for photograph in found) == 12
    assert {photograph.package for photograph in found} == {
        "gcompris-qt-data",
        "lomiri-wallpapers-16.04",
        "lomiri-wallpapers-20.04",
        "torcs-data",
        "tuxpaint-data",
    }


def test_more_photographs_are_credited_and_none_is_listed_twice():
    """Each row has an author and a free licence, or a photograph could not be used with attribution."""
    text = MORE_CREDITS.read_text(encoding="utf-8")
    found = list(list_credited(text))
    assert len(found) == len({photograph.name for photograph in found}) == 141 + 15
    assert sum(photograph.held_out for photograph in found) == 15
    trained_on = set(list_credited(CREDITS.read_text(encoding="utf-8")))
    assert not trained_on & set(found)
    free = {"CC0 1.0", "CC BY 3.0", "CC BY-SA 3.0", "GPL 2.0", "GPL 2.0 or later", "LGPL 3.0", "public domain"}
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(found)
    assert all(len(row) == 3 and row[1].strip() for row in rows)
    assert {row[2].strip() for row in rows} <= free
