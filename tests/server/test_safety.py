"""What others send does no harm: a test for each guard."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.safety import slow_clients
from glama_deploy.server.safety.guards import COOKIE


@pytest.fixture(scope="module")
def guarded(start_server):
    return start_server(token="s3cret-token")


@pytest.fixture(scope="module")
def limited(start_server):
    return start_server(max_bytes=200_000, max_pixels=96 * 120)


@pytest.fixture(scope="module")
def hasty(start_server):
    """A server that cuts slow clients off soon. A test with this server expects that a client is too slow."""
    return start_server(timeout=0.5)


def connect(running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=600)


def read_all(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


# --- who may ask


def test_a_host_name_that_leads_here_from_elsewhere_is_refused(running, start_server):
    """DNS rebinding: the page of an attacker, whose name leads to 127.0.0.1, has the attacker's name in `Host`."""
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"):
        answer = running.client.get("/v1/info", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "host")
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8080", "192.168.1.2:1", "localhost."):
        assert running.client.get("/v1/info", headers={"host": host}).status_code == 200
    named = start_server(allowed_hosts=("photos.example",))
    assert named.client.get("/v1/info", headers={"host": "photos.example"}).status_code == 200
    assert named.client.get("/v1/info", headers={"host": "evil.example"}).status_code == 421
    assert start_server(allowed_hosts=("*",)).client.get("/", headers={"host": "any"}).status_code in (200, 404)


