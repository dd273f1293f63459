"""LPIPS and FID, which need files of weights."""

from __future__ import annotations

import shutil
from itertools import product

import numpy as np
import pytest
import torch

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import protocol
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.methods import telea
from glama_deploy.evaluation.metrics.pairs import REGIONS
from glama_deploy.evaluation.metrics.perceptual import compute_fid
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.protocol import Item
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.evaluation.run import Evaluator


@pytest.fixture(scope="module")
def perceived(photos, weights, tmp_path_factory, ask):
    """Two classical methods by the metrics that need weights: the request and its summary."""
    out = tmp_path_factory.mktemp("perceived") / "out"
    metrics = ("psnr", "lpips-alex", "lpips-vgg", "fid")
    asked = ask(photos, out, "telea", "navier-stokes", metrics=metrics, weights=weights, reference="telea")
    return asked, evaluate(asked)


def test_lpips_and_fid_come_out_where_their_weights_are(perceived):
    asked, summary = perceived
    assert summary.remarks == ()
    for metric, region, method in product(asked.metrics[1:], REGIONS, asked.models):
        cell = summary.cell("photos", method, asked.masks[0], metric, region)
        assert cell.value.n == 3
        assert np.isfinite(cell.value.mean)
        assert method == "telea" or cell.change.mean != 0


def test_fid_is_of_the_features_of_results_and_photographs(perceived, weights):
    asked, summary = perceived
    judge = Judge(("fid",), {"fid": weights / "weights-inception-2015-12-05-6726825d.pth"})
    mask = asked.masks[1]
    seen = np.empty((2, len(REGIONS), 3, 2048), np.float32)  # of truth and result
    for row, item in enumerate(protocol.list_items(summary.protocol)):
        image = protocol.read_truth(item.path, None)
        missing = protocol.draw_missing(mask, item.image, *image.shape[:2], 0)
        filled = telea(np.where(missing[..., None], np.uint8(0), image), missing)
        seen[:, :, row] = [judge.extract_features(each, [missing])[0] for each in (image, filled)]
    for number, region in enumerate(REGIONS):
        value = summary.cell("photos", "telea", mask, "fid", region).value.mean
        # float32, in other batches
        assert value == pytest.approx(compute_fid(seen[1, number], seen[0, number]), rel=1e-3)


def test_each_metric_of_a_set_compares_its_own_features(photos, weights, tmp_path, ask):
    changes = {"masks": ("EveryNLines",), "metrics": ("fid", "clean-fid"), "weights": weights, "limit": 2}
    summary = evaluate(ask(photos, tmp_path / "out", "telea", **changes))
    files = sorted((tmp_path / "out" / "features").rglob("*.npz"))
    seen = np.stack(
        [np.load(file)["mask EveryNLines"] for file in files], axis=2
    )  # [truth and result, region, image, D]
    assert seen.shape == (2, 2, 2, 4096)
    for metric, features in zip(("fid", "clean-fid"), np.split(seen, 2, axis=3), strict=True):
        for number, region in enumerate(REGIONS):
            value = summary.cell("photos", "telea", "EveryNLines", metric, region).value.mean
            assert value == compute_fid(features[1, number], features[0, number])


@pytest.mark.parametrize("name", ["file", "allow_pickle", "given"])
def test_masks_may_have_any_name(tmp_path, name):
    """Names of NumPy's arguments, too."""
    folder, features = Folder(tmp_path), np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    folder.save_features(Item(dataset="photos", folder=tmp_path, image="a.png"), {name: features})
    np.testing.assert_array_equal(folder.load_features(Record(dataset="photos", image="a.png"), name), features)


def test_features_that_are_lost_are_made_again_and_damaged_ones_are_named(perceived):
    asked, summary = perceived
    lost, damaged = (asked.out / "features" / "photos" / f"{image}.npz" for image in ("a.png", "b.png"))
    before = lost.read_bytes()
    lost.unlink()
    assert evaluate(asked) == summary
    assert lost.read_bytes() == before
    whole = damaged.read_bytes()
    damaged.write_bytes(b"cut off")
    with pytest.raises(GlamaError, match=r"b\.png\.npz is damaged; remove it"):
        evaluate(asked)
    damaged.write_bytes(whole)


def test_an_image_whose_metrics_fail_is_named_and_left_out(photos, weights, tmp_path, monkeypatch, ask):
    asked = ask(photos, tmp_path / "out", "telea", metrics=("psnr", "fid"), weights=weights)
    evaluation = Evaluator._extract_features

    def full(self: Evaluator, truth: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if truth.shape[:2] == (56, 80):
            raise RuntimeError("out of memory")
        return evaluation(self, truth, masks)

    monkeypatch.setattr(Evaluator, "_extract_features", full)
    summary = evaluate(asked)
    reason = "photos/more/c.png, EveryNLines, ThickStrokes: telea: the metrics failed: out of memory"
    assert summary.failures == (reason,)
    assert {cell.value.n for cell in summary.cells} == {2}


def test_a_metric_without_its_weights_is_named_and_the_others_are_computed(photos, tmp_path, monkeypatch, ask):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("psnr", "lpips-alex", "lpips-vgg", "fid")))
    assert {cell.metric for cell in summary.cells} == {"psnr"}
    assert [line.partition(" ")[0] for line in summary.remarks] == ["lpips-alex", "lpips-vgg", "fid"]
    assert all("not computed" in line and "\n" not in line for line in summary.remarks)
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "**LPIPS (AlexNet): not computed**: alexnet-owt-7be5be79.pth is neither in `weights` nor" in text
    with pytest.raises(GlamaError, match="fid is not computed"):
        evaluate(ask(photos, tmp_path / "none", "telea", metrics=("fid",)))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_weights_of_another_network_leave_the_results_that_are_there(photos, weights, tmp_path, capfd, processes, ask):
    out = tmp_path / "out"
    evaluate(ask(photos, out, "telea"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "weights").mkdir()
    shutil.copy(weights / "vgg16-397923af.pth", tmp_path / "weights" / "alexnet-owt-7be5be79.pth")
    changes = {"metrics": ("lpips-alex",), "weights": tmp_path / "weights", "processes": processes}
    with pytest.raises(GlamaError, match="holds the weights of another network"):
        evaluate(ask(photos, out, "telea", overwrite=True, **changes))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert "Traceback" not in capfd.readouterr().err


def test_other_weights_are_another_configuration(photos, weights, tmp_path, ask):
    asked = {"metrics": ("lpips-alex",), "weights": tmp_path / "weights"}
    file = tmp_path / "weights" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir()
    shutil.copy(weights / file.name, file)
    evaluate(ask(photos, tmp_path / "out", "telea", **asked))
    state = torch.load(file)
    state["features.0.bias"] += 1
    torch.save(state, file)
    with pytest.raises(GlamaError, match=r"another configuration \(weights lpips-alex \("):
        evaluate(ask(photos, tmp_path / "out", "telea", **asked))
