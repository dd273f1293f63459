"""What is evaluated: the same holes for every method, on every run."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.protocol import Dataset, Identity, Protocol
from glama_deploy.masks import RANDOM_TYPES, TYPES


def asked(folder: Path, **changes: object) -> Protocol:
    settings = {
        "datasets": (Dataset(name="photos", folder=folder),),
        "methods": (Identity(label="telea", description="OpenCV 5"),),
        "masks": tuple(TYPES),
        "metrics": ("psnr",),
    }
    return Protocol(**{**settings, **changes})


def test_a_mask_is_a_function_of_its_name_the_image_s_and_the_seed():
    one = protocol.draw_missing("ThinStrokes", "more/c.png", 64, 80, 0)
    np.testing.assert_array_equal(one, protocol.draw_missing("ThinStrokes", "more/c.png", 64, 80, 0))
    for others in (("MediumStrokes", "more/c.png", 0), ("ThinStrokes", "c.png", 0), ("ThinStrokes", "more/c.png", 1)):
        name, image, seed = others
        assert (one != protocol.draw_missing(name, image, 64, 80, seed)).any()


def test_general_is_its_seven_kinds_and_a_mixture_a_column_of_its_own():
    assert protocol.expand_masks(["general"]) == tuple(TYPES)
    assert protocol.expand_masks(["random-attribute"]) == tuple(RANDOM_TYPES)
    assert protocol.expand_masks(["general", "random-attribute"]) == tuple(TYPES | RANDOM_TYPES)
    assert protocol.expand_masks(["unseen", "Expand", "unseen"]) == ("unseen", "Expand")
    with pytest.raises(GlamaError, match="unknown mask 'ThinStroke'; did you mean 'ThinStrokes'"):
        protocol.expand_masks(["general", "ThinStroke"])


def test_datasets_are_folders_with_images_below_them(photos, tmp_path):
    (one,) = protocol.find_datasets([str(photos)])
    assert one.name == photos.name
    assert [item.image for item in protocol.list_items(asked(photos))] == ["a.png", "b.png", "more/c.png"]
    two = protocol.find_datasets([f"faces={photos}", f"places={photos / 'more'}"])
    assert [dataset.name for dataset in two] == ["faces", "places"]
    for texts, says in (
        ([str(tmp_path)], "has no images"),
        ([str(tmp_path / "no")], "is no folder"),
        ([str(photos / "a.png")], "is no folder"),
        ([f"a={photos}", f"a={photos}"], "two datasets are called 'a'"),
    ):
        with pytest.raises(GlamaError, match=says):
            protocol.find_datasets(texts)


def test_pictures_are_kept_of_images_far_apart_each_with_another_mask(photos):
    items = protocol.list_items(asked(photos, shown=2))
    assert [item.shown for item in items] == ["Completion", None, "Expand"]
    assert [item.shown for item in protocol.list_items(asked(photos, shown=0))] == [None] * 3
    assert len(protocol.list_items(asked(photos, limit=2))) == 2


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(2, 12), st.integers(2, 12))
@example(height=16, width=29, rows=2, columns=7)  # the crop box began at -1.8e-15, which Pillow refuses
def test_a_size_is_cut_from_the_middle_in_that_shape(tmp_path_factory, height, width, rows, columns):
    """A photograph whose rows and columns say where they are: what is left lies evenly around its middle."""
    path = tmp_path_factory.mktemp("truth") / "a.png"
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack([y * 2, x * 2, y * 0], axis=2).astype(np.uint8)).save(path)
    found = protocol.read_truth(path, (rows * 8, columns * 8)).astype(float)
    assert found.shape == (rows * 8, columns * 8, 3)
    assert protocol.read_truth(path, None).shape == (height, width, 3)
    scale = min(height / rows, width / columns)
    for channel, side, cells in ((0, height, rows), (1, width, columns)):
        values = found[..., channel]
        # two a pixel; half a pixel, and what Lanczos rings at the ends, are left out of account
        assert values.mean() == pytest.approx(side - 1, abs=2.5)
        assert np.ptp(values.mean(axis=1 - channel)) <= 2 * min(side, scale * cells) + 3


def test_the_part_in_the_middle_never_leaves_the_picture():
    for sides in product(range(16, 91, 3), range(16, 91), range(16, 97, 8), range(16, 97, 8)):
        left, top, right, bottom = protocol._find_middle(sides[:2], sides[2:])
        assert 0 <= left < right <= sides[0]
        assert 0 <= top < bottom <= sides[1]


def test_a_broken_file_is_an_image_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ImageError):
        protocol.read_truth(tmp_path / "a.png", None)


def test_the_difference_of_two_protocols_names_the_changed_field(photos):
    one = asked(photos)
    assert one.difference(asked(photos)) == ""
    assert one.difference(asked(photos, size=(64, 64))) == "size 64, 64, not None"
    assert one.difference(asked(photos, seed=3)) == "seed 3, not 0"
    other = asked(photos, methods=(Identity(label="default", description="OpenVINO", digest="0123456789ab"),))
    assert one.difference(other) == "methods default (OpenVINO, 01234567), not telea (OpenCV 5)"


# ---------------------------------------------------------------- methods


def test_a_model_says_how_it_is_run_or_takes_every_backend_in_every_precision():
    def labels(
        *models: str, backends: tuple[str, ...] = ("auto",), precisions: tuple[str, ...] = ("auto",)
    ) -> list[str]:
        return [spec.label for spec in methods.parse_methods(models, backends, precisions)]

    assert labels("default", "telea") == ["default", "telea"]
    assert labels("default", backends=("torch", "openvino")) == ["default torch", "default openvino"]
    assert labels("default@openvino/bf16", "x=default@torch") == ["default openvino bf16", "x"]
    assert labels("default", "telea", backends=("openvino",), precisions=("fp32", "bf16")) == [
        "default openvino fp32",
        "default openvino bf16",
        "telea",
    ]


def test_a_path_with_signs_in_it_is_a_path(tmp_path, tiny_bundle):
    path = tmp_path / "a=b@c"
    path.symlink_to(tiny_bundle.path)
    (spec,) = methods.parse_methods([str(path)], ["auto"], ["auto"])
    assert (spec.model, spec.label, spec.backend) == (str(path), "a=b@c", "auto")
    (spec,) = methods.parse_methods([f"x={path}@onnxruntime:cpu"], ["auto"], ["auto"])
    assert (spec.model, spec.label, spec.backend) == (str(path), "x", "onnxruntime:cpu")


def test_a_run_s_checkpoint_bears_the_run_s_name(tmp_path):
    for name in ("faces/best.pt", "places/step-00000100.pt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    models = [str(tmp_path / "faces/best.pt"), str(tmp_path / "places/step-00000100.pt")]
    assert [spec.label for spec in methods.parse_methods(models, ["auto"], ["auto"])] == ["faces", "places"]


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (["no-such"], "no bundle or checkpoint at no-such"),
        (["default@cudnn"], "unknown backend 'cudnn'"),
        (["default@openvino/fp8"], "unknown precision 'fp8'"),
        (["default", "default"], "two methods are called 'default'"),
    ],
)
def test_a_model_that_is_not_there_or_not_told_apart_is_refused(models, says):
    with pytest.raises(GlamaError, match=says):
        methods.parse_methods(models, ["auto"], ["auto"])


@pytest.mark.parametrize("name", methods.BASELINES)
def test_classical_inpainting_changes_only_missing_pixels(pair, name):
    truth, _, missing = pair
    given = np.where(missing[..., None], np.uint8(0), truth)
    found = methods.BASELINES[name](given, missing)
    np.testing.assert_array_equal(found[~missing], truth[~missing])
    # smooth sky around the hole: nothing black is left of it
    assert np.abs(found[missing].astype(float).mean(0) - truth[~missing].mean(0)).max() < 60
