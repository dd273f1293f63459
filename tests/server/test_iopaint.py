"""Clients of IOPaint 1.6 work unchanged. The requests are written from its published protocol (api.py, schema.py)."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image


def text(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def post(running):
    return lambda path, **body: running.client.post(f"/api/v1/{path}", json=body)


def test_the_plug_in_of_krita_fills_a_selection(post, photo, hole, encode, decode, inpainter):
    """krita-iopaint posts two data URLs and nothing else: the layer as ARGB, the selection as gray with soft edges."""
    layer = encode(np.dstack([photo, np.full(hole.shape, 255, np.uint8)]))
    selection = np.where(hole, np.uint8(255), np.uint8(0))
    selection[0, :5] = 127  # a faint edge of the selection is not filled
    answer = post("inpaint", image=text(layer), mask=text(encode(selection)))
    answer.raise_for_status()
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "PNG"  # the plug-in reads it as PNG
    pixels = decode(answer.content)
    np.testing.assert_array_equal(pixels[..., :3], inpainter(photo, hole))
    np.testing.assert_array_equal(pixels[..., 3], 255)


def test_a_client_that_sends_all_fields_gets_a_picture(post, image_file, mask_file, decode, photo, hole):
    """IOPaint's own page and iopaint-mcp send every field with its default."""
    fields = {
        "ldm_steps": 20, "ldm_sampler": "plms", "zits_wireframe": True,
        "hd_strategy": "Crop", "hd_strategy_crop_trigger_size": 800, "hd_strategy_crop_margin": 128,
        "hd_strategy_resize_limit": 1280, "prompt": "", "negative_prompt": "",
        "use_croper": False, "croper_x": 0, "croper_y": 0, "croper_height": 512, "croper_width": 512,
        "use_extender": False, "sd_scale": 1.0, "sd_mask_blur": 11, "sd_strength": 1.0, "sd_steps": 50,
        "sd_guidance_scale": 7.5, "sd_sampler": "UniPC", "sd_seed": 7, "sd_match_histograms": False,
        "cv2_flag": "INPAINT_NS", "cv2_radius": 4, "paint_by_example_example_image": None,
        "enable_controlnet": False, "enable_brushnet": False, "powerpaint_task": "text-guided",
    }  # fmt: skip
    answer = post("inpaint", image=base64.b64encode(image_file).decode(), mask=text(mask_file), **fields)
    assert (answer.status_code, answer.headers["x-seed"]) == (200, "7")
    np.testing.assert_array_equal(decode(answer.content)[~hole], photo[~hole])


