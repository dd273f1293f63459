"""What a run on a cluster refuses and chooses before Ray is asked. Ray need not be installed for these tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import glama_deploy
from glama_deploy.cli.inpaint import main
from glama_deploy.cli.options.ray import _show_address
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.ray.connection import Resources
from glama_deploy.ray.datasets import RowFiller
from glama_deploy.ray.engine import EngineSettings


def test_an_option_that_would_have_no_effect_is_refused(make_pictures, tmp_path, capsys):
    images, masks = make_pictures(1, suffixes=("png",))
    assert main.run(list(map(str, ("--ray", images, masks, tmp_path / "out", "--backup-folder", tmp_path / "b")))) == 2
    assert capsys.readouterr().err == "glama-inpaint: a run on Ray does not support --backup-folder; leave it out\n"


def test_a_run_whose_outputs_all_exist_starts_no_cluster(make_pictures, tmp_path, capsys):
    """The address of a cluster that does not exist would be an error."""
    pytest.importorskip("fsspec")
    images, masks = make_pictures(2, suffixes=("png",))
    (tmp_path / "out").mkdir()
    for path in images.iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    command = ["--ray", "--ray-address", "127.0.0.1:9", *map(str, (images, masks, tmp_path / "out"))]
    assert main.run(command) == 0
    assert "0 written, 2 skipped, 0 failed" in capsys.readouterr().err
    assert '"state": "ended"' in (tmp_path / "out" / "glama-run.json").read_text()


@pytest.mark.parametrize("address", ["local", "127.0.0.1:9"])
def test_a_wrong_model_is_told_before_a_cluster_is_asked(make_pictures, tmp_path, capsys, address):
    """Nothing answers at the second address, which would be another error."""
    pytest.importorskip("fsspec")
    images, masks = make_pictures(1, suffixes=("png",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.pt").write_bytes(b"noise")
    for options, says in (
        (("--model", "big-lame"), "no published model of this name"),
        (("--model", "folder/absent.pt"), "no checkpoint at folder/absent.pt"),
        (("--model", tmp_path / "empty"), "is no bundle: it has no manifest.json"),
        (("--model", tmp_path / "noise.pt"), "is damaged, truncated or not a checkpoint"),
        (("--backend", "openvina"), "unknown backend 'openvina'"),
        (("--precision", "int8"), "default is a checkpoint, and int8 is measured on photographs"),
    ):
        given = ("--ray", "--ray-address", address, *options, images, masks, tmp_path / "out")
        assert main.run(list(map(str, given))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_the_engine_of_a_gpu_is_told_before_a_cluster_is_asked(tiny_bundle):
    engine = EngineSettings(str(tiny_bundle.path), "tensorrt", device="cuda")
    with pytest.raises(EngineError, match=r"has no TensorRT engine; .*`build\(.*, target=trt\)`"):
        engine.check(is_here=False)


@pytest.mark.parametrize(
    ("given", "path"), [("file:///data/a b", "/data/a b"), ("FILE:///data", "/data"), ("file:///C:/data", "C:/data")]
)
def test_an_address_of_this_machine_is_its_path(given, path):
    assert _show_address(Path(given)) == path


def test_an_address_of_a_store_stays_as_it_is():
    assert _show_address(Path("s3://bucket/a")) == "s3://bucket/a"


def test_a_step_of_a_pipeline_leaves_a_cpu_to_the_readers():
    assert Resources().count_workers({"CPU": 4.0}, 1) == 3
    with pytest.raises(
        GlamaError, match="the cluster has 1 CPU and 0 GPU, and a worker takes 1 CPU and 0 GPU beside 1"
    ):
        Resources().count_workers({"CPU": 1.0}, 1)


def test_a_wrong_mask_fails_its_own_row_of_a_batch_alone(tiny_bundle, photo, hole):
    images, masks = np.empty(3, dtype=object), np.empty(3, dtype=object)
    images[:] = [photo, photo, photo[::-1].copy()]
    masks[:] = [hole, hole[:64], hole]
    columns = {name: name for name in ("image", "mask", "output", "error")}
    engine = EngineSettings(str(tiny_bundle.path), "openvino", compile_sizes=False)
    rows = RowFiller(engine, columns, "full", 3)({"image": images, "mask": masks})
    assert [bool(error) for error in rows["error"]] == [False, True, False]
    assert rows["output"][1] is None
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino", threads=1, compile_sizes=False)
    expected = inpainter.batch(np.stack([photo, photo[::-1]]), np.stack([hole, hole]))
    assert (np.stack([rows["output"][0], rows["output"][2]]) == expected).all()
