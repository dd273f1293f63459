"""The cache of exported checkpoints: the right export, whole, and made once."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import embedded, formats
from glama_deploy.errors import CheckpointError
from glama_deploy.evaluation import methods
from glama_deploy.export import pipeline
from glama_deploy.io import files
from glama_deploy.io.files import sha256
from glama_deploy.loading import cached_bundle

#: LaMa's file for the network of the tests, which has one block.
CONFIG = """
generator:
  kind: ffc_resnet
  input_nc: 4
  output_nc: 3
  ngf: 8
  n_downsampling: 3
  n_blocks: 1
  add_out_act: sigmoid
  init_conv_kwargs: {ratio_gin: 0, ratio_gout: 0, enable_lfu: false}
  downsample_conv_kwargs: {ratio_gin: 0, ratio_gout: 0, enable_lfu: false}
  resnet_conv_kwargs: {ratio_gin: 0.75, ratio_gout: 0.75, enable_lfu: false}
"""

#: Exports a checkpoint into the cache once a line comes, and logs that.
EXPORTER = """
import logging, sys
import onnx, openvino
from glama_deploy import loading
from glama_deploy.export import pipeline
logging.basicConfig(level=logging.INFO)
print("ready", flush=True)
sys.stdin.readline()
loading.cached_bundle(sys.argv[1]).verify()
"""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A LaMa folder of the tests' network."""
    weights = formats.read(tiny).weights
    state = {f"generator.{name}": torch.from_numpy(values.copy()) for name, values in weights.items()}
    (tmp_path / "lama" / "models").mkdir(parents=True)
    (tmp_path / "lama" / "config.yaml").write_text(CONFIG, encoding="utf-8")
    torch.save({"state_dict": state}, tmp_path / "lama" / "models" / "best.ckpt")
    return tmp_path / "lama"


@pytest.mark.parametrize("name", embedded.NAMES)
def test_the_graph_of_an_embedded_network_is_what_the_exporter_writes(name, tmp_path):
    """If this test fails, the exporter has changed: glama-export --ckpt NAME --target onnx --out NEW, and put the
    bundle in the place of glama_deploy/assets/NAME."""
    made = pipeline.export(pipeline.Request(name, tmp_path / "made", ("onnx",), parity=False)).bundle
    folder = embedded.find_bundle(name)
    assert folder is not None
    kept = Bundle.open(folder)
    kept.verify()
    assert kept.manifest.checkpoint == made.manifest.checkpoint
    assert kept.manifest.graphs == made.manifest.graphs
    assert kept.graph("fp32").read_bytes() == made.graph("fp32").read_bytes()


def test_a_folder_with_another_config_does_not_get_the_export_of_the_same_weights(own_cache, folder):
    assert glama_deploy.load(folder).network.n_blocks == 1
    (folder / "config.yaml").write_text(CONFIG.replace("n_blocks: 1", "n_blocks: 9"), encoding="utf-8")
    with pytest.raises(CheckpointError):  # the weights are not those of nine blocks
        glama_deploy.load(folder)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    assert glama_deploy.load(folder).network.n_blocks == 1
    assert len([path for path in (own_cache / "bundles").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "no bundle"])
def test_a_damaged_export_is_replaced_with_a_note(own_cache, tiny, caplog, damage):
    path = cached_bundle(tiny).path
    before = (path / "model.onnx").read_bytes()
    if damage == "changed":
        (path / "model.onnx").write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    elif damage == "missing":
        (path / "model.onnx").unlink()
    else:
        (path / "manifest.json").unlink()
        if damage == "no bundle":
            (path / "stray.txt").write_text("x", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        cached_bundle(tiny)
    (note,) = caplog.messages
    assert note.startswith(f"the cached export of {tiny} is damaged and is made again: ")
    Bundle.open(path).verify()
    assert (path / "model.onnx").read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    caplog.clear()
    cached_bundle(tiny)
    assert not caplog.messages


def test_two_processes_that_need_one_export_make_it_once(own_cache, tiny):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", EXPORTER, str(tiny)]
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert sum(line.count("into the cache") for line in said) == 1
    assert len(list((own_cache / "bundles").iterdir())) == 1


def test_an_evaluation_tells_a_folder_with_another_config_from_the_one_before(folder, tiny):
    spec = methods.Spec("lama", str(folder))
    before = methods.compute_digest(spec)
    (folder / "config.yaml").write_text(f"{CONFIG}# the same weights", encoding="utf-8")
    assert methods.compute_digest(spec) != before
    assert methods.compute_digest(methods.Spec("tiny", str(tiny))) == sha256(tiny)


@pytest.mark.parametrize("changed", ["models/best.ckpt", "config.yaml"])
def test_a_checkpoint_that_changes_while_it_is_exported_is_not_kept(own_cache, folder, monkeypatch, changed):
    export = pipeline.export

    def replace_and_export(request: pipeline.Request) -> pipeline.Outcome:
        if changed == "config.yaml":
            (folder / changed).write_text(f"{CONFIG}# changed", encoding="utf-8")
        else:
            state = torch.load(folder / changed)
            torch.save({**state, "epoch": 1}, folder / changed)
        return export(request)

    monkeypatch.setattr(pipeline, "export", replace_and_export)
    with pytest.raises(CheckpointError, match="changed while it was exported; run again once it is written"):
        cached_bundle(folder)
    assert not list((own_cache / "bundles").iterdir())


def test_an_export_of_another_checkpoint_under_this_ones_name_is_replaced(own_cache, tiny, folder, caplog):
    mine, others = cached_bundle(tiny), cached_bundle(folder)
    shutil.rmtree(mine.path)
    shutil.copytree(others.path, mine.path)
    assert cached_bundle(tiny).manifest.checkpoint.sha256 == sha256(tiny)
    assert "is of another checkpoint" in caplog.text


def test_an_error_of_the_export_is_not_taken_for_one_of_the_cache(own_cache, tiny, monkeypatch):
    def fail(request: pipeline.Request) -> None:
        raise OSError(5, "of the network drive")

    monkeypatch.setattr(pipeline, "export", fail)
    with pytest.raises(OSError, match="of the network drive"):
        cached_bundle(tiny)


def test_what_a_killed_export_left_goes_although_the_export_is_whole(own_cache, tiny, monkeypatch):
    path = cached_bundle(tiny).path
    for name in (".glama-1.lock", ".glama-1.tmp", f".glama-{path.name}.lock"):
        (path.parent / name).write_bytes(b"")
    monkeypatch.setattr(files, "_cleaned", set())  # as in the next process
    cached_bundle(tiny)
    assert list(path.parent.iterdir()) == [path]
