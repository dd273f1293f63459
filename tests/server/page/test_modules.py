"""The page's boxes and padding follow the rules of glama_deploy.inpainting, and its code stays small."""

from __future__ import annotations

import gzip
import re
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pytest

import glama_deploy
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.export.web.site import strip_doc_comments
from glama_deploy.inpainting.boxes import Box, Rule, Span, find_holes, find_need
from glama_deploy.inpainting.windows import find_window
from glama_deploy.network import NAMED, NetworkConfig

PAGE = Path(glama_deploy.__file__).parent / "server" / "page"

#: What a browser downloads of the own code of glama-serve's page, and of a site's page with its engine.
MAX_COMPRESSED_BYTES = 60_000


def plan(screen, missing: np.ndarray) -> list[dict[str, dict[str, int]]]:
    """Return the page's boxes of a mask, bool H×W."""
    height, width = missing.shape
    rows, columns = np.nonzero(missing)
    return screen.page.evaluate(
        """async ([width, height, places]) => {
            const data = new Uint8Array(width * height);
            for (const place of places) data[place] = 1;
            return (await import("/page/picture/boxes.js")).planBoxes({data, width, height});
        }""",
        [width, height, (rows * width + columns).tolist()],
    )


def edges(rect: dict[str, int]) -> tuple[int, int, int, int]:
    return rect["top"], rect["left"], rect["bottom"], rect["right"]


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    """Masks of one hole to five, of several sizes, at random places."""
    rng, made = np.random.default_rng(3), []
    for _ in range(40):
        height, width = rng.integers(30, 900, 2)
        missing = np.zeros((height, width), bool)
        for _ in range(rng.integers(1, 6)):
            y, x, tall, wide = rng.integers(0, (height, width, height // 3 + 1, width // 3 + 1))
            missing[y : y + 1 + tall, x : x + 1 + wide] = True
        made.append(missing)
    return made


def merge_in_python(missing: np.ndarray) -> list[Box]:
    found, _ = Rule(ANY_SIZE).find_boxes(missing)
    return Rule(ANY_SIZE).merge_boxes(found, missing.shape)


def test_boxes_their_holes_and_their_context_are_those_of_python(screen, masks):
    two = np.zeros((200, 400), bool)
    two[90:106, 80:96] = two[90:106, 240:256] = True  # their boxes are 16 pixels apart, and cost less as one
    assert len(merge_in_python(two)) == 1
    for missing in (*masks, two):
        boxes, expected = plan(screen, missing), merge_in_python(missing)
        assert len(boxes) == len(expected)
        for box, own in zip(boxes, expected, strict=True):
            for part, span in (("hole", own.hole), ("need", own.need), ("span", own.span)):
                assert edges(box[part]) == (span.top, span.left, span.bottom, span.right)


def test_boxes_contain_every_hole_with_its_context_and_have_edges_at_multiples_of_8(screen, masks):
    for missing in masks:
        height, width = missing.shape
        boxes, shown = plan(screen, missing), np.zeros_like(missing)
        for box in boxes:
            top, left, bottom, right = edges(box["span"])
            assert 0 <= top < bottom <= height
            assert 0 <= left < right <= width
            for first, last, extent in ((top, bottom, height), (left, right, width)):
                assert (last - first) % 8 == 0 or last - first == extent
                assert first % 8 == 0 or last == extent
            hole = edges(box["hole"])
            shown[hole[0] : hole[2], hole[1] : hole[3]] = True
            need = edges(box["need"])
            assert top <= max(0, need[0])
            assert left <= max(0, need[1])
            assert bottom >= min(height, need[2])
            assert right >= min(width, need[3])
        assert shown[missing].all()
        for hole in find_holes(missing):
            need = find_need(hole)
            assert any(
                box["need"]["top"] <= need.top
                and box["need"]["left"] <= need.left
                and box["need"]["bottom"] >= need.bottom
                and box["need"]["right"] >= need.right
                for box in boxes
            )


def test_boxes_that_are_joined_cost_less_than_apart(screen, masks):
    def cost(rect: tuple[int, int, int, int]) -> int:
        return (rect[2] - rect[0]) * (rect[3] - rect[1]) + 64 * 64

    counts = []
    for missing in masks:
        height, width = missing.shape
        boxes, holes = plan(screen, missing), find_holes(missing)
        counts.append((len(boxes), len(holes)))
        apart = 0
        for hole in holes:
            sides = [min(side, extent) for side, extent in zip(find_need(hole).size, (height, width), strict=True)]
            apart += sides[0] * sides[1] + 64 * 64
        assert sum(cost(edges(box["span"])) for box in boxes) <= apart
    assert any(boxes < holes for boxes, holes in counts)
    assert any(boxes > 1 for boxes, _ in counts)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 30), (9, 41)])
