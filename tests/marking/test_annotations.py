"""Objects of COCO and LabelMe files, found by the names of pictures."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from glama_deploy.errors import GlamaError
from glama_deploy.io.images import Picture
from glama_deploy.marking import Marks, read_annotations

HEIGHT, WIDTH = 30, 40

#: Corners on whole pixels, which all programs fill alike.
SQUARE = [4, 5, 20, 5, 20, 15, 4, 15]


def make_coco() -> dict:
    """A COCO file: a dog as a polygon and as run lengths of both forms, a cat, and a picture without objects."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    drawn[20:25, 30:38] = 1
    compressed = coco.encode(drawn)["counts"].decode()
    flat = drawn.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    size = [HEIGHT, WIDTH]
    annotations = [
        {"category_id": 7, "image_id": 1, "segmentation": [list(SQUARE)], "iscrowd": 0},
        {"category_id": 9, "image_id": 1, "segmentation": {"size": size, "counts": counts}, "iscrowd": 1},
        {"category_id": 9, "image_id": 2, "segmentation": {"size": size, "counts": compressed}, "iscrowd": 1},
    ]
    images = [("train/a.jpg", 1), ("train/b.jpg", 2), ("val/a.jpg", 3)]
    return {
        "images": [{"id": id, "file_name": name, "height": HEIGHT, "width": WIDTH} for name, id in images],
        "annotations": [{"id": 100 + at, "area": 1, "bbox": [], **each} for at, each in enumerate(annotations)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "Cat"}],
    }


def make_labelme(*shapes: dict, image: str = "a.jpg", height: int = HEIGHT, width: int = WIDTH) -> dict:
    return {"version": "5.5.0", "shapes": list(shapes), "imagePath": image, "imageHeight": height, "imageWidth": width}


def shape(kind: str | None, *points: tuple[float, float], label: str = "dog", **more: object) -> dict:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, **more}


@pytest.fixture
def write(tmp_path):
    """A function that writes a JSON file, and returns its path."""

    def write(document: object, name: str = "annotations.json") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return path

    return write


def find(path: Path, image: str | Path, *categories: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    marks = Marks(annotations=read_annotations(path), categories=categories)
    return marks.find_missing(Picture(np.zeros((height, width, 3), np.uint8), None, False, None), Path(image))


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_objects_of_a_coco_file_are_those_that_pycocotools_reads(write):
    path = write(make_coco())
    theirs = COCO(path)
    for image, id in (("train/a.jpg", 1), ("b.jpg", 2)):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        for annotation in theirs.imgToAnns[id]:
            expected |= theirs.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(find(path, image), expected)


def test_categories_choose_among_the_objects(write):
    path = write(make_coco())
    np.testing.assert_array_equal(find(path, "train/a.jpg", "dog"), box(4, 5, 20, 15))
    np.testing.assert_array_equal(find(path, "train/a.jpg", "Cat"), box(30, 20, 38, 25))
    both = find(path, "train/a.jpg", "Cat", "dog")
    np.testing.assert_array_equal(both, find(path, "train/a.jpg"))
    assert not find(path, "b.jpg", "dog").any()


def test_pictures_of_one_name_are_told_apart_by_their_folders(write):
    path = write(make_coco())
    assert find(path, "/data/train/a.jpg").any()
    assert not find(path, "/data/val/a.jpg").any()
    with pytest.raises(GlamaError, match=r"names 2 pictures a\.jpg; remove or rename one"):
        find(path, "/data/other/a.jpg")


def test_a_category_that_is_not_there_is_refused_with_near_names(write):
    path = write(make_coco())
    with pytest.raises(GlamaError, match=r"has no `category` 'cat'; did you mean 'Cat'\?"):
        find(path, "b.jpg", "cat")
    with pytest.raises(GlamaError, match="has no `category` 'elephant'; it has Cat, dog"):
        find(path, "b.jpg", "elephant")


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (shape("rectangle", (20, 15), (4, 5)), box(4, 5, 20, 15)),
        (shape("polygon", (4, 5), (20, 5), (20, 15), (4, 15)), box(4, 5, 20, 15)),
        (shape(None, (4, 5), (20, 5), (20, 15), (4, 15)), box(4, 5, 20, 15)),
    ],
    ids=["rectangle", "polygon", "no type"],
)
def test_shapes_of_labelme_are_drawn(write, drawn, expected):
    np.testing.assert_array_equal(find(write(make_labelme(drawn)), "a.jpg"), expected)