def test_the_answer_has_the_format_and_metadata_of_the_picture(post, photo, hole, encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Me!"
    image = encode(photo, "JPEG", exif=exif, icc_profile=b"profile")
    answer = post(
        "inpaint", image=text(image, "application/octet-stream"), mask=text(encode(np.rot90(hole, -1).copy()))
    )
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (96, 120)  # upright
        assert (dict(image.getexif()), image.info["icc_profile"]) == (
            {ExifTags.Base.Make: "Me!", ExifTags.Base.Orientation: 1},
            b"profile",
        )


def test_a_form_is_taken_too(running, image_file, mask_file):
    answer = running.inpaint(image_file, mask_file, "/api/v1/inpaint", hd_strategy="Original", sd_seed="-1")
    assert answer.status_code == 200
    assert int(answer.headers["x-seed"]) > 0


def test_the_strategy_original_shows_the_network_the_whole_picture(post, image_file, mask_file, running):
    answer = post("inpaint", image=text(image_file), mask=text(mask_file), hd_strategy="Original")
    assert answer.content == running.inpaint(image_file, mask_file, region="full").content


def test_errors_have_the_fields_of_iopaint(post, running, image_file, mask_file, encode, hole):
    for answer, status in (
        (post("inpaint", image=text(image_file), mask=text(encode(hole[:50]))), 400),
        (post("inpaint", image=text(image_file)), 422),
        (post("inpaint", image=text(image_file), mask=text(mask_file), hd_strategy="Other"), 422),
        (post("inpaint", image=text(b"no picture"), mask=text(mask_file)), 415),
        (post("model", name="mat"), 422),
        (post("model"), 422),
        (post("run_plugin_gen_mask", name="InteractiveSeg", image=text(image_file), clicks=[[1, 2, 1]]), 422),
        (post("run_plugin_gen_image", name="RemoveBG", image=text(image_file)), 422),
        (running.client.get("/api/v1/nothing"), 404),
    ):
        assert (answer.status_code, set(answer.json())) == (status, {"error", "detail", "body", "errors"})
    assert "Plugin not found" in post("run_plugin_gen_image", name="RemoveBG", image="").json()["detail"]


def test_models_are_described_and_changed(start_server, tiny_bundle):
    running = start_server(models={"lama": str(tiny_bundle.path), "other": str(tiny_bundle.path)})
    get, change = running.client.get, running.client.post
    info = get("/api/v1/model").json()
    assert (info["name"], info["path"], info["model_type"], info["need_prompt"]) == ("lama", "lama", "inpaint", False)
    assert {f"support_{what}" for what in ("strength", "outpainting", "lcm_lora", "powerpaint_v2")} <= set(info)
    assert change("/api/v1/model", json={"name": "other"}).json()["name"] == "other"
    assert get("/api/v1/model").json()["name"] == "other"
    config = get("/api/v1/server-config").json()
    assert [model["name"] for model in config["modelInfos"]] == ["lama", "other"]
    assert (config["plugins"], config["enableFileManager"], config["enableAutoSaving"]) == ([], False, False)
    assert set(config) == {
        "plugins", "modelInfos", "removeBGModel", "removeBGModels", "realesrganModel", "realesrganModels",
        "interactiveSegModel", "interactiveSegModels", "enableFileManager", "enableAutoSaving", "enableControlnet",
        "controlnetMethod", "disableModelSwitch", "isDesktop", "samplers",
    }  # fmt: skip
    assert get("/api/v1/samplers").json() == []


@pytest.mark.parametrize("operation", ["expand", "shrink", "reverse"])
@pytest.mark.parametrize("radius", [0, 1, 5, 8, 13])
def test_a_mask_is_adjusted_as_opencv_does(post, operation, radius, encode, decode):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(radius)
    mask = (rng.random((90, 120)) > 0.98).astype(np.uint8) * 255
    mask[40:, 60:] = 255  # survives when the mask is shrunk
    answer = post("adjust_mask", mask=text(encode(mask)), operate=operation, kernel_size=radius)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    change = {"expand": cv2.dilate, "shrink": cv2.erode, "reverse": lambda mask, _: 255 - mask}[operation]
    expected = np.zeros((90, 120, 4), np.uint8)
    expected[change(mask, ellipse) > 0] = (255, 203, 0, 186)
    assert expected.any()
    np.testing.assert_array_equal(decode(answer.content), expected)


def test_a_mask_is_not_adjusted_by_more_than_a_picture(post, mask_file):
    assert post("adjust_mask", mask=text(mask_file), operate="expand", kernel_size=10**6).status_code == 422
    assert post("adjust_mask", mask=text(mask_file), operate="turn").status_code == 422


def test_the_offered_picture_is_given(running, start_server, tmp_path, image_file):
    none = running.client.get("/api/v1/inputimage")
    assert (none.status_code, none.json()["detail"]) == (200, "No input image configured")
    (tmp_path / "in.png").write_bytes(image_file)
    assert start_server(input=tmp_path / "in.png").client.get("/api/v1/inputimage").content == image_file


def save(running, name: str, data: bytes):
    return running.client.post("/api/v1/save_image", files={"file": (name, data)})


def test_pictures_are_saved_below_the_output_folder_alone(start_server, running, tmp_path, image_file, encode, hole):
    assert save(running, "a.png", image_file).status_code == 400  # without --output-dir
    out = tmp_path / "out"
    out.mkdir()
    saving = start_server(output_dir=out)
    for name in ("a.png", "../b.png", "/etc/c.png", "..\\d.png", "C:\\x\\e.png", "a b (1).PNG"):
        assert save(saving, name, image_file).status_code == 200, name
    assert {path.name for path in out.iterdir() if not path.name.startswith(".glama")} == {
        "a.png", "b.png", "c.png", "d.png", "e.png", "a b (1).PNG",
    }  # fmt: skip
    assert (out / "b.png").read_bytes() == image_file
    for name in (
        "..",
        "x/..",
        ".hidden.png",
        "a.sh",
        "a.png\x00.sh",
        "a",
        "-a.png",
        "a" * 300 + ".png",
        "a\n.png",
        "ü" * 190 + ".png",
        "a.jpg",
        "a.bmp",
        "nul.png",  # a device of Windows
        "COM1.tar.png",
        "aux .png",
    ):
        assert save(saving, name, image_file).status_code == 422, name
    assert save(saving, "a.png", b"#!/bin/sh").status_code == 415
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert save(saving, "a.png", encode(hole)).status_code == 200  # replaced, as IOPaint does
    assert (out / "a.png").read_bytes() == encode(hole)


def test_a_folder_that_cannot_be_written_is_not_told_to_clients(start_server, tmp_path, image_file):
    out = tmp_path / "out"
    out.mkdir()
    saving = start_server(output_dir=out)
    out.rmdir()
    answer = save(saving, "a.png", image_file)
    assert (answer.status_code, answer.json()["error"]) == (507, "disk")
    assert "cannot write a.png: " in answer.json()["detail"]
    assert str(tmp_path) not in answer.text


def test_json_needs_no_content_type(running, image_file, mask_file):
    body = json.dumps({"image": text(image_file), "mask": text(mask_file)})
    assert running.client.post("/api/v1/inpaint", content=body).status_code == 200


def test_a_link_in_the_output_folder_is_replaced_and_not_followed(start_server, tmp_path, image_file):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "secret").write_text("secret")
    (out / "a.png").symlink_to(tmp_path / "secret")
    assert save(start_server(output_dir=out), "a.png", image_file).status_code == 200
    assert (tmp_path / "secret").read_text() == "secret"
    assert (out / "a.png").read_bytes() == image_file


def test_the_file_manager_gives_pictures_of_its_folders_alone(start_server, running, tmp_path, image_file, decode):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(image_file)
    (folder / "b.txt").write_text("text")
    (tmp_path / "secret.png").write_bytes(image_file)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    offering = start_server(input=folder).client
    (media,) = offering.get("/api/v1/medias", params={"tab": "input"}).json()
    assert (media["name"], media["height"], media["width"]) == ("a.png", 96, 120)
    assert offering.get("/api/v1/media_file", params={"tab": "input", "filename": "a.png"}).content == image_file
    small = offering.get("/api/v1/media_thumbnail_file", params={"tab": "input", "filename": "a.png", "width": 60})
    assert (small.headers["x-width"], small.headers["x-height"]) == ("60", "48")
    assert decode(small.content).shape == (48, 60, 3)
    for name in ("../secret.png", "link.png", str(tmp_path / "secret.png"), "b.txt", "", "a.png/../a.png"):
        for path in ("media_file", "media_thumbnail_file"):
            assert offering.get(f"/api/v1/{path}", params={"tab": "input", "filename": name}).status_code == 422
    assert offering.get("/api/v1/medias", params={"tab": "/"}).status_code == 422
    assert running.client.get("/api/v1/medias", params={"tab": "input"}).status_code == 404
