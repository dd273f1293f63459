"""Methods of an evaluation: engines, classical inpainting, and those that cannot run here."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.metrics.pairs import REGIONS
from glama_deploy.evaluation.report import tables


def test_interpolation_takes_known_pixels_on_one_line():
    from glama_deploy.evaluation.methods import interpolation

    image = np.full((16, 16, 3), 9, np.uint8)
    missing = np.ones((16, 16), bool)
    missing[3] = False
    np.testing.assert_array_equal(interpolation(np.where(missing[..., None], np.uint8(0), image), missing), image)


def test_a_method_that_fails_on_one_image_keeps_the_results_of_the_others(photos, tiny, make_bundle, tmp_path, ask):
    fixed = make_bundle(tiny, ("onnx",), size=(64, 72))
    summary = evaluate(ask(photos, tmp_path / "out", f"fixed={fixed.path}@onnxruntime:cpu", "telea"))
    (failure,) = summary.failures
    assert failure.startswith("photos/more/c.png, EveryNLines, ThickStrokes: fixed: the image is 56x80")
    counts = {c.method: c.value.n for c in summary.cells}
    assert counts == {"fixed": 2, "telea": 3}
    for table in tables.make_tables(summary):  # a mean of other images is no better or worse
        assert [entry.best for _, _, entries in table.rows for entry in entries] == [False] * 6
        *of_masks, mean = table.rows[0][2]
        assert all(entry.text.endswith(" (2 of 3 images)") for entry in of_masks)
        assert mean.text == tables.NO_RESULT


def test_a_method_that_cannot_run_here_has_a_row_with_the_reason(photos, tiny_bundle, tmp_path, ask):
    models = (f"gpu={tiny_bundle.path}@tensorrt", f"half={tiny_bundle.path}@emulated/fp16", "telea")
    summary = evaluate(ask(photos, tmp_path / "out", *models))
    assert [method.label for method in summary.protocol.methods] == ["telea"]
    assert list(summary.refused) == ["gpu", "half"]
    assert "has no fp16 graph" in summary.refused["half"]
    assert summary.remarks[0].startswith("gpu is not computed: ")
    row = "| photos | gpu | not computed | not computed |"
    assert (tmp_path / "out" / "RESULTS.md").read_text().count(row) == len(REGIONS)
    with pytest.raises(GlamaError, match="`reference` gpu does not run here"):
        evaluate(ask(photos, tmp_path / "none", *models, reference="gpu"))
    assert not (tmp_path / "none").exists()


def test_a_half_graph_is_emulated(photos, tiny, make_bundle, tmp_path, ask):
    half = make_bundle(tiny, ("onnx",), precision="fp16")
    asked = ask(photos, tmp_path / "out", f"fp32={tiny}@torch", f"fp16={half.path}@emulated", reference="fp32")
    summary = evaluate(asked)
    assert summary.protocol.methods[1].description == "fp16 emulated on a CPU"
    changes = [c.change.mean for c in summary.cells if c.method == "fp16" and c.metric == "psnr"]
    assert max(map(abs, changes)) < 0.5  # untrained and small; some values round otherwise
    assert any(changes)
