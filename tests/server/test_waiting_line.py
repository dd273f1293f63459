"""Requests wait in a bounded line, and stop when nobody wants their answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.app import make_app


@pytest.fixture
def slow(start_server, held):
    """A server whose engine waits until the test lets it go on; one request runs, two wait."""
    return start_server(open_model=held.open_model, queue=2)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture(autouse=True)
def _let_go_before_the_threads_end(threads, held):
    yield
    held.let_go.set()


def in_flight(running) -> tuple[int, int]:
    return running.server.line.running, running.server.line.length


def test_a_full_line_is_answered_at_once_with_the_time_to_try_again(
    slow, held, threads, image_file, mask_file, wait_until
):
    sent = [threads.submit(slow.inpaint, image_file, mask_file) for _ in range(3)]
    wait_until(lambda: in_flight(slow) == (1, 2))
    # a client that still sends a large body sees the answer, too
    full = httpx.post(
        f"{slow.url}/v1/inpaint", files={"image": image_file + bytes(20 << 20), "mask": mask_file}, timeout=600
    )
    assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (503, "queue_full", "2")
    held.let_go.set()
    answers = [each.result() for each in sent]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert max(float(answer.headers["x-glama-queued-seconds"]) for answer in answers) > 0
    wait_until(lambda: in_flight(slow) == (0, 0))
    assert slow.inpaint(image_file, mask_file).status_code == 200


@contextmanager
def sent(running, image_file: bytes, mask_file: bytes) -> Iterator[socket.socket]:
    """Send a request whole, and close the connection when the block ends."""
    request = httpx.Request(
        "POST", f"{running.url}/v1/inpaint", files={"image": ("a", image_file), "mask": ("b", mask_file)}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(f"POST /v1/inpaint HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        yield connection


def test_a_request_whose_client_left_while_it_waited_never_runs(
    slow, held, threads, image_file, mask_file, wait_until, caplog
):
    first = threads.submit(slow.inpaint, image_file, mask_file)
    assert held.begun.acquire(timeout=600)
    with caplog.at_level("INFO", "glama_deploy.server.access"):
        with sent(slow, image_file, mask_file):
            wait_until(lambda: in_flight(slow) == (1, 1))
        wait_until(lambda: in_flight(slow) == (1, 0))
        wait_until(lambda: any(json.loads(record.message)["status"] == 499 for record in caplog.records))
    held.let_go.set()
    assert first.result().status_code == 200
    assert slow.inpaint(image_file, mask_file).status_code == 200
    assert held.begun.acquire(blocking=False)  # the run of the last request
    assert not held.begun.acquire(blocking=False)  # and none for the client that left


def test_a_request_that_runs_keeps_its_place_until_its_work_stops(
    slow, held, image_file, mask_file, wait_until, caplog
):
    with caplog.at_level("INFO", "glama_deploy.server.access"):
        with sent(slow, image_file, mask_file):
            assert held.begun.acquire(timeout=600)
        wait_until(lambda: any(json.loads(record.message)["status"] == 499 for record in caplog.records))
    assert in_flight(slow) == (1, 0)
    held.let_go.set()
    wait_until(lambda: in_flight(slow) == (0, 0) and not slow.server.line._places)


def test_a_request_is_cancelled_by_its_id(slow, held, threads, image_file, mask_file, wait_until):
    runs = threads.submit(slow.inpaint, image_file, mask_file, id="runs")
    assert held.begun.acquire(timeout=600)
    waits = threads.submit(slow.inpaint, image_file, mask_file, id="waits")
    wait_until(lambda: {place.name for place in slow.server.line._places} == {"runs", "waits"})
    again = slow.inpaint(image_file, mask_file, id="waits")
    assert (again.status_code, again.json()["code"]) == (409, "id")
    for name, request in (("waits", waits), ("runs", runs)):
        assert slow.client.delete(f"/v1/requests/{name}").status_code == 204
        cancelled = request.result()  # before the engine is let go
        assert (cancelled.status_code, cancelled.json()["code"]) == (499, "cancelled")
    assert slow.client.delete("/v1/requests/other").status_code == 404
    held.let_go.set()
    wait_until(lambda: not slow.server.line._places)
    assert slow.client.delete("/v1/requests/runs").status_code == 404


def test_a_cancelled_batch_cancels_its_other_pairs(slow, held, threads, image_file, mask_file):
    files = [("image", ("a", image_file))] * 3 + [("mask", ("m", mask_file))] * 3
    batch = threads.submit(slow.client.post, "/v1/batch", files=files, data={"id": "batch"})
    assert held.begun.acquire(timeout=600)
    assert slow.client.delete("/v1/requests/batch").status_code == 204
    lines = [json.loads(line) for line in batch.result().text.splitlines()]
    assert [line["status"] for line in lines] == [499, 499, 499]


def open_batch(running) -> socket.socket:
    """Begin a batch whose body does not arrive yet."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    head = "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode())
    return connection


