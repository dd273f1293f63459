"""Clients of lama-cleaner work unchanged. The requests are written from its published protocol (server.py of 1.2)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

#: What the plug-in of ImageTrans sends beside the two files.
FIELDS = {
    "ldmSteps": "50", "ldmSampler": "plms", "zitsWireframe": "true", "hdStrategy": "Resize",
    "hdStrategyCropMargin": "196", "hdStrategyCropTrigerSize": "2048", "hdStrategyResizeLimit": "2048",
    "prompt": "", "negativePrompt": "", "useCroper": "false", "croperX": "228", "croperY": "450",
    "croperWidth": "512", "croperHeight": "512", "sdScale": "1", "sdMaskBlur": "5", "sdSteps": "50",
    "sdGuidanceScale": "7.5", "sdStrength": "0.75", "sdSampler": "uni_pc", "sdSeed": "-1",
    "sdMatchHistograms": "false", "cv2Flag": "INPAINT_NS", "cv2Radius": "5", "paintByExampleSteps": "50",
    "paintByExampleSeed": "-1", "p2pSteps": "50", "p2pGuidanceScale": "7.5",
    "controlnet_conditioning_scale": "0.4", "controlnet_method": "control_v11p_sd15_canny",
}  # fmt: skip


def test_the_plug_in_of_imagetrans_fills_a_page(running, photo, hole, encode, decode, inpainter):
    """ImageTrans asks with HEAD whether the server runs, then sends a JPEG, a black and white PNG, and 30 fields."""
    assert running.client.head("/inpaint").status_code in (404, 405)  # the plug-in takes both for a server that runs
    jpeg = encode(photo, "JPEG", quality=100)
    files = {
        "image": ("origin.jpg", jpeg, "image/jpg"),
        "mask": ("mask.png", encode(np.repeat(hole[..., None] * np.uint8(255), 3, axis=2)), "image/png"),
    }
    answer = running.client.post("/inpaint", files=files, data=FIELDS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert int(answer.headers["x-seed"]) > 0
    filled = decode(answer.content).astype(int)
    expected = inpainter(decode(jpeg), hole).astype(int)
    # a JPEG of quality 95 is within a few values of what was encoded
    assert np.abs(filled - expected).mean() < 3


def test_errors_are_text(running, image_file, mask_file, encode, hole):
    for answer, status in (
        (running.inpaint(image_file, encode(hole[:50]), "/inpaint", **FIELDS), 400),
        (running.client.post("/inpaint", data=FIELDS), 415),
        (running.client.post("/model", data={"name": "mat"}), 422),
        (running.client.post("/run_plugin", data={"name": "RemoveBG"}), 422),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")


def test_the_other_paths_answer_as_lama_cleaner_does(start_server, tiny_bundle):
    client = start_server(models={"lama": str(tiny_bundle.path), "other": str(tiny_bundle.path)}).client
    assert client.get("/model").text == "lama"
    assert client.post("/model", data={"name": "lama"}).text == "Same model"
    assert client.post("/model", data={"name": "other"}).text == "ok, switch to other"
    assert client.get("/model").text == "other"
    assert [client.get(f"/model_downloaded/{name}").text for name in ("lama", "mat")] == ["True", "False"]
    assert client.get("/is_desktop").text == "False"
    assert client.get("/server_config").json()["plugins"] == []


def test_the_answer_keeps_alpha(running, photo, hole, encode):
    pixels = np.dstack([photo, np.full(hole.shape, 77, np.uint8)])
    answer = running.inpaint(encode(pixels), encode(hole), "/inpaint")
    with Image.open(io.BytesIO(answer.content)) as image:
        np.testing.assert_array_equal(np.asarray(image)[~hole], pixels[~hole])
