"""Our own interface gives what the inpainter gives, and names what is wrong."""

from __future__ import annotations

import base64
import io
import json

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from glama_deploy import memory
from glama_deploy.server.observing import access_log


def test_the_result_is_that_of_the_inpainter_bit_exact(running, inpainter, photo, hole, image_file, mask_file, decode):
    for region in ("auto", "full", "crop"):
        answer = running.inpaint(image_file, mask_file, region=region)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        np.testing.assert_array_equal(decode(answer.content), inpainter(photo, hole, region=region))


def test_the_embedded_network_fills_as_in_python(start_server, photo, hole, image_file, mask_file, decode):
    import glama_deploy

    running = start_server(models={"default": "default"})
    expected = glama_deploy.load("default")(photo, hole)
    np.testing.assert_array_equal(decode(running.inpaint(image_file, mask_file).content), expected)


def test_json_gives_the_same_as_a_form(running, image_file, mask_file):
    image, mask = (base64.b64encode(data).decode() for data in (image_file, mask_file))
    expected = running.inpaint(image_file, mask_file).content
    for body in (
        {"image": image, "mask": mask},
        {"image": f"data:image/png;base64,{image}", "mask": f"data:application/octet-stream;base64,{mask}"},
    ):
        answer = running.client.post("/v1/inpaint", json=body)
        assert (answer.status_code, answer.content) == (200, expected)


def test_headers_tell_the_engine_and_the_seconds(running, inpainter, image_file, mask_file):
    headers = running.inpaint(image_file, mask_file).headers
    assert headers["x-glama-engine"] == inpainter.description
    network, queued, total = (float(headers[f"x-glama-{name}seconds"]) for name in ("", "queued-", "total-"))
    assert 0 < network < total
    assert 0 <= queued < total


@pytest.mark.parametrize(("asked", "given"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("same", "WEBP")])
def test_the_format_is_the_one_asked_for(running, photo, hole, mask_file, encode, asked, given):
    answer = running.inpaint(encode(photo, "WEBP", lossless=True), mask_file, format=asked)
    assert answer.headers["content-type"] == f"image/{given.lower()}"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == given
        if given != "JPEG":  # WebP without a quality is lossless
            np.testing.assert_array_equal(np.asarray(image)[~hole], photo[~hole])


def test_quality_makes_a_jpeg_smaller(running, image_file, mask_file):
    sizes = [len(running.inpaint(image_file, mask_file, format="jpeg", quality=q).content) for q in (20, 90)]
    assert sizes[0] < sizes[1]


def test_profile_exif_alpha_and_orientation_are_kept(running, photo, hole, encode):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Me!"
    alpha = np.full(hole.shape, 200, np.uint8)
    file = encode(np.dstack([photo, alpha]), exif=exif, icc_profile=profile)
    turned = np.rot90(hole, -1)
    answer = running.inpaint(file, encode(np.ascontiguousarray(turned)))
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.info["icc_profile"] == profile
        assert dict(image.getexif()) == {ExifTags.Base.Make: "Me!", ExifTags.Base.Orientation: 1}
        pixels = np.asarray(image)
    upright = np.rot90(np.dstack([photo, alpha]), -1)
    np.testing.assert_array_equal(pixels[~turned], upright[~turned])


def test_gray_stays_gray(running, photo, mask_file, encode, decode):
    assert decode(running.inpaint(encode(photo[..., 0]), mask_file).content).shape == photo.shape[:2]


def test_a_mask_is_cut_at_127(running, photo, hole, encode, decode, image_file, mask_file):
    expected = decode(running.inpaint(image_file, mask_file).content)
    soft = np.where(hole, np.uint8(128), np.uint8(127))
    np.testing.assert_array_equal(decode(running.inpaint(image_file, encode(soft)).content), expected)


