"""The client of glama-serve, with a real server; and addresses at which there is no server that fills."""

from __future__ import annotations

import io
import pickle
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from fakes.recording_server import RecordingServer
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.errors import EngineError
from glama_deploy.remote.connect import connect
from glama_deploy.remote.connection import Answer, Connection


@pytest.fixture(scope="module")
def server():
    running = RecordingServer()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _forget(request) -> None:
    if "server" in request.fixturenames:
        request.getfixturevalue("server").forget()


@pytest.fixture
def answering():
    """A function that starts a server with one answer: its status, its body, and further headers."""
    servers = []

    def start(status: int, body: bytes, **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def test_a_picture_is_filled_as_on_this_machine_and_only_boxes_travel(server, tmp_path, capsys):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (400, 600, 3), np.uint8)
    hole = np.zeros((400, 600), bool)
    hole[50:60, 50:60] = hole[300:310, 500:510] = True
    paths = [str(tmp_path / name) for name in ("photo.png", "mask.png", "out.png")]
    for pixels, path in zip((photo, hole), paths, strict=False):
        Image.fromarray(pixels).save(path)
    assert glama_inpaint.run([*paths, "--server", server.url, "--region", "crop"]) == 0
    assert f"at {server.url.rstrip('/')}: default, OpenVINO" in capsys.readouterr().err
    expected = glama_deploy.load("default", "openvino", "fp32")(photo, hole, region="crop")
    with Image.open(paths[2]) as out:
        assert np.array_equal(np.array(out), expected)
    sizes = [Image.open(io.BytesIO(form["image"])).size for form in server.asked]
    assert len(sizes) == 2
    assert all(width < 300 and height < 300 for width, height in sizes)


def test_a_busy_server_is_asked_again(server, photo, hole):
    server.refuse.append((503, {"Retry-After": "0"}, {"error": "32 requests wait", "code": "queue_full"}))
    filled = connect(server.url)(photo, hole)
    assert (filled[~hole] == photo[~hole]).all()
    assert len(server.asked) == 1


def test_what_the_server_says_is_in_the_error(server, photo, hole):
    server.refuse.append((413, {}, {"error": "the picture has too many pixels", "code": "pixels"}))
    with pytest.raises(EngineError, match=r"did not fill the picture: HTTP 413, the picture has too many pixels"):
        connect(server.url)(photo, hole)


def test_an_inpainter_of_a_server_can_be_pickled(server, photo, hole):
    inpainter = connect(server.url)
    again = pickle.loads(pickle.dumps(inpainter))
    assert np.array_equal(again(photo, hole), inpainter(photo, hole))


def test_predictions_do_not_travel(server, photo, hole):
    with pytest.raises(EngineError, match="does not give the output predicted; open the bundle itself"):
        connect(server.url).predict(photo, hole)


def test_a_model_that_is_not_served_is_named(server):
    with pytest.raises(EngineError, match="has no model other; give one of these in `model`: default"):
        connect(server.url, "other")


def test_an_older_glama_serve_is_refused(answering):
    url = answering(200, b'{"version": "0.0.9", "ready": true, "models": ["m"], "model": "m"}')
    with pytest.raises(EngineError, match=r"is glama-serve 0\.0\.9, which does not describe its network; upgrade"):
        connect(url)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"not here", "speaks neither KServe's protocol, version 2, nor glama-serve's (HTTP 404)"),
        (200, b"[]", "speaks neither KServe's protocol"),
        (302, b"", "speaks neither KServe's protocol, version 2, nor glama-serve's (HTTP 302)"),
        (401, b'{"error": "the token is missing"}', "(HTTP 401, the token is missing); give the server's token in"),
    ],
)
def test_another_server_is_an_error_of_one_line_and_nothing_is_written(
    answering, photo, hole, tmp_path, capsys, status, body, says
):
    for name, pixels in (("photo.png", photo), ("mask.png", hole)):
        Image.fromarray(pixels).save(tmp_path / name)
    url = answering(status, body, Location="http://127.0.0.1:9/")
    paths = [str(tmp_path / name) for name in ("photo.png", "mask.png", "out.png")]
    assert glama_inpaint.run([*paths, "--server", url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "out.png").exists()


def test_an_address_without_a_server_is_an_error_of_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EngineError, match=rf"no server answers at http://127\.0\.0\.1:{port} \(Connection refused\)"):
        connect(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("grpc://host:8001", "gRPC is not supported: give the server's HTTP address"),
        ("http://user:secret@host", "contains a user name or password; give a token in GLAMA_TOKEN"),
        ("ftp://host", "'ftp://host'; http://HOST:PORT is expected"),
        ("http://host:port", "http://HOST:PORT is expected"),
        ("http://", "http://HOST:PORT is expected"),
    ],
)
def test_an_address_of_another_kind_is_refused(address, says):
    with pytest.raises(EngineError) as caught:
        connect(address)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_answer_that_breaks_off_is_told(answering):
    url = answering(200, b'{"name": "triton"', **{"Content-Length": "5000"})
    with pytest.raises(EngineError, match=r"broke off its answer after 17 bytes; run again"):
        connect(url)


def encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((900, 800), np.uint8), "is 900x800; "),
        (np.full((64, 72), 40_000, np.uint16), r"answered with uint16 \[1, 64, 72, 3\]; uint8 \[1, 64, 72, 3\]"),
    ],
)
def test_a_picture_of_another_kind_is_refused(server, monkeypatch, pixels, says):
    photo, hole = np.zeros((64, 72, 3), np.uint8), np.zeros((64, 72), bool)
    hole[20:30, 20:30] = True
    inpainter = connect(server.url)
    answer = Answer(200, Message(), encode(pixels))
    monkeypatch.setattr(Connection, "post", lambda *arguments: answer)
    with pytest.raises(EngineError, match=says):
        inpainter(photo, hole, region="full")


def test_a_busy_server_is_not_waited_for_in_vain(answering, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("glama_deploy.remote.connection.time.sleep", pauses.append)
    asked: list[float] = []
    send = Connection._send
    monkeypatch.setattr(Connection, "_send", lambda *arguments: (asked.append(len(pauses)), send(*arguments))[1])
    url = answering(503, b"", **{"Retry-After": "3"})
    assert Connection(url).post("/v2", b"", {}).status == 503
    assert asked == [0, 1, 2, 3, 4, 5]  # asked again after each pause


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates, is not installed")
def test_a_server_without_a_known_certificate_is_told(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=host", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands() -> None:
            with listener.accept()[0] as client, suppress(ssl.SSLError):
                context.wrap_socket(client, server_side=True)

        threading.Thread(target=shake_hands, daemon=True).start()
        with pytest.raises(EngineError, match=r"has a certificate that this machine does not accept \(.*SSL_CERT_FILE"):
            connect(f"https://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("token", ["two words", "line\n", "tökén"])
def test_a_token_that_is_no_header_is_refused(token, monkeypatch):
    monkeypatch.setenv("GLAMA_TOKEN", token)
    with pytest.raises(EngineError, match="GLAMA_TOKEN has spaces or characters beyond ASCII") as caught:
        connect("host")
    assert token.strip() not in str(caught.value)


def test_the_token_is_sent(answering, monkeypatch):
    """Without a token, the server is asked without the header; a real server checks the token in tests/server."""
    monkeypatch.setenv("GLAMA_TOKEN", "letmein")
    assert Connection("host")._headers["Authorization"] == "Bearer letmein"
    monkeypatch.delenv("GLAMA_TOKEN")
    assert "Authorization" not in Connection("host")._headers


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--backend", "openvino"], "--server has an engine of its own; leave out --backend"),
        (["--precision", "fp16", "--threads", "2"], "leave out --precision and --threads"),
        (["--compile-sizes", "never"], "leave out --compile-sizes"),
    ],
)
def test_options_of_a_local_engine_are_refused(option, says, tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("photo.png", "mask.png", "out.png")]
    assert glama_inpaint.run([*paths, "--server", "host", *option]) == 2
    assert says in capsys.readouterr().err
