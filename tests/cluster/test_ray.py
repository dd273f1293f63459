"""glama-inpaint --ray on a real cluster of two workers: the bytes of one process, whatever is killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from cluster.conftest import CLUSTER_CPUS, read_outputs
from PIL import Image

from glama_deploy.errors import GlamaError

#: A test waits for the start of a driver and of two workers, on a machine that is busy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'glama-deploy[ray]'"),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """The current folder, in which no file may be left."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def read_manifest(out: Path) -> dict:
    return json.loads((out / "glama-run.json").read_text(encoding="utf-8"))


def start_driver(cluster, tiny_bundle, images: Path, masks: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "from glama_deploy.cli.inpaint import main; main()", images, masks, out]
    engine = ["--model", tiny_bundle.path, "--compile-sizes", "never", "--threads", "1", "--backend", "openvino"]
    ray = ["--ray", "--ray-address", cluster.address, "--workers", "2", "--json"]
    return subprocess.Popen([*command, *engine, *ray], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def identify(out: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when a file is written again."""
    files = [path for path in out.glob("0*") if path.is_file()] if out.exists() else []
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_outputs_are_those_of_one_process_and_a_second_run_skips_them(fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(9)
    (images / "bad.png").write_bytes(b"no picture")
    Image.new("L", (64, 64)).save(masks / "bad.png")
    (images / "maskless.png").write_bytes((images / "000.png").read_bytes())
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert fill(images, masks, alone, ray=False) == 2
    capsys.readouterr()
    assert fill(images, masks, out, "--json") == 2
    captured = capsys.readouterr()
    *pictures, summary = map(json.loads, captured.out.splitlines())
    assert (summary["written"], summary["failed"]) == (9, 2)
    assert len(pictures) == 11
    expected = read_outputs(alone)
    assert len(expected) == 9
    assert read_outputs(out) == expected
    assert "Traceback" not in captured.err
    assert "maskless.png has no mask: the folder of masks has no maskless.png (or .jpg, …)" in captured.err
    manifest = read_manifest(out)
    assert (manifest["state"], manifest["written"], manifest["failed"]) == ("ended", 9, 2)
    reasons = {Path(each["image"]).name: each["reason"] for each in manifest["failures"]}
    assert set(reasons) == {"bad.png", "maskless.png"}
    assert reasons["bad.png"].startswith(f"{images}/bad.png")
    before = identify(out)
    assert fill(images, masks, out) == 2
    assert "0 written, 9 skipped, 2 failed" in capsys.readouterr().err
    assert identify(out) == before


def test_a_batch_shows_the_network_pictures_of_one_size(fill, make_pictures, tmp_path):
    images, masks = make_pictures(10, suffixes=("png",))
    assert fill(images, masks, tmp_path / "alone", "--region", "full", ray=False) == 0
    assert fill(images, masks, tmp_path / "out", "--region", "full", "--batch", "3") == 0
    expected, found = read_outputs(tmp_path / "alone"), read_outputs(tmp_path / "out")
    assert set(found) == set(expected)
    for name, data in found.items():
        one, several = (np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (expected[name], data))
        assert np.abs(one - several).max() <= 1  # an engine may add up a batch in another order


def test_a_killed_worker_loses_nothing_and_nothing_is_written_twice(
    cluster, tiny_bundle, make_pictures, tmp_path, wait_until, fill
):
    images, masks = make_pictures(60, 192, suffixes=("png",))
    out = tmp_path / "out"
    driver = start_driver(cluster, tiny_bundle, images, masks, out)
    wait_until(lambda: len(identify(out)) >= 4 or driver.poll() is not None)
    worker = cluster.find_workers()[0]
    worker.send_signal(signal.SIGKILL)
    before = identify(out)
    said, errors = driver.communicate(timeout=200)
    assert driver.returncode == 0, errors
    assert 4 <= len(before) < 60, "the worker was not killed in the middle of the run"
    *pictures, summary = map(json.loads, said.splitlines())
    assert summary["written"] == 60
    assert len({each["out"] for each in pictures}) == len(pictures) == 60
    after = identify(out)
    assert {name: after[name] for name in before} == before
    assert fill(images, masks, tmp_path / "alone", ray=False) == 0
    assert read_outputs(out) == read_outputs(tmp_path / "alone")


def test_a_killed_driver_loses_nothing_and_nothing_is_written_twice(
    cluster, tiny_bundle, make_pictures, tmp_path, wait_until, fill, capsys
):
    images, masks = make_pictures(60, 192, suffixes=("png",))
    out = tmp_path / "out"
    driver = start_driver(cluster, tiny_bundle, images, masks, out)
    wait_until(lambda: len(identify(out)) >= 4 or driver.poll() is not None)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not cluster.find_workers())  # Ray ends the workers of a driver that is gone
    before = identify(out)
    assert 4 <= len(before) < 60, "the driver was not killed in the middle of the run"
    assert read_manifest(out)["state"] == "running"
    assert fill(images, masks, out) == 0
    assert f"{60 - len(before)} written, {len(before)} skipped, 0 failed" in capsys.readouterr().err
    after = identify(out)
    assert {name: after[name] for name in before} == before
    assert fill(images, masks, tmp_path / "alone", ray=False) == 0
    assert read_outputs(out) == read_outputs(tmp_path / "alone")
    assert [path for path in out.iterdir() if path.name.startswith(".glama-")] == []


def test_a_picture_that_ends_its_workers_fails_and_the_others_are_filled(
    cluster, tiny_bundle, make_pictures, tmp_path, monkeypatch
):
    """The marks of the picture stand for a decoder that crashes."""
    from ray import cloudpickle

    from glama_deploy.inpainting.folder import Masks
    from glama_deploy.marking.marks import Marks
    from glama_deploy.ray.connection import Resources, connect
    from glama_deploy.ray.engine import EngineSettings
    from glama_deploy.ray.picture_worker import PictureSettings
    from glama_deploy.ray.run import Run, RunRequest

    class Crash(Marks):
        def __bool__(self) -> bool:
            return True

        def find_missing(self, picture, image):
            if image.name == "002.png":
                os.kill(os.getpid(), signal.SIGKILL)
            return np.zeros(picture.rgb.shape[:2], bool)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    images, masks = make_pictures(6, suffixes=("png",))
    engine = EngineSettings(str(tiny_bundle.path), "openvino")
    settings = PictureSettings(engine, str(tmp_path / "out"), Masks(marks=Crash()))
    resources = Resources(2)
    try:
        with connect(cluster.address, resources) as workers:
            outcomes = list(Run(RunRequest(str(images), str(masks), settings), resources).fill(workers))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    failed = [each for each in outcomes if each.state == "failed"]
    assert [Path(each.image).name for each in failed] == ["002.png"]
    assert "a worker ended 3 times with this picture" in failed[0].reason
    assert len(read_outputs(tmp_path / "out")) == 5


def write_samples(images: Path, masks: Path, folder: Path) -> None:
    """Write WebDataset shards and a Parquet file of the pictures."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    files = sorted(images.iterdir())
    for number in range(2):
        with tarfile.open(folder / f"shard-{number:02}.tar", "w") as archive:
            for path in files[number::2]:
                archive.add(path, f"a/{path.name}")
                archive.add(masks / f"{path.stem}.png", f"a/{path.stem}.mask.png")
    rows = [
        {"key": f"a/{path.stem}", "image": path.read_bytes(), "mask": (masks / f"{path.stem}.png").read_bytes()}
        for path in files
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")


def test_shards_and_parquet_give_the_outputs_of_the_folder(fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(8, suffixes=("png", "jpg", "webp"))
    write_samples(images, masks, tmp_path / "samples")
    assert fill(images, masks, tmp_path / "alone" / "a", ray=False) == 0
    expected = read_outputs(tmp_path / "alone")
    for name in ("shard-{00..01}.tar", "rows.parquet"):
        assert fill("--image", tmp_path / "samples" / name, "--out", tmp_path / name) == 0, capsys.readouterr().err
        assert read_outputs(tmp_path / name) == expected
    capsys.readouterr()
    assert fill("--image", tmp_path / "samples" / "shard-*.tar", "--out", tmp_path / "rows.parquet") == 0
    assert "0 written, 8 skipped, 0 failed" in capsys.readouterr().err


def test_a_key_may_not_leave_the_folder_and_two_pictures_may_not_share_one(fill, make_pictures, tmp_path, capsys):
    import pyarrow
    import pyarrow.parquet

    images, masks = make_pictures(2, suffixes=("png",))
    one, two = ((images / f"00{number}.png").read_bytes() for number in range(2))
    own = [(masks / f"00{number}.png").read_bytes() for number in range(2)]
    rows = [("../out of it", one, own[0]), ("same", one, own[0]), ("same", two, own[1]), ("", one, own[0])]
    table = pyarrow.Table.from_pylist([dict(zip(("key", "image", "mask"), row, strict=True)) for row in rows])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert fill("--image", tmp_path / "rows.parquet", "--out", tmp_path / "out") == 2
    assert list(read_outputs(tmp_path / "out")) == ["same.png"]
    assert not (tmp_path / "out of it.png").exists()
    errors = capsys.readouterr().err.replace("\n", " ")
    assert "1 written, 0 skipped, 3 failed" in errors
    assert "the key '../out of it' does not name a file below the folder of outputs" in errors
    assert "same: the key is that of another picture" in errors


def test_a_dataset_of_ones_own_is_filled(cluster, tiny_bundle, photo, hole):
    import ray.data

    import glama_deploy
    import glama_deploy.ray
    from glama_deploy.ray.connection import Resources, connect

    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    mask_file = io.BytesIO()
    Image.fromarray(hole).save(mask_file, "PNG")
    arrays = [
        {"name": "whole", "image": photo, "mask": hole.astype(np.uint8)},
        {"name": "part", "image": photo[:64].copy(), "mask": hole[:64].astype(np.uint8)},
        {"name": "wrong", "image": photo, "mask": hole[:64].astype(np.uint8)},
    ]
    files = [{"name": "file", "image": file.getvalue(), "mask": mask_file.getvalue()}]
    settings = {"backend": "openvino", "compile_sizes": False, "workers": 1}
    with connect(cluster.address, Resources(1)):
        filled = {
            row["name"]: row
            for rows in (arrays, files)
            for row in glama_deploy.ray.inpaint(ray.data.from_items(rows), tiny_bundle.path, **settings).take_all()
        }
        with pytest.raises(GlamaError, match="no column 'picture'; it has name, image, mask: name the columns"):
            glama_deploy.ray.inpaint(ray.data.from_items(arrays), tiny_bundle.path, image="picture", **settings)
        with pytest.raises(GlamaError, match="no published model of this name"):
            glama_deploy.ray.inpaint(ray.data.from_items(arrays), "big-lame", **settings)
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino", threads=1, compile_sizes=False)
    assert (filled["whole"]["inpainted"] == inpainter(photo, hole)).all()
    assert (filled["part"]["inpainted"] == inpainter(photo[:64], hole[:64])).all()
    assert [filled[name]["error"] for name in ("whole", "part", "file")] == ["", "", ""]
    assert filled["wrong"]["inpainted"] is None
    assert "mask" in filled["wrong"]["error"]
    picture = np.asarray(Image.open(io.BytesIO(filled["file"]["inpainted"])))
    assert (picture == inpainter(photo, hole)).all()


def test_bad_input_is_one_line_and_changes_nothing(fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(1, suffixes=("png",))
    files = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    for arguments, says in (
        ([images, masks, out, "--ray-address", "127.0.0.1:9"], "no Ray cluster answers at --ray-address 127.0.0.1:9"),
        ([images, masks, out, "--ray-address", "photos"], "--ray-address is 'photos'; HOST:PORT such as"),
        ([images, masks, "--in-place"], "a run on Ray does not support --in-place; leave it out"),
        ([images, masks, out, "--watch"], "a run on Ray does not support --watch; leave it out"),
        ([images, masks, out, "--batch", "2"], "--batch is 2, and --region is auto; set --region full"),
        ([images / "000.png", masks, out], "is a file; a run on Ray needs a folder, .tar or .parquet files"),
        ([images, masks, out, "--key-column", "a"], "--key-column, --image-column and --mask-column are for .tar and"),
        ([images, masks, "s4://bucket/out"], "cannot open s4://bucket/out: ValueError: Protocol not known: s4"),
        ([images, masks, "az://bucket/out"], "cannot open az://bucket/out: a package is missing (Install adlfs"),
        ([images, masks, out, "--gpus-per-worker", "1.5"], "--gpus-per-worker is 1.5; a share up to 1, or a whole"),
        (["--image", tmp_path / "no-{0..3}.tar", "--out", out], "check the address"),
    ):
        assert fill(*arguments) == 2
        err = capsys.readouterr().err
        assert says in err, err
        assert err.count("\n") == 1, err
    assert fill(images, masks, out, "--workers", "2", ray=False) == 2
    assert capsys.readouterr().err == "glama-inpaint: --workers is for clusters; add --ray\n"
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("suffix", ["parquet", "tar"])
def test_a_damaged_file_of_a_dataset_fails_and_the_others_are_filled(fill, make_pictures, tmp_path, capsys, suffix):
    write_samples(*make_pictures(2, suffixes=("png",)), tmp_path / "samples")
    whole = next((tmp_path / "samples").glob(f"*.{suffix}"))
    (tmp_path / f"b.{suffix}").write_bytes(whole.read_bytes())
    damaged = tmp_path / f"a.{suffix}"
    damaged.write_bytes(whole.read_bytes()[:200])
    assert fill("--image", tmp_path / f"{{a,b}}.{suffix}", "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "1 failed" in shown
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["state"], manifest["written"]) == ("ended", len(read_outputs(tmp_path / "out")))
    assert manifest["written"] == (2 if suffix == "parquet" else 1)
    (failure,) = manifest["failures"]
    assert failure["image"] == str(damaged)
    assert failure["reason"].startswith(f"{damaged} cannot be read (")


def test_workers_on_all_cpus_do_not_keep_a_dataset_from_being_read(fill, make_pictures, tmp_path, capsys):
    """Ray's own reader of Parquet files waits for a free CPU."""
    write_samples(*make_pictures(4, suffixes=("png",)), tmp_path / "samples")
    arguments = ("--image", tmp_path / "samples" / "rows.parquet", "--out", tmp_path / "out")
    assert fill(*arguments, "--workers", CLUSTER_CPUS) == 0, capsys.readouterr().err


def test_a_worker_that_cannot_open_its_engine_ends_the_run(fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(2, suffixes=("png",))
    assert fill(images, masks, tmp_path / "out", "--model", tmp_path / "none") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("glama-inpaint: a worker cannot begin: no checkpoint at")
    assert read_manifest(tmp_path / "out")["state"] == "interrupted"


def test_a_cluster_that_the_command_starts_has_as_many_workers_as_there_are_cores(s3_address, monkeypatch):
    """The CPUs of Ray Data's own actors come on top, and workers do not take them."""
    import ray

    from glama_deploy.ray.connection import Resources, connect

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with connect(None, Resources()) as workers:
        assert workers == cores
        assert ray.cluster_resources()["CPU"] > cores