def test_short_memory_is_told_as_such(running, image_file, mask_file, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    answer = running.inpaint(image_file, mask_file)
    assert refused(answer) == (503, "memory")
    assert "0.0 GB are free" in answer.json()["error"]


def test_nothing_missing_gives_the_picture_back(running, photo, hole, image_file, encode, decode):
    np.testing.assert_array_equal(decode(running.inpaint(image_file, encode(hole & False)).content), photo)


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code of an error, whose text is one line."""
    content = answer.json()
    assert set(content) == {"error", "code"}
    assert "\n" not in content["error"]
    return answer.status_code, content["code"]


def test_what_is_wrong_with_a_picture_is_named(running, photo, hole, image_file, mask_file, encode):
    send = running.inpaint
    assert refused(send(b"", mask_file)) == (400, "image")
    assert refused(send(b"GIF89a" + bytes(20), mask_file)) == (415, "image")
    assert refused(send(image_file, encode(photo, "TIFF"))) == (415, "mask")
    assert refused(send(image_file[:40], mask_file)) == (400, "image")
    assert refused(send(image_file[:-2000], mask_file)) == (400, "picture")
    assert refused(send(image_file, encode(hole[:50]))) == (400, "size")
    assert refused(send(image_file, encode(np.ascontiguousarray(hole.T)))) == (400, "size")
    assert refused(send(encode(photo[:8, :8]), encode(hole[:8, :8]))) == (400, "size")
    assert refused(send(encode(np.dstack([photo, hole]) * np.uint8(200)), mask_file, format="jpeg"))[0] == 400
    half = np.dstack([hole.astype(np.uint8) * 255, np.full(hole.shape, 9, np.uint8)])
    assert refused(send(image_file, encode(half))) == (400, "picture")


def test_what_is_wrong_with_the_fields_is_named(running, image_file, mask_file):
    send = running.inpaint
    for fields in ({"region": "half"}, {"format": "gif"}, {"quality": "101"}, {"id": "../x"}, {"regoin": "full"}):
        answer = send(image_file, mask_file, **fields)
        assert refused(answer) == (422, "fields")
        assert next(iter(fields)) in answer.json()["error"]
    assert refused(send(image_file, mask_file, model="other")) == (422, "model")
    assert refused(send(image_file, mask_file, precision="fp8")) == (422, "precision")
    assert refused(send(image_file, mask_file, precision="int8")) == (422, "precision")
    post = running.client.post
    assert refused(post("/v1/inpaint", files={"image": ("a", image_file)})) == (422, "fields")
    assert refused(post("/v1/inpaint", files={"image": ("a", image_file), "mask": (None, "text")})) == (422, "fields")
    assert refused(post("/v1/inpaint", json={"image": "eA==", "mask": "eA"})) == (400, "mask")
    assert refused(post("/v1/inpaint", json={"image": "data:image/png,x", "mask": "eA=="})) == (400, "image")
    assert refused(post("/v1/inpaint", json=[1])) == (422, "fields")
    assert refused(post("/v1/inpaint", content=b"{", headers={"content-type": "application/json"})) == (422, "fields")
    assert refused(post("/v1/inpaint", content=image_file, headers={"content-type": "image/png"})) == (
        415,
        "media_type",
    )
    assert refused(post("/v1/nothing")) == (404, "not_found")
    assert refused(running.client.get("/v1/inpaint")) == (405, "method")


def test_a_bad_pair_does_not_fail_the_batch(running, image_file, mask_file, decode):
    images = [("image", (name, data)) for name, data in (("a.png", image_file), ("b", b"no"), ("c.png", image_file))]
    masks = [("mask", ("m.png", mask_file))] * 3
    answer = running.client.post("/v1/batch", files=images + masks, data={"region": "full"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["index"], line["name"], line["status"]) for line in lines] == [
        (0, "a.png", 200),
        (1, "b", 415),
        (2, "c.png", 200),
    ]
    expected = running.inpaint(image_file, mask_file, region="full").content
    assert base64.b64decode(lines[0]["image"]) == base64.b64decode(lines[2]["image"]) == expected
    assert lines[1]["code"] == "image"


def test_a_batch_pairs_each_image_with_a_mask(running, image_file, mask_file):
    files = [("image", ("a", image_file)), ("image", ("b", image_file)), ("mask", ("m", mask_file))]
    assert refused(running.client.post("/v1/batch", files=files)) == (422, "fields")
    assert refused(running.client.post("/v1/batch", json={})) == (415, "media_type")


def test_the_model_can_be_changed(start_server, tiny_bundle, lama_small, photo, hole, image_file, mask_file, decode):
    import glama_deploy

    running = start_server(models={"tiny": str(tiny_bundle.path), "lama": str(lama_small)})
    info = running.client.get("/v1/info").json()
    assert (info["model"], info["models"], info["precision"]) == ("tiny", ["tiny", "lama"], "fp32")
    assert running.client.post("/v1/model", json={"model": "lama"}).json()["model"] == "lama"
    expected = glama_deploy.load(lama_small)(photo, hole)
    np.testing.assert_array_equal(decode(running.inpaint(image_file, mask_file).content), expected)
    # a request may name the model, too
    expected = glama_deploy.load(tiny_bundle.path)(photo, hole)
    np.testing.assert_array_equal(decode(running.inpaint(image_file, mask_file, model="tiny").content), expected)
    assert running.client.get("/v1/info").json()["model"] == "tiny"


def test_the_precision_can_be_changed(start_server, image_file, mask_file):
    running = start_server()
    for precision in running.client.get("/v1/info").json()["precisions"]:
        answer = running.inpaint(image_file, mask_file, precision=precision)
        assert (answer.status_code, answer.headers["x-glama-engine"].split()[-1]) == (200, precision)
        assert running.client.get("/v1/info").json()["precision"] == precision


def test_the_engine_stays_where_another_does_not_open(start_server, tiny_bundle, image_file, mask_file):
    running = start_server(models={"tiny": str(tiny_bundle.path), "gone": "/nowhere/gone"})
    answer = running.client.post("/v1/model", json={"model": "gone"})
    assert refused(answer) == (409, "engine")
    assert running.client.get("/v1/info").json()["model"] == "tiny"
    assert running.inpaint(image_file, mask_file).status_code == 200


def test_info_tells_models_precisions_and_limits(running, inpainter):
    info = running.client.get("/v1/info").json()
    assert info["engine"] == inpainter.description
    assert info["precisions"] == list(inpainter.precisions)
    assert info["queue"] == {"length": 0, "running": 0, "capacity": 32}
    assert (info["max_pixels"], info["max_bytes"]) == (64_000_000, 64 << 20)
    assert (info["token_required"], info["output_dir"], info["ready"]) == (False, False, True)


def test_probes_and_metrics(running, image_file, mask_file):
    assert running.client.get("/healthz").json() == {"status": "ok"}
    assert running.client.get("/readyz").json() == {"status": "ready"}
    running.inpaint(image_file, mask_file)
    running.client.get("/no/such/path")
    metrics = running.client.get("/metrics").text
    for name in (
        'glama_requests_total{method="POST",path="/v1/inpaint",status="200"}',
        'glama_stage_seconds_count{stage="network"}',
        'glama_requests_total{method="GET",path="other",status="404"}',
        "glama_queue_length 0.0",
        "process_resident_memory_bytes",
    ):
        assert name in metrics
    assert "/no/such/path" not in metrics  # a client could fill the memory with paths


def test_the_reference_lists_every_path_and_loads_nothing_from_elsewhere(running):
    paths = running.client.get("/openapi.json").json()["paths"]
    assert {"/v1/inpaint", "/v1/batch", "/v1/model", "/v1/info", "/v1/requests/{name}", "/v1/events"} <= set(paths)
    page = running.client.get("/docs").text
    assert page.count("Fill the missing pixels of a picture.") == 1
    style = running.client.get("/docs.css")
    assert style.headers["content-type"].startswith("text/css")
    assert 'href="/docs.css"' in page
    assert all(f"<code>{method.upper()} {path}</code>" in page for path in paths for method in paths[path])
    assert "<script" not in page
    assert "//" not in page.replace("<!doctype html>", "")


def test_events_tell_a_change_of_the_model(start_server, tiny_bundle):
    running = start_server(models={"one": str(tiny_bundle.path), "two": str(tiny_bundle.path)})
    with running.client.stream("GET", "/v1/events") as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert json.loads(next(lines).removeprefix("data: "))["model"] == "one"
        httpx.post(f"{running.url}/v1/model", json={"model": "two"}, timeout=600)
        assert any(json.loads(line.removeprefix("data: "))["model"] == "two" for line in lines)


def test_the_log_has_a_line_for_each_request_without_the_token_or_pictures(
    running, image_file, mask_file, caplog, wait_until, monkeypatch
):
    def read() -> list[dict]:
        return [json.loads(record.getMessage()) for record in caplog.handler.records]

    # whatever a command that ran before in this process has set
    monkeypatch.setattr(access_log, "propagate", False)
    monkeypatch.setattr(access_log, "handlers", [caplog.handler])
    with caplog.at_level("INFO", access_log.name):
        running.inpaint(image_file, mask_file)
        running.client.get("/healthz?token=secret")
        wait_until(lambda: len(read()) == 2)  # a line is written when the answer was sent
    first, second = read()
    assert (first["method"], first["path"], first["status"], first["size"]) == ("POST", "/v1/inpaint", 200, [96, 120])
    assert {"total", "queue", "decode", "network", "encode"} == set(first["seconds"])
    assert first["received_bytes"] > len(image_file)
    assert (second["path"], "secret" in json.dumps(second)) == ("/healthz", False)


def test_the_pages_code_travels_compressed(running):
    plain = running.client.get("/page/main.js", headers={"Accept-Encoding": "identity"})
    packed = running.client.get("/page/main.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    kept = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]}
    assert running.client.get("/page/main.js", headers=kept).status_code == 304