def test_padding_is_symmetric_to_sides_that_a_network_takes(screen, height, width):
    pixels = np.arange(height * width * 4, dtype=np.int64).reshape(height, width, 4) % 251
    padding, padded = screen.page.evaluate(
        """async ([values, width, height]) => {
            const {computePadding, padSymmetric} = await import("/page/picture/boxes.js");
            const padding = computePadding(width, height);
            return [padding, [...padSymmetric(Uint8Array.from(values), width, height, 4, padding)]];
        }""",
        [pixels.ravel().tolist(), width, height],
    )
    bottom, right = padding["bottom"], padding["right"]
    assert (height + bottom, width + right) == (max(16, -(-height // 8) * 8), max(16, -(-width // 8) * 8))
    expected = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(np.reshape(padded, expected.shape), expected)


@pytest.mark.parametrize("kind", ["server", "site"])
def test_the_pages_code_is_small(kind):
    code = [path for path in PAGE.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg")]
    browser = {PAGE / "engine_browser.js", *(PAGE / "browser").iterdir()}
    others = browser if kind == "server" else {PAGE / "engine_server.js"}
    assert others <= set(code)
    loaded = set(code) - others
    assert len(loaded) > 20
    texts = {path: path.read_text(encoding="utf-8") for path in loaded}
    if kind == "site":
        texts |= {path: strip_doc_comments(text) for path, text in texts.items() if path.suffix == ".js"}
    sizes = [len(gzip.compress(text.encode(), mtime=0)) for text in texts.values()]
    assert sum(sizes) < MAX_COMPRESSED_BYTES


def test_a_site_leaves_out_comments_and_no_code():
    for path in PAGE.rglob("*.js"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        code = [line for line in lines if not re.match(r"\s*(/\*\*|\*)", line)]
        assert len(code) < len(lines)
        assert strip_doc_comments("".join(lines)) == "".join(code), path


def test_fills_whose_holes_overlap_are_undone_and_redone(screen):
    """Two crossing corners: their bounding boxes share pixels, and a box for both would be too large."""
    told = screen.page.evaluate(
        """async () => {
            const {Picture} = await import("/page/picture/picture.js");
            const {fillRectangle} = await import("/page/picture/shapes.js");
            const side = 1400, rgba = new Uint8ClampedArray(4 * side * side).fill(50);
            const picture = new Picture({width: side, height: side, rgba, channels: 3});
            const corners = [[100, 100, 130, 700], [100, 100, 700, 130], [650, 650, 680, 1250],
                             [650, 650, 1250, 680]];
            for (const [left, top, right, bottom] of corners) {
                const draw = (data, size) => fillRectangle(data, size, {x: left, y: top}, {x: right, y: bottom}, 1);
                picture.changeMask(draw);
            }
            let colour = 0;
            const fill = async ({rgba}) => ({rgba: new Uint8ClampedArray(rgba.length).fill(colour += 100), seconds: 0});
            const result = await picture.fill({fill});
            const first = picture.rgba.slice(), mask = picture.mask.data.slice();
            picture.applyFill(result);
            const second = picture.rgba.slice();
            const isSame = (one, other) => one.every((value, place) => value === other[place]);
            const steps = [picture.mask.isEmpty, isSame(second, first)];
            for (let n = 0; n < 3; n++) {
                picture.undo();
                steps.push(isSame(picture.rgba, first) && isSame(picture.mask.data, mask));
                picture.redo();
                steps.push(isSame(picture.rgba, second) && picture.mask.isEmpty);
            }
            return {boxes: result.boxes.map(({hole}) => hole), steps};
        }"""
    )
    one, other = told["boxes"]
    assert one["bottom"] > other["top"]
    assert one["right"] > other["left"]
    assert told["steps"] == [True, False, *[True] * 6]


@pytest.mark.parametrize(
    "network", [NAMED["lama"], NetworkConfig(ngf=8, n_downsampling=1), NetworkConfig(fine_blocks=2)]
)
def test_the_window_of_a_hole_is_that_of_python(screen, network):
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = 8 * rng.integers(2, 60, 2)
        top, left = rng.integers(height), rng.integers(width)
        hole = Span(top, left, rng.integers(top, height) + 1, rng.integers(left, width) + 1)
        found = screen.page.evaluate(
            """async ([hole, width, height, decoder]) =>
                (await import("/page/browser/pixels.js")).findWindow(hole, width, height, decoder)""",
            [
                {name: int(value) for name, value in asdict(hole).items()},
                int(width),
                int(height),
                {"reduction": network.reduction, "reach": network.decoder_reach},
            ],
        )
        assert edges(found) == astuple(find_window(hole, (height, width), network))