def test_batches_are_counted_from_before_their_bodies_arrive(start_server, image_file, mask_file, wait_until):
    running = start_server()
    files = [("image", ("a", image_file)), ("mask", ("m", mask_file))]
    with open_batch(running), open_batch(running):
        wait_until(lambda: in_flight(running) == (0, 2))
        third = running.client.post("/v1/batch", files=files)
        assert (third.status_code, third.json()["code"], third.headers["retry-after"]) == (503, "queue_full", "2")
        assert in_flight(running) == (0, 2)
    wait_until(lambda: in_flight(running) == (0, 0))
    for _ in range(3):  # also after batches that end well, and after refused forms
        assert running.client.post("/v1/batch", files=files).status_code == 200
        assert running.client.post("/v1/batch", files=files[:1]).status_code == 422
    wait_until(lambda: running.server.batches == 0)


def test_changes_of_the_model_have_places_and_keep_no_other_request_waiting(
    start_server, held, tiny_bundle, tmp_path, image_file, mask_file, wait_until
):
    models = {"one": str(tiny_bundle.path), "two": str(tiny_bundle.path)}
    count = min(32, (os.cpu_count() or 1) + 4) + 1  # more than asyncio has threads
    running = start_server(open_model=held.open_model, models=models, queue=count, input=tmp_path)
    with ThreadPoolExecutor(count + 1) as threads:
        fill = threads.submit(running.inpaint, image_file, mask_file)
        assert held.begun.acquire(timeout=600)
        changes = [
            threads.submit(httpx.post, f"{running.url}/v1/model", json={"model": name}, timeout=600)
            for name in itertools.islice(itertools.cycle(("two", "one")), count)
        ]
        wait_until(lambda: len(running.server.line._places) == count + 1)
        full = running.client.post("/v1/model", json={"model": "two"})
        assert (full.status_code, full.json()["code"]) == (503, "queue_full")
        assert running.client.get("/api/v1/medias", params={"tab": "input"}).json() == []  # read in a thread
        held.let_go.set()
        assert fill.result().status_code == 200
        assert {change.result().status_code for change in changes} == {200}


def test_a_request_keeps_its_place_until_its_client_has_the_answer(
    start_server, encode, image_file, mask_file, wait_until
):
    running = start_server(queue=0)
    photo = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)  # 12 MB: no buffer holds them
    hole = np.zeros((2000, 2000), bool)
    hole[1000:1040, 1000:1040] = True
    with sent(running, encode(photo), encode(hole)) as connection:
        taken = len(connection.recv(1000))  # the answer has begun
        assert running.inpaint(image_file, mask_file).status_code == 503
        while taken < 11_000_000:
            taken += len(connection.recv(1 << 20))
        wait_until(lambda: not running.server.line._places)
        assert running.inpaint(image_file, mask_file).status_code == 200


def test_streams_run_at_once(start_server, held, threads, image_file, mask_file):
    running = start_server(open_model=held.open_model, streams=2, queue=0)
    sent = [threads.submit(running.inpaint, image_file, mask_file) for _ in range(2)]
    assert all(held.begun.acquire(timeout=600) for _ in range(2))  # both, before either is let go
    assert running.inpaint(image_file, mask_file).status_code == 503
    held.let_go.set()
    assert [each.result().status_code for each in sent] == [200, 200]


def test_a_change_of_the_model_waits_for_the_runs_and_others_wait_for_it(
    start_server, held, tiny_bundle, threads, image_file, mask_file, wait_until
):
    models = {"one": str(tiny_bundle.path), "two": str(tiny_bundle.path)}
    running = start_server(open_model=held.open_model, models=models, streams=2)
    runs = threads.submit(running.inpaint, image_file, mask_file)
    assert held.begun.acquire(timeout=600)
    change = threads.submit(running.client.post, "/v1/model", json={"model": "two"})
    wait_until(lambda: not running.server.engine.is_ready)
    assert running.client.get("/readyz").status_code == 503
    assert not change.done()
    assert not runs.done()
    later = threads.submit(running.inpaint, image_file, mask_file)
    held.let_go.set()
    assert runs.result().status_code == later.result().status_code == 200
    assert change.result().json()["model"] == "two"


@pytest.mark.parametrize("error", [GlamaError("no such model"), ZeroDivisionError("a bug")])
def test_requests_are_answered_where_the_model_does_not_open(image_file, mask_file, error):
    """Requests that came before the model failed do not wait for ever."""
    failures: list[BaseException] = []

    def open_model(model: str, precision: str) -> Inpainter:
        raise error

    async def run() -> httpx.Response:
        app = make_app(open_model=open_model, on_failure=failures.append)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):
            return await client.post("/v1/inpaint", files={"image": ("a", image_file), "mask": ("b", mask_file)})

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["code"]) == (503, "engine")
    assert failures == [error]