def test_a_circle_of_labelme_is_its_centre_and_a_point_of_its_edge(write):
    found = find(write(make_labelme(shape("circle", (20, 15), (23, 19)))), "a.jpg")
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    np.testing.assert_array_equal(found, np.hypot(x - 20, y - 15) <= 5)


@pytest.mark.parametrize(("left", "top"), [(7, 4), (-3, -2), (35, 27)])
def test_a_mask_of_labelme_lies_at_its_first_corner(write, left, top):
    drawn = np.random.default_rng(0).random((6, 9)) < 0.5
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    corners = (left, top), (left + 8, top + 5)
    whole = np.zeros((HEIGHT + 40, WIDTH + 40), bool)
    whole[top + 20 : top + 26, left + 20 : left + 29] = drawn
    found = find(write(make_labelme(shape("mask", *corners, mask=text))), "a.jpg")
    np.testing.assert_array_equal(found, whole[20 : 20 + HEIGHT, 20 : 20 + WIDTH])


@pytest.mark.parametrize("kind", ["line", "point", "linestrip", "points", "new"])
def test_shapes_without_an_area_are_refused_by_name(write, kind):
    path = write(make_labelme(shape("rectangle", (4, 5), (9, 9), label="cat"), shape(kind, (1, 2), (3, 4))))
    with pytest.raises(GlamaError, match=rf"shapes\[1\] \(dog\) is of the type '{kind}', which has no area"):
        find(path, "a.jpg")
    assert find(path, "a.jpg", "cat").any()  # a shape that is not asked for does no harm


def test_a_folder_of_labelme_files_pairs_by_the_picture_that_each_names(write, tmp_path):
    write(make_labelme(shape("rectangle", (4, 5), (20, 15)), image="..\\pictures\\a.jpg"), "all/1.json")
    write(make_labelme(shape("rectangle", (1, 1), (2, 2)), image="old name.jpg"), "all/x/b.json")
    assert find(tmp_path / "all", "pictures/a.jpg").sum() == 160
    assert find(tmp_path / "all", "b.png").sum() == 1  # by the name of the JSON file
    with pytest.raises(GlamaError, match=r"c\.jpg has no annotations: .*all names no picture c\.jpg"):
        find(tmp_path / "all", "c.jpg")


def test_the_size_of_the_picture_must_be_that_of_the_annotations(write):
    path = write(make_coco())
    with pytest.raises(GlamaError, match=r"is 31x40, and .* describes a picture of 30x40; give the picture"):
        find(path, "b.jpg", height=31)
    with pytest.raises(GlamaError, match=r"is 40x30, .* were made before the picture was turned upright"):
        find(path, "b.jpg", height=40, width=30)


