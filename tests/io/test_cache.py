"""Where the cache lies, and what happens where there is no place for one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from glama_deploy.io import cache


@pytest.fixture(autouse=True)
def _notes_anew():
    cache._note.cache_clear()


def test_a_tilde_is_the_home_folder_and_no_folder_of_that_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("GLAMA_CACHE", "~/x")
    monkeypatch.chdir(tmp_path)
    assert cache.folder("bundles") == tmp_path / "home" / "x" / "bundles"
    assert not (tmp_path / "~").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the folder that the XDG specification names")
def test_the_default_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GLAMA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder("a") == tmp_path / ".cache" / "glama-deploy" / "a"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder("a") == tmp_path / "xdg" / "glama-deploy" / "a"


def test_a_cache_that_cannot_be_written_is_done_without_and_noted_once(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "file"))
    assert cache.folder("a") is None
    assert cache.folder("a") is None
    (message,) = caplog.messages
    assert "the cache cannot be used" in message
    assert "set GLAMA_CACHE to a folder" in message


#: A user whom the system does not know, as containers with `--user 12345` have, fills an image. The user database is
#: patched, because only root may become another user.
NOBODY = """
import os, pwd, sys
def unknown(user):
    raise KeyError(f"getpwuid(): uid not found: {user}")
pwd.getpwuid = unknown
import numpy as np, glama_deploy
image, mask = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32), bool)
mask[8:16, 8:16] = True
for model, backend in ((sys.argv[1], "auto"), (sys.argv[2], "onnxruntime")):
    print(glama_deploy.load(model, backend)(image, mask).shape, file=sys.stderr)
try:
    glama_deploy.load(sys.argv[1], "openvino")
except glama_deploy.EngineError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such user database")
def test_a_user_without_a_home_fills_an_image(tiny_bundle, tiny, tmp_path):
    unset = ("HOME", "XDG_CACHE_HOME", "GLAMA_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    child = subprocess.run(
        [sys.executable, "-c", NOBODY, str(tiny_bundle.path), str(tiny)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("(32, 32, 3)") == 2
    assert "Traceback" not in child.stderr
    # OpenVINO may look for a home folder when it is imported; then the reason and the remedy are said
    assert "OpenVINO" not in child.stderr or "set HOME to a folder" in child.stderr
    assert list(tmp_path.iterdir()) == []
