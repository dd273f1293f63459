"""Files of models are found, downloaded once, verified before anything reads them, and removed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.model_host import Answer, ModelHost
from glama_deploy.checkpoints.published import storage
from glama_deploy.checkpoints.published.remote_file import RemoteFile
from glama_deploy.checkpoints.published.transfer import Patience
from glama_deploy.errors import DownloadError, GlamaError

SOON = Patience(first_pause=0.001)


def describe(host: ModelHost, content: bytes, *paths: str, **changes: object) -> RemoteFile:
    fields = {
        "subject": "model",
        "file": "x.pt",
        "sha256": hashlib.sha256(content).hexdigest(),
        "urls": tuple(f"{host.url}{path}" for path in paths or ("/x.pt",)),
        "size_bytes": len(content),
        "is_size_exact": True,
    }
    return RemoteFile(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def remote(host, content) -> RemoteFile:
    host.files["/x.pt"] = content
    return describe(host, content)


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_with_one_line_that_says_from_where_and_how_large(
    host, remote, content, own_cache, caplog
):
    assert storage.pull(remote).read_bytes() == content
    assert storage.pull(remote) == own_cache / "models" / remote.sha256[:16] / "x.pt"
    assert len(host.asked) == 1
    assert caplog.messages == [f"downloading model (0.1 MB) from {host.url}/x.pt"]
    assert list_files(own_cache) == [f"models/{remote.sha256[:16]}/x.pt"]


def test_the_file_of_another_program_comes_first_and_is_named(host, remote, content, tmp_path, own_cache, caplog):
    remote.torch_path.parent.mkdir(parents=True)
    remote.torch_path.write_bytes(content)
    assert storage.pull(remote) == tmp_path / "torch" / "hub" / "checkpoints" / "x.pt"
    assert storage.pull(remote) == remote.torch_path
    assert host.asked == []
    assert caplog.messages == [f"using {remote.torch_path} for model; its SHA-256 is right"]
    assert not own_cache.exists()


@pytest.mark.parametrize("size", [100_000, 5])
def test_a_wrong_file_of_another_program_is_left_alone_with_a_warning(host, remote, content, own_cache, caplog, size):
    wrong = bytes(size)
    remote.torch_path.parent.mkdir(parents=True)
    remote.torch_path.write_bytes(wrong)
    path = storage.pull(remote)
    assert path.is_relative_to(own_cache)
    assert path.read_bytes() == content
    assert remote.torch_path.read_bytes() == wrong
    assert caplog.messages[0] == (
        f"{remote.torch_path} does not have the SHA-256 of model; the file is neither used nor changed"
    )
    caplog.clear()
    assert storage.pull(remote) == path
    assert caplog.messages == []


def test_pytorchs_folder_is_where_pytorch_says(monkeypatch, remote):
    import torch

    assert remote.torch_path.parent == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert remote.torch_path.parent == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert remote.torch_path.parent == Path(torch.hub.get_dir()).expanduser() / "checkpoints"


def test_the_next_address_is_tried_after_a_missing_and_after_a_wrong_file(host, content, own_cache, caplog):
    host.files.update({"/wrong/x.pt": bytes(100_000), "/right/x.pt": content})
    remote = describe(host, content, "/none/x.pt", "/wrong/x.pt", "/right/x.pt")
    assert storage.pull(remote).read_bytes() == content
    told = "\n".join(caplog.messages)
    assert "HTTP 404 Not Found" in told
    aside = remote.path.with_name(f"x.pt.wrong-{hashlib.sha256(bytes(100_000)).hexdigest()[:12]}")
    assert f"the file is kept as {aside} and is not read" in told
    assert aside.read_bytes() == bytes(100_000)


def test_a_wrong_file_is_kept_aside_and_never_given_to_a_reader(host, content, own_cache):
    host.files["/x.pt"] = bytes(100_000)
    remote = describe(host, content)
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"is expected; the file is kept as .*x\.pt\.wrong-\w{12} and is not"):
            storage.pull(remote)
        assert storage.find(remote) is None
    assert [Path(name).name[:11] for name in list_files(own_cache)] == ["x.pt.wrong-"]


def test_two_halves_of_different_files_are_downloaded_anew(host, content, own_cache):
    """Without a mark of the server nothing but the SHA-256 tells that the file has changed."""
    host.files["/x.pt"] = content[::-1]
    host.script["/x.pt"] = [Answer(cut_after=30_000, names_mark=False)]
    remote = describe(host, content)
    with pytest.raises(DownloadError):
        storage.pull(remote, Patience(attempts=1))
    host.files["/x.pt"] = content
    assert storage.pull(remote).read_bytes() == content
    assert host.ranges == [None, "bytes=30000-", None]


def test_a_download_is_continued_at_another_address(host, content):
    host.files.update({"/a/x.pt": content, "/b/x.pt": content})
    host.script["/a/x.pt"] = [Answer(cut_after=30_000)]
    remote = describe(host, content, "/a/x.pt", "/b/x.pt")
    assert storage.pull(remote, Patience(attempts=1)).read_bytes() == content
    assert [(request.path, request.headers.get("range")) for request in host.asked] == [
        ("/a/x.pt", None),
        ("/b/x.pt", "bytes=30000-"),
    ]
    assert "if-range" not in host.asked[1].headers


def test_a_file_that_was_changed_after_the_download_is_replaced_and_kept_aside(host, remote, content, caplog):
    path = storage.pull(remote)
    path.write_bytes(bytes(100_000))
    caplog.clear()
    assert storage.find(remote) is None
    assert caplog.messages == [f"{path} was changed since its download; the file is not used"]
    assert storage.pull(remote).read_bytes() == content
    right, wrong = sorted(entry.name for entry in path.parent.iterdir())
    assert (right, wrong[:11]) == ("x.pt", "x.pt.wrong-")
    assert f"{path} is kept as {wrong}" in caplog.messages


def test_a_mirror_is_tried_first_and_the_address_of_the_catalogue_next(host, remote, content, monkeypatch):
    monkeypatch.setenv("GLAMA_MODELS_MIRROR", f"{host.url}/mirror/")
    assert storage.pull(remote).read_bytes() == content
    assert [request.path for request in host.asked] == ["/mirror/x.pt", "/x.pt"]
    storage.remove_files(remote)
    host.files["/mirror/x.pt"] = content
    storage.pull(remote)
    assert [request.path for request in host.asked[2:]] == ["/mirror/x.pt"]


def test_an_endpoint_stands_in_for_the_hub(host, content, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{host.url}/hub/")
    host.files["/hub/o/r/resolve/main/x.pt"] = content
    remote = describe(host, content, urls=("https://huggingface.co/o/r/resolve/main/x.pt",))
    assert storage.pull(remote).read_bytes() == content


@pytest.mark.parametrize("name", ["GLAMA_MODELS_MIRROR", "HF_ENDPOINT"])
def test_a_mirror_without_encryption_is_refused(remote, monkeypatch, name, host):
    monkeypatch.setenv(name, "http://192.0.2.1/models")
    with pytest.raises(DownloadError, match=rf"{name}=http://192\.0\.2\.1/models is not encrypted; use https"):
        storage.pull(remote)
    monkeypatch.setenv(name, "https://user:secret@models.example.org")
    with pytest.raises(DownloadError, match=rf"^{name}=https://…@models\.example\.org contains a user name"):
        storage.pull(remote)
    assert host.asked == []


@pytest.mark.parametrize(
    ("name", "value"), [("GLAMA_OFFLINE", "1"), ("GLAMA_OFFLINE", "y"), ("HF_HUB_OFFLINE", "true")]
)
def test_offline_nothing_is_asked_for_and_files_that_are_here_are_used(
    host, remote, content, monkeypatch, own_cache, name, value
):
    monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=rf"model is not on this machine, and {name}={value} forbids downloads"):
        storage.pull(remote)
    assert host.asked == []
    assert not own_cache.exists()
    remote.path.parent.mkdir(parents=True)
    remote.path.write_bytes(content)  # as the message says
    assert storage.pull(remote) == remote.path
    assert host.asked == []


@pytest.mark.parametrize("value", ["", "0", "off", "No", " false "])
def test_a_variable_that_says_no_allows_downloads(remote, content, monkeypatch, value):
    monkeypatch.setenv("GLAMA_OFFLINE", value)
    assert storage.pull(remote).read_bytes() == content


def test_a_disk_without_room_is_told_before_the_download(host, remote, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 90_000))
    with pytest.raises(DownloadError, match=r"needs 17 MB, and 0\.1 MB are free at .*; free some space"):
        storage.pull(remote)
    assert host.asked == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_stops_the_download_and_leaves_no_model(host, remote):
    remote.part.parent.mkdir(parents=True)
    remote.part.symlink_to("/dev/full")
    with pytest.raises(GlamaError, match="no space is left on the disk; free some and run again"):
        storage.pull(remote)
    assert not remote.path.exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs a folder in which not even root may write")
def test_a_cache_without_permission_is_one_error(host, remote, monkeypatch):
    monkeypatch.setenv("GLAMA_CACHE", "/proc/cache")
    with pytest.raises(GlamaError, match=r"cannot write /proc/cache: .* \(GLAMA_CACHE names another folder"):
        storage.pull(remote)
    assert host.asked == []


def test_a_file_in_place_of_the_cache_is_one_error(host, remote, own_cache):
    own_cache.write_bytes(b"")
    with pytest.raises(GlamaError, match=r"cannot write .*: a part of the path is a file"):
        storage.pull(remote)
    assert host.asked == []


def test_a_cache_that_may_only_be_read_is_enough_for_a_file_that_is_there(host, remote, own_cache):
    path = storage.pull(remote)
    for folder in (path.parent, own_cache / "models", own_cache):
        folder.chmod(0o555)
    try:
        assert storage.pull(remote) == path
    finally:
        for folder in (own_cache, own_cache / "models", path.parent):
            folder.chmod(0o755)


def test_removing_takes_all_that_belongs_to_a_model_and_nothing_else(host, remote, content, own_cache):
    other = describe(host, b"other", "/other.pt", file="other.pt")
    host.files["/other.pt"] = b"other"
    storage.pull(other)
    storage.pull(remote)
    remote.part.write_bytes(b"half")
    assert storage.remove_files(remote) == len(content) + 4
    assert storage.remove_files(remote) == 0
    assert list_files(own_cache) == [f"models/{other.sha256[:16]}/other.pt"]


def test_two_processes_may_remove_one_model(remote, monkeypatch):
    storage.pull(remote)
    hold = storage.locks.hold

    @contextmanager
    def wait(*given):
        with hold(*given):
            shutil.rmtree(remote.path.parent)  # as the process does that holds the lock first
            yield

    monkeypatch.setattr(storage.locks, "hold", wait)
    assert storage.remove_files(remote) == 0


def test_the_state_tells_what_is_here(remote, content):
    assert storage.find_state(remote).name == "absent"
    remote.part.parent.mkdir(parents=True)
    remote.part.write_bytes(b"half")
    assert storage.find_state(remote) == storage.State("partial", remote.part, 4)
    storage.pull(remote)
    assert storage.find_state(remote).name == "downloaded"
    remote.torch_path.parent.mkdir(parents=True)
    remote.torch_path.write_bytes(b"wrong")
    assert storage.find_state(remote).name == "downloaded"
    remote.torch_path.write_bytes(content)
    assert storage.find_state(remote).name == "shared"


# ---------------------------------------------------------------- several processes


def start_pull(catalogue: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from glama_deploy.cli.start import models; models()", "pull", "model"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GLAMA_MODELS_CATALOGUE": str(catalogue)},
    )


def test_two_processes_that_need_one_file_download_it_once(host, content, tmp_path, own_cache, wait_until):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "model", "content": content})
    hold = threading.Event()
    host.script["/model.pt"] = [Answer(waits=hold, headers={"Content-Length": str(len(content))}, cut_after=50_000)]
    first = start_pull(catalogue)
    wait_until(lambda: list(own_cache.rglob("*.part")))
    second = start_pull(catalogue)
    assert second.stderr is not None
    assert "another process is writing the download of model; waiting" in second.stderr.readline()
    hold.set()
    said = [child.communicate() for child in (first, second)]
    assert [child.returncode for child in (first, second)] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert Path(said[0][0].strip()).read_bytes() == content
    assert host.ranges == [None, "bytes=50000-"]  # the first process's, which broke off and went on


def test_a_killed_download_is_continued_and_leaves_nothing_behind(host, content, tmp_path, own_cache, wait_until):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "model", "content": content})
    hold = threading.Event()
    host.script["/model.pt"] = [Answer(waits=hold, cut_after=50_000)]
    killed = start_pull(catalogue)
    wait_until(lambda: any(path.stat().st_size == 50_000 for path in own_cache.rglob("*.part")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    hold.set()
    child = start_pull(catalogue)
    out, err = child.communicate()
    assert child.returncode == 0, err
    assert "continued at 0.1 MB" in err
    assert host.ranges == [None, "bytes=50000-"]
    path = Path(out.strip())
    assert path.read_bytes() == content
    assert list_files(own_cache) == [str(path.relative_to(own_cache))]


def test_ctrl_c_ends_a_download_in_one_line_and_the_next_continues(host, content, tmp_path, own_cache, wait_until):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "model", "content": content})
    hold = threading.Event()
    host.script["/model.pt"] = [Answer(waits=hold, cut_after=50_000)]
    child = start_pull(catalogue)
    wait_until(lambda: any(path.stat().st_size == 50_000 for path in own_cache.rglob("*.part")))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    hold.set()
    assert child.returncode == 130
    assert err.splitlines()[1:] == ["glama-models: interrupted; the same command continues the download"]
    assert not list(own_cache.rglob("*.pt"))


def test_the_process_log_is_a_note_of_the_command(host, content, tmp_path):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "model", "content": content})
    _, err = start_pull(catalogue).communicate()
    assert err == f"glama-models: note: downloading model (0.1 MB) from {host.url}/model.pt\n"
    assert logging.getLogger("glama_deploy").handlers == []