def test_an_object_without_pixels_is_a_note(write, caplog):
    assert not find(write(make_labelme(shape("rectangle", (4.1, 5.1), (4.2, 5.2)))), "a.jpg").any()
    assert "a.jpg: an object of the category dog marks no pixel" in caplog.text


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{", "is not JSON"),
        ("\ud800".encode("utf-16", "surrogatepass").decode("latin-1"), "is not JSON"),
        ({"a": 1}, "neither of COCO .* nor of LabelMe"),
        (3, "neither of COCO"),
        ([{"image_id": 1, "segmentation": {}}], "COCO's results, which do not name the pictures"),
        ({"images": [], "annotations": []}, "has no field categories; a list is expected"),
        ({"images": 3, "annotations": [], "categories": []}, "has the images 3; a list is expected"),
        ({"images": ["x"], "annotations": [], "categories": []}, r"images\[0\] is 'x'; an object with the field id"),
        ({**make_labelme(), "imageHeight": None}, "has the imageHeight None; a number of pixels"),
        ({**make_labelme(), "imagePath": ""}, "the name of a picture's file is expected"),
        ({**make_labelme(), "shapes": [{"points": []}]}, r"shapes\[0\] has no field label"),
    ],
)
def test_files_of_another_kind_are_one_line(write, document, says):
    with pytest.raises(GlamaError, match=says) as error:
        read_annotations(write(document))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([], "annotation 100 has no segmentation, and a bbox is not drawn"),
        (None, "has no segmentation"),
        ([[1, 2, 3, 4]], "three or more corners"),
        ([[1, 2, 3, 4, 5]], "three or more corners"),
        ([[1, 2, 3, 4, 5, "x"]], "pairs of numbers"),
        ([[1, 2, 3, 4, 5, 1e300]], "far outside of every picture"),
        ("text", "a list of polygons, or an object"),
        ({"size": [HEIGHT, 3], "counts": [1]}, "has runs of the size"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2.5]}, "counts that are not whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "annotation 100 has runs of 5 pixels; a picture of 30x40 has 1200"),
        ({"size": [HEIGHT, WIDTH], "counts": "~"}, "annotation 100 has the character '~'"),
    ],
)
def test_damaged_segmentations_name_the_annotation(write, segmentation, says):
    document = make_coco()
    document["annotations"][0]["segmentation"] = segmentation
    path = write(document)
    with pytest.raises(GlamaError, match=says):
        find(path, "train/a.jpg")
    assert find(path, "b.jpg").any()


@pytest.mark.parametrize(("field", "value"), [("category_id", 8), ("image_id", 55)])
def test_annotations_of_nothing_are_refused(write, field, value):
    document = make_coco()
    document["annotations"][0][field] = value
    with pytest.raises(GlamaError, match=rf"annotations\[0\] has the {field} {value}, which is not among"):
        read_annotations(write(document))


def test_two_images_of_one_id_are_refused_and_ids_may_be_texts(write):
    document = make_coco()
    document["images"][2]["id"] = 1
    with pytest.raises(GlamaError, match=r"images\[2\] has the id 1 of another image"):
        read_annotations(write(document))
    document["images"][2]["id"] = document["annotations"][0]["image_id"] = "val/a"
    assert find(write(document), "val/a.jpg").sum() == 160


def test_a_path_without_annotations_is_refused(tmp_path):
    with pytest.raises(GlamaError, match="no annotations at"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(GlamaError, match=r"has no \.json files"):
        read_annotations(tmp_path)


#: Values that a damaged file may have in place of any other.
wrong_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


def list_places(document: object) -> list[tuple[object, object]]:
    """Return each container of a document with each of its keys."""
    if not isinstance(document, dict | list):
        return []
    keys = list(document) if isinstance(document, dict) else range(len(document))
    return [place for key in keys for place in ((document, key), *list_places(document[key]))]


@given(st.data(), st.sampled_from(["coco", "polygon", "rectangle", "circle", "mask"]), wrong_values)
def test_a_wrong_value_anywhere_is_an_error_of_one_line_or_does_no_harm(tmp_path_factory, data, kind, value):
    points = ((4, 5), (20, 15), (9, 19)) if kind == "polygon" else ((4, 5), (20, 15))
    document = make_coco() if kind == "coco" else make_labelme(shape(kind, *points, mask="iVBORw0KGgo="))
    container, key = data.draw(st.sampled_from(list_places(document)))
    container[key] = value
    path = tmp_path_factory.mktemp("wrong") / "a.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    message = ""
    try:
        assert find(path, "train/a.jpg").shape == (HEIGHT, WIDTH)
    except GlamaError as error:
        message = str(error)
    assert "\n" not in message
