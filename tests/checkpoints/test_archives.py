"""LaMa's models are read from the zip archive in which they are downloaded, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import glama_deploy
from glama_deploy.checkpoints import archives, formats
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.io.files import sha256

BEST, CONFIG = "big-lama/models/best.ckpt", "big-lama/config.yaml"


def pack(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("big-lama/", b"")
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def folder(lama_small: Path) -> dict[str, bytes]:
    """The files of a LaMa model folder, as an archive has them."""
    return {
        CONFIG: (lama_small / "config.yaml").read_bytes(),
        BEST: (lama_small / "models" / "best.ckpt").read_bytes(),
    }


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The only folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "temporary"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_archive_of_a_lama_folder_is_read_as_the_folder(tmp_path, temporary, lama_small, folder, method):
    path = pack(
        tmp_path / "big-lama.zip", folder | {"big-lama/models/last.ckpt": b"x", "__MACOSX/._x.ckpt": b"x"}, method
    )
    read, expected = formats.read(path), formats.read(lama_small)
    assert (read.kind, read.config, read.sha256) == ("LaMa folder", expected.config, sha256(path))
    assert list(read.weights) == list(expected.weights)
    for name, values in expected.weights.items():
        np.testing.assert_array_equal(read.weights[name], values)
    assert list(temporary.iterdir()) == []


def test_an_archive_of_a_stopped_training_is_read_with_its_config(tmp_path, folder, caplog):
    """A tanh is only told by the config: without the config the checkpoint would be read as if it had a sigmoid."""
    config = folder[CONFIG].replace(b"add_out_act: sigmoid", b"add_out_act: tanh")
    assert config != folder[CONFIG]
    last = BEST.replace("best", "last")
    path = pack(tmp_path / "x.zip", {CONFIG: config, last: folder[BEST]})
    read = formats.read(path)
    assert (read.kind, read.config.activation) == ("LaMa folder", "tanh")
    assert f"{path} has no models/best.ckpt; reading {last}" in caplog.text


def test_a_last_checkpoint_without_a_config_is_a_file_of_parameters(tmp_path, folder):
    path = pack(tmp_path / "x.zip", {"models/last.ckpt": folder[BEST]})
    assert formats.read(path).kind == "bare parameters"


def test_an_archive_is_exported_once_and_fills_as_the_folder_does(tmp_path, lama_small, folder, photo, hole):
    path = pack(tmp_path / "big-lama.zip", folder)
    expected = glama_deploy.load(lama_small, "onnxruntime")(photo, hole)
    for _ in range(2):
        np.testing.assert_array_equal(glama_deploy.load(path, "onnxruntime")(photo, hole), expected)


def test_an_archive_of_one_file_is_read_as_the_file(tmp_path, tiny):
    path = pack(tmp_path / "x.zip", {"readme.txt": b"x", "folder/network.safetensors": tiny.read_bytes()})
    read, expected = formats.read(path), formats.read(tiny)
    assert (read.kind, read.config) == (expected.kind, expected.config)


def test_without_paths_of_open_files_a_temporary_folder_is_used_and_removed(
    tmp_path, temporary, folder, lama_small, monkeypatch
):
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc/self/fd/") and exists(path))
    path = pack(tmp_path / "big-lama.zip", folder)
    assert formats.read(path).config == formats.read(lama_small).config
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs files without a name")
def test_a_killed_process_leaves_no_unpacked_file(tmp_path, temporary, folder):
    code = """