def test_a_page_of_another_origin_can_neither_send_nor_read(running, start_server, image_file, mask_file):
    files = {"image": ("a", image_file), "mask": ("b", mask_file)}
    for origin in ("http://evil.example", "null", f"http://localhost:{running.port}"):
        answer = running.client.post("/v1/inpaint", files=files, headers={"origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")
    own = running.client.post("/v1/inpaint", files=files, headers={"origin": running.url})
    assert own.status_code == 200
    assert not [name for name in own.headers if name.startswith("access-control")]  # CORS is off
    preflight = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in running.client.options("/v1/inpaint", headers=preflight).headers

    shared = start_server(allowed_origins=("https://page.example",), token="t")
    allowed = shared.client.options("/v1/inpaint", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    answer = shared.client.post(
        "/v1/inpaint", files=files, headers={"origin": "https://page.example", "authorization": "Bearer t"}
    )
    assert answer.status_code == 200
    assert "X-Glama-Engine" in answer.headers["access-control-expose-headers"]
    assert shared.client.post("/v1/inpaint", headers={"origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "://", "\xff"])
def test_an_origin_that_is_no_address_is_another_origin(running, origin):
    answer = running.client.post("/v1/inpaint", headers=[(b"origin", origin.encode("latin-1"))])
    assert (answer.status_code, answer.json()["code"]) == (403, "origin")


def test_a_page_of_an_allowed_origin_reads_the_errors_of_the_guards(start_server):
    shared = start_server(allowed_origins=("https://page.example",), token="t")
    for headers, status in (({}, 401), ({"host": "evil.example"}, 421)):
        answer = shared.client.get("/v1/info", headers={"origin": "https://page.example", **headers})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


def test_a_fault_of_the_server_is_told_with_the_headers_of_other_answers(start_server, image_file, mask_file):
    class Faulty(Inpainter):
        def __call__(self, *arguments, **options):
            raise ZeroDivisionError("a bug")

    def open_model(model: str, precision: str) -> Inpainter:
        inner = glama_deploy.load(model, precision=precision)
        return Faulty(inner._runner, inner.network)

    faulty = start_server(open_model=open_model, allowed_origins=("https://page.example",))
    files = {"image": ("a", image_file), "mask": ("b", mask_file)}
    answer = faulty.client.post("/v1/inpaint", files=files, headers={"origin": "https://page.example"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "a bug" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    metrics = faulty.client.get("/metrics").text
    assert 'glama_requests_total{method="POST",path="/v1/inpaint",status="500"} 1.0' in metrics


def test_the_token_is_asked_for_everywhere_but_for_probes_and_the_page(guarded):
    for method, path in (
        ("GET", "/v1/info"),
        ("POST", "/v1/inpaint"),
        ("POST", "/v1/batch"),
        ("POST", "/v1/model"),
        ("DELETE", "/v1/requests/x"),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/api/v1/inpaint"),
        ("POST", "/inpaint"),
        ("GET", "/no/such/path"),
    ):
        answer = guarded.client.request(method, path)
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (401, "Bearer"), path
    for path in ("/healthz", "/readyz", "/", "/page/x"):
        assert guarded.client.get(path).status_code in (200, 404)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer s3cret", "Bearer wrong", "Basic s3cret-token", "Bearer \xff"])
def test_a_wrong_token_is_refused(guarded, given):
    headers = [(b"authorization", given.encode())]
    assert guarded.client.get("/v1/info", headers=headers).status_code == 401


def test_the_token_is_compared_in_constant_time(guarded, monkeypatch):
    from glama_deploy.server.safety import guards

    compared = []
    real = guards.hmac.compare_digest
    monkeypatch.setattr(guards.hmac, "compare_digest", lambda *pair: compared.append(pair) or real(*pair))
    guarded.client.get("/v1/info", headers=[(b"authorization", b"Bearer wrong")])
    assert compared


def test_the_token_in_the_address_becomes_a_strict_cookie(guarded):
    with httpx.Client(base_url=guarded.url) as browser:
        assert browser.get("/", params={"token": "wrong"}).status_code == 401
        answer = browser.get("/", params={"token": "s3cret-token", "lang": "de"})
        assert (answer.status_code, answer.headers["location"]) == (303, "./?lang=de")
        cookie = answer.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/"))
        assert "s3cret" not in cookie
        assert browser.get("/v1/info").status_code == 200
        browser.cookies.set(COOKIE, "wrong", domain="127.0.0.1", path="/")
    assert guarded.client.get("/v1/info", headers={"cookie": f"{COOKIE}=s3cret"}).status_code == 401


def test_the_token_opens_the_interface(guarded, image_file, mask_file):
    answer = guarded.client.post(
        "/v1/inpaint",
        files={"image": ("a", image_file), "mask": ("b", mask_file)},
        headers=[(b"authorization", b"Bearer s3cret-token")],
    )
    assert answer.status_code == 200


def test_a_browser_is_told_to_load_nothing_from_elsewhere(running):
    for path in ("/", "/docs", "/v1/info", "/no/such/path"):
        headers = running.client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert (policy["frame-ancestors"], policy["object-src"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:"} & set(headers["content-security-policy"].split())
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize(
    "path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%00", "/page/."]
)
def test_no_path_leads_out_of_the_page(running, path):
    with connect(running) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = read_all(connection)
    assert answer.split()[1] in (b"404", b"400")


# --- how much may be sent


def test_a_long_body_is_refused_by_its_announced_length_and_by_its_bytes(limited, image_file, mask_file):
    big = bytes(300_000)
    announced = limited.client.post("/v1/inpaint", files={"image": ("a", big), "mask": ("b", mask_file)})
    assert (announced.status_code, announced.json()["code"]) == (413, "bytes")

    def chunks():
        yield from (bytes(10_000) for _ in range(30))

    kind = {"content-type": "multipart/form-data; boundary=x"}
    streamed = limited.client.post("/v1/inpaint", content=chunks(), headers=kind)
    assert streamed.status_code in (400, 413)  # the form may be found damaged before it is found long
    streamed = limited.client.post("/v1/inpaint", content=chunks(), headers={"content-type": "application/json"})
    assert (streamed.status_code, streamed.json()["code"]) == (413, "bytes")
    assert limited.inpaint(image_file, mask_file).status_code == 200


def test_a_body_without_end_is_cut_off(limited):
    with connect(limited) as connection:
        head = "POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 1 << 28:
                connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                sent += 0x10000
        except (BrokenPipeError, ConnectionResetError):
            pass
        # what the server took, and what lay in the buffers of both sides
        assert sent < 1 << 25


def test_an_announced_length_is_refused_before_the_body_where_the_client_waits(limited):
    with connect(limited) as connection:
        head = "POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = read_all(connection)
    assert answer.split()[1] == b"413"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/model", "application/json"),
        ("/api/v1/model", "application/json"),
        ("/model", "multipart/form-data; boundary=x"),
    ],
)
def test_the_name_of_a_model_may_not_have_megabytes(running, path, kind):
    answer = running.client.post(path, content=bytes(100_000), headers={"content-type": kind})
    assert answer.status_code == 413
    assert "65536 bytes" in answer.text


def test_a_form_of_many_parts_is_refused(limited):
    part = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = limited.client.post("/v1/inpaint", content=part * 200 + b"--x--\r\n", headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (400, "form")
    files = part.replace(b'"f"', b'"f"; filename="a"') * 5 + b"--x--\r\n"
    assert limited.client.post("/v1/inpaint", content=files, headers=kind).json()["code"] == "form"
    long_text = part.replace(b"1\r\n", b"1" * 100_000 + b"\r\n") + b"--x--\r\n"
    assert limited.client.post("/v1/inpaint", content=long_text, headers=kind).json()["code"] == "form"
    headers = b"--x\r\n" + b"X-Header: 1\r\n" * 2_000 + b"\r\n1\r\n--x--\r\n"
    assert limited.client.post("/v1/inpaint", content=headers, headers=kind).json()["code"] == "form"


def test_nested_json_is_refused(limited):
    for body in (b"[" * 100_000, b'{"image":' * 5_000, b'{"image": ' + b"9" * 100_000 + b"}"):
        for path in ("/v1/inpaint", "/v1/model", "/api/v1/inpaint", "/api/v1/model", "/api/v1/adjust_mask"):
            answer = limited.client.post(path, content=body[:60_000], headers={"content-type": "application/json"})
            assert (answer.status_code, "fields" in answer.json().values()) == (422, True)


def black_png(height: int, width: int) -> bytes:
    """A PNG of one bit a pixel, all black, which takes hardly any bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + -(-width // 8))
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_large_picture_in_few_bytes_is_refused_before_it_is_decoded(limited, image_file, mask_file, monkeypatch):
    from glama_deploy.server.work import filling

    monkeypatch.setattr(filling, "decode_image", lambda *_: pytest.fail("decoded"))
    bomb = black_png(16_000, 16_000)
    assert len(bomb) < 100_000
    for image, mask in ((bomb, mask_file), (image_file, bomb), (bomb, bomb)):
        answer = limited.inpaint(image, mask)
        assert (answer.status_code, answer.json()["code"]) == (413, "pixels")


def test_a_text_that_unpacks_to_much_memory_is_refused(limited, photo, mask_file):
    from PIL import PngImagePlugin

    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("k", " " * (65 << 20), zip=True)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG", pnginfo=bomb)
    answer = limited.inpaint(file.getvalue(), mask_file)
    assert (answer.status_code, answer.json()["code"]) == (400, "image")


# --- how long may be waited


def test_a_slow_body_is_cut_off(hasty):
    with connect(hasty) as connection:
        head = "POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        answer = read_all(connection)
    assert answer.split()[1] == b"408"


@pytest.mark.parametrize("begin", [b"", b"GET /v1/info HTTP/1.1\r\nHost: loc"])
def test_slow_headers_are_cut_off(hasty, begin):
    with connect(hasty) as connection:
        connection.sendall(begin)
        assert read_all(connection) == b""


def test_slow_headers_of_a_second_request_are_cut_off(hasty):
    with connect(hasty) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/in")
        assert read_all(connection).endswith(b'{"status":"ok"}')


def test_a_client_that_does_not_take_its_answer_is_cut_off(hasty, monkeypatch, wait_until):
    cut = []
    real = slow_clients.ImpatientProtocol._cut
    monkeypatch.setattr(slow_clients.ImpatientProtocol, "_cut", lambda self: cut.append(1) or real(self))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty.port))
        # many answers, none of which is read
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        end = time.monotonic() + 600
        connection.setblocking(False)
        while not cut:
            assert time.monotonic() < end
            try:
                connection.send(request * 20)
            except BlockingIOError:
                time.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                break
    wait_until(lambda: cut)


def test_a_damaged_request_is_no_fault_of_the_server(limited):
    head = b"POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    lengths = (b"x", b"", b"-1", b"1, 2", "٣".encode(), b"9" * 6_000, b"5\r\nContent-Length: 6")
    requests = [head + length + b"\r\n\r\n" for length in lengths]
    for data in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", *requests):
        with connect(limited) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = read_all(connection)
        assert answer == b"" or answer.split()[1] in (b"400", b"413", b"422"), data[:200]


def test_hostile_bodies_get_an_answer_that_is_no_fault_of_the_server(limited, image_file, mask_file, wait_until):
    """300 bodies with random damage: no 500, and the server still fills pictures."""
    rng = np.random.default_rng(0)
    request = httpx.Request("POST", f"{limited.url}/v1/inpaint", files={"image": ("a", image_file), "mask": mask_file})
    body, kind = request.read(), request.headers["content-type"]
    for round_ in range(300):
        data = bytearray(body)
        for position in rng.integers(0, len(data), rng.integers(1, 30)):
            data[position] = rng.integers(0, 256)
        if round_ % 3 == 0:
            data = data[: rng.integers(0, len(data))]
        answer = limited.client.post("/v1/inpaint", content=bytes(data), headers={"content-type": kind})
        assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    assert limited.inpaint(image_file, mask_file).status_code == 200
    wait_until(lambda: not limited.server.line._places)  # a place is given back after the answer
