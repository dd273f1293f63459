"""A run whose pictures and outputs lie in an object store, on a real server that speaks S3's interface."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
from cluster.conftest import read_outputs

from glama_deploy.ray import storage

#: The packages of these tests, beside Ray.
PACKAGES = ("ray", "s3fs", "moto")

#: A test waits for the start of a server, a driver and two workers, on a machine that is busy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        any(find_spec(name) is None for name in PACKAGES), reason=f"one of {', '.join(PACKAGES)} is not installed"
    ),
]


@pytest.fixture(scope="module")
def store(s3_address, tmp_path_factory):
    """The file system of the server, with an empty bucket."""
    import s3fs

    port = s3_address.rpartition(":")[2]
    log = tmp_path_factory.mktemp("s3") / "log.txt"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(server, int(port), log)
        files = s3fs.S3FileSystem(endpoint_url=s3_address, use_listings_cache=False, skip_instance_cache=True)
        files.mkdir("bucket")
        yield files
    finally:
        server.kill()
        server.wait()


def wait_for(server: subprocess.Popen, port: int, log: Path) -> None:
    import socket
    import time

    for _ in range(600):
        assert server.poll() is None, log.read_text(encoding="utf-8")
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


def test_pictures_of_a_bucket_are_filled_and_a_second_run_skips_them(store, fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(4, suffixes=("png", "jpg"))
    store.put(f"{images}/", "bucket/images/", recursive=True)
    store.put(f"{masks}/", "bucket/masks/", recursive=True)
    assert fill(images, masks, tmp_path / "alone", ray=False) == 0
    addresses = [f"s3://bucket/{name}" for name in ("images", "masks", "out")]
    assert fill(*addresses) == 0, capsys.readouterr().err
    found = {path.rpartition("/")[2]: store.cat_file(path) for path in store.find("bucket/out")}
    manifest = json.loads(found.pop("glama-run.json"))
    assert (manifest["state"], manifest["written"]) == ("ended", 4)
    assert found == read_outputs(tmp_path / "alone")
    before = {path: store.info(path)["LastModified"] for path in store.find("bucket/out") if "glama-run" not in path}
    store.rm_file("bucket/out/002.png")
    del before["bucket/out/002.png"]
    capsys.readouterr()
    assert fill(*addresses) == 0
    assert "1 written, 3 skipped, 0 failed" in capsys.readouterr().err
    assert {path: store.info(path)["LastModified"] for path in before} == before


def test_shards_of_a_bucket_are_read(store, fill, make_pictures, tmp_path, capsys):
    import tarfile

    images, masks = make_pictures(3, suffixes=("png",))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(images.iterdir()):
            archive.add(path, path.name)
            archive.add(masks / path.name, f"{path.stem}.mask.png")
    store.pipe_file("bucket/shards/00.tar", packed.getvalue())
    assert fill(images, masks, tmp_path / "alone", ray=False) == 0
    assert fill("--image", "s3://bucket/shards/*.tar", "--out", tmp_path / "out") == 0, capsys.readouterr().err
    assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "alone")


class Refusal(BaseHTTPRequestHandler):
    """A server that answers every request as S3 answers an account without rights."""

    def answer(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


def test_a_bucket_without_permission_is_one_line(fill, make_pictures, tmp_path, capsys, monkeypatch):
    import s3fs

    _, masks = make_pictures(1, suffixes=("png",))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    storage.open_storage.cache_clear()
    try:
        assert fill("s3://closed/images", masks, tmp_path / "out") == 2
    finally:
        server.shutdown()
        s3fs.S3FileSystem.clear_instance_cache()
    assert capsys.readouterr().err == (
        "glama-inpaint: cannot list s3://closed/images: permission denied; check the credentials, and the rights of "
        "the account\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_is_missing_is_one_line(store, fill, make_pictures, tmp_path, capsys):
    images, masks = make_pictures(1, suffixes=("png",))
    assert fill("s3://nowhere/images", masks, tmp_path / "out") == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "s3://nowhere/images" in line
    assert not (tmp_path / "out").exists()
    assert fill(images, masks, "s3://nowhere/out") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("glama-inpaint: cannot write s3://nowhere/out/glama-run.json: it does not exist")