import os, signal, sys
from glama_deploy.checkpoints import formats
def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
formats.find_config = kill
formats.read(sys.argv[1])
"""
    path = pack(tmp_path / "big-lama.zip", folder)
    child = subprocess.run(
        [sys.executable, "-c", code, path], env={**os.environ, "TMPDIR": str(temporary)}, check=False
    )
    assert child.returncode == -9
    assert list(temporary.iterdir()) == []


# ---------------------------------------------------------------- what is refused


def refuse(path: Path) -> str:
    """Return the message, in which no path of an open file stands."""
    with pytest.raises(CheckpointError) as caught:
        formats.read(path)
    assert "/proc/" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value).replace(str(path), "PATH")


def test_several_checkpoints_are_refused_with_their_names(tmp_path):
    names = ["places/config.yaml", "places/models/best.ckpt", "faces/config.yaml", "faces/models/best.ckpt"]
    path = pack(tmp_path / "x.zip", dict.fromkeys(names, b"x"))
    assert refuse(path) == (
        "PATH contains 2 checkpoints: faces/models/best.ckpt, places/models/best.ckpt; unpack the archive and give one "
        "of them"
    )
    path = pack(tmp_path / "x.zip", dict.fromkeys([CONFIG, BEST, "vgg.pth"], b"x"))
    assert f"PATH contains 2 checkpoints: {BEST}, vgg.pth; unpack" in refuse(path)
    path = pack(tmp_path / "x.zip", {f"{number:02}.pt": b"x" for number in range(20)})
    assert "20 checkpoints: 00.pt, 01.pt" in refuse(path)
    assert "11.pt, …; unpack" in refuse(path)


def test_a_lama_folder_without_its_config_is_refused(tmp_path):
    assert f"PATH has {BEST} without {CONFIG}" in refuse(pack(tmp_path / "x.zip", {BEST: b"x"}))


@pytest.mark.parametrize("config", ["config.yaml", "big-lama/config.yaml", "configs/config.yaml"])
def test_a_config_that_would_not_be_read_is_refused(tmp_path, folder, config):
    path = pack(tmp_path / "x.zip", {"big-lama/best.ckpt": folder[BEST], config: folder[CONFIG]})
    assert f"PATH has big-lama/best.ckpt and {config}, which are not in the places of a LaMa model folder" in refuse(
        path
    )


def test_a_config_without_end_is_refused_before_it_is_unpacked(tmp_path, folder):
    path = pack(tmp_path / "x.zip", folder | {CONFIG: b"a: b\n" * 300_000})
    assert refuse(path) == f"PATH: {CONFIG} has 1500000 bytes; at most 1048576 are expected"


def test_messages_name_the_entry_of_the_archive(tmp_path, folder):
    assert refuse(pack(tmp_path / "x.zip", folder | {BEST: b""})) == (
        f"PATH: {BEST} is empty (0 bytes); fetch or save the file again"
    )
    config = folder[CONFIG].replace(b"n_blocks: 2", b"n_blocks: 3")
    assert config != folder[CONFIG]
    assert refuse(pack(tmp_path / "x.zip", folder | {CONFIG: config})).startswith(
        f"PATH: {BEST}: the config has n_blocks 3"
    )
    assert refuse(pack(tmp_path / "x.zip", folder | {CONFIG: b"generator: 5"})).startswith(
        f"PATH: {CONFIG}: generator is 5"
    )


def test_an_archive_in_an_archive_is_refused(tmp_path, folder):
    inner = pack(tmp_path / "inner.zip", folder).read_bytes()
    assert "without a torch data.pkl" in refuse(pack(tmp_path / "x.zip", {"inner.ckpt": inner}))


def test_a_damaged_entry_is_refused(tmp_path, folder):
    path = pack(tmp_path / "x.zip", folder)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 255
    path.write_bytes(data)
    assert refuse(path).startswith(f"PATH: {BEST} is damaged or truncated (")


def test_an_encrypted_entry_is_refused(tmp_path, folder):
    path = pack(tmp_path / "x.zip", folder)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = 0
        while (place := data.find(signature, place)) >= 0:
            data[place + offset] |= 1
            place += 4
    path.write_bytes(data)
    assert refuse(path) == f"PATH: {BEST} is encrypted; unpack the archive and give the checkpoint"


def test_an_entry_that_is_too_large_is_refused_before_it_is_unpacked(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    assert f"PATH: {BEST} has {len(folder[BEST])} bytes; at most 1000 are expected" in refuse(
        pack(tmp_path / "x.zip", folder)
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_temporary_folder_is_not_taken_for_a_damaged_archive(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "wb"))
    with pytest.raises(GlamaError, match=r"cannot write .*: no space is left on the disk") as caught:
        formats.read(pack(tmp_path / "x.zip", folder))
    assert not isinstance(caught.value, CheckpointError)


def test_an_archive_of_torch_itself_stays_one(tmp_path, tiny):
    weights = {name: torch.from_numpy(values) for name, values in formats.read(tiny).weights.items()}
    torch.save(weights, tmp_path / "x.pt")
    assert archives.find_member(tmp_path / "x.pt") is None
    shutil.copy(tmp_path / "x.pt", tmp_path / "x.zip")
    assert formats.read(tmp_path / "x.zip").kind == "bare parameters"
