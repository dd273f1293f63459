"""The photographs that the embedded network was trained on can be had again."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.quality.photographs import (
    CREDITS,
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
