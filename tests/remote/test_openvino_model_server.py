"""Repositories and clients of OpenVINO Model Server, with a stand-in around real OpenVINO (tests/fakes)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import glama_deploy
from fakes.openvino_model_server import OpenVINOModelServer
from glama_deploy.bundle import Bundle
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.engines.repositories.repository import RepositoryRequest, write_repository
from glama_deploy.errors import EngineError
from glama_deploy.remote.connect import connect
from triton_server import find_packages, run_in_environment

EXAMPLES = Path(__file__).parents[2] / "examples"

#: The fields of a model that the server's schema has (src/schema.cpp of 2026), with the JSON types that it takes.
_FIELDS = {
    "name": str,
    "base_path": str,
    "batch_size": (int, str),
    "model_version_policy": dict,
    "shape": (dict, str),
    "layout": (dict, str),
    "nireq": int,
    "target_device": str,
    "plugin_config": dict,
}


@pytest.fixture(scope="module")
def bundle(tiny, make_bundle) -> Bundle:
    return make_bundle(tiny, ("openvino",), io="uint8")


@pytest.fixture(scope="module")
def repositories(bundle, tmp_path_factory) -> dict[str, Path]:
    """A repository for each order of the channels."""
    folder = tmp_path_factory.mktemp("repositories")
    for color in ("bgr", "rgb"):
        write_repository(RepositoryRequest(bundle.path, "ovms", folder / color, color=color))
    return {color: folder / color for color in ("bgr", "rgb")}


@pytest.fixture
def server(repositories):
    running = OpenVINOModelServer(repositories["bgr"])
    yield running
    running.stop()


@pytest.fixture
def files(photo, hole, tmp_path) -> tuple[Path, Path]:
    """The paths of a picture, and of a mask in gray."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole.astype(np.uint8) * np.uint8(255)).save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png"


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_the_configuration_keeps_to_the_servers_schema(repositories):
    tree = json.loads((repositories["bgr"] / "config.json").read_text(encoding="utf-8"))
    assert set(tree) == {"model_config_list"}
    (entry,) = tree["model_config_list"]
    assert set(entry) == {"config"}
    config = entry["config"]
    assert set(config) <= set(_FIELDS)
    assert all(isinstance(value, _FIELDS[field]) for field, value in config.items())
    assert all(isinstance(value, str) for value in config["layout"].values())
    assert all(isinstance(value, str | bool | int | float) for value in config["plugin_config"].values())
    assert config["model_version_policy"] == {"latest": {"num_versions": 1}}
    assert sorted(path.name for path in (repositories["bgr"] / config["base_path"] / "1").iterdir()) == [
        "model.bin",
        "model.xml",
    ]


def test_instances_are_streams_of_the_engine(bundle, tmp_path):
    write_repository(RepositoryRequest(bundle.path, "ovms", tmp_path / "r", instances=3))
    config = json.loads((tmp_path / "r" / "config.json").read_text(encoding="utf-8"))["model_config_list"][0]["config"]
    assert config["nireq"] == 3
    assert config["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 3}


def test_every_side_of_the_model_is_free(server):
    """OpenVINO bounds the sides of the bundle's output, which Triton's OpenVINO backend refuses."""
    shapes = {port.get_any_name(): str(port.get_partial_shape()) for port in server.model.inputs + server.model.outputs}
    assert shapes == {"image": "[?,?,?,3]", "mask": "[?,?,?,1]", "inpainted": "[?,?,?,3]"}


def test_files_are_filled_as_glama_deploy_fills_them(repositories, bundle, photo, hole):
    """OpenCV decodes a file as the server does: BGR, and one channel of a gray mask."""
    server = OpenVINOModelServer(repositories["bgr"])
    try:
        image = cv2.imdecode(cv2.imencode(".png", photo[..., ::-1])[1], cv2.IMREAD_UNCHANGED)
        mask = cv2.imdecode(cv2.imencode(".png", hole.astype(np.uint8))[1], cv2.IMREAD_UNCHANGED)
        filled = server.compiled({"image": image[None], "mask": mask[None, ..., None]})["inpainted"][0]
    finally:
        server.stop()
    assert np.array_equal(filled[..., ::-1], glama_deploy.load(bundle.path)(photo, hole, region="full"))


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_the_client_fills_as_on_this_machine(repositories, bundle, files, photo, hole, tmp_path, capsys, color):
    server = OpenVINOModelServer(repositories[color])
    try:
        code = glama_inpaint.run([*map(str, files), str(tmp_path / "out.png"), "--server", server.url])
    finally:
        server.stop()
    assert code == 0
    assert "OpenVINO Model Server 2026.3.0 at http" in capsys.readouterr().err
    assert np.array_equal(read(tmp_path / "out.png"), glama_deploy.load(bundle.path)(photo, hole))


def test_curl_sends_files_and_gets_the_bytes_of_glama_deploy(server, bundle, files, photo, hole, tmp_path):
    command = ["sh", EXAMPLES / "curl_ovms.sh", *files, tmp_path / "filled.tga", server.url]
    subprocess.run(command, check=True)
    assert np.array_equal(read(tmp_path / "filled.tga"), glama_deploy.load(bundle.path)(photo, hole, region="full"))


@pytest.mark.skipif(find_packages() is None, reason="tritonclient is not installed (make triton)")
def test_nvidias_client_sends_files_and_gets_the_bytes_of_glama_deploy(server, bundle, files, photo, hole, tmp_path):
    url = server.url.removeprefix("http://")
    done = run_in_environment(EXAMPLES / "ovms_client.py", *files, tmp_path / "filled.png", "--url", url)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read(tmp_path / "filled.png"), glama_deploy.load(bundle.path)(photo, hole, region="full"))


def test_a_server_that_goes_away_leaves_finished_pictures_and_the_same_command_goes_on(
    repositories, bundle, photo, hole, tmp_path, capsys
):
    pictures, masks, out = (tmp_path / name for name in ("pictures", "masks", "out"))
    for folder, pixels in ((pictures, photo), (masks, hole)):
        folder.mkdir()
        for name in "abcd":
            Image.fromarray(pixels).save(folder / f"{name}.png")
    command = [str(pictures), str(masks), str(out), "--jobs", "1", "--server"]
    server = OpenVINOModelServer(repositories["bgr"])
    server.max_answers = 1
    try:
        assert glama_inpaint.run([*command, server.url]) == 2
    finally:
        server.stop()
    assert "no server answers at" in capsys.readouterr().err
    (done,) = out.iterdir()
    before = done.stat().st_mtime_ns
    assert glama_inpaint.run([*command, server.url]) == 2  # nothing listens
    server = OpenVINOModelServer(repositories["bgr"])
    try:
        assert glama_inpaint.run([*command, server.url]) == 0
    finally:
        server.stop()
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    assert done.stat().st_mtime_ns == before
    expected = glama_deploy.load(bundle.path)(photo, hole)
    assert all(np.array_equal(read(path), expected) for path in out.iterdir())


def test_a_file_that_the_server_refuses_is_an_error_with_its_reason(server):
    """The model takes three channels."""
    from glama_deploy.remote.connection import Connection

    image = cv2.imencode(".png", np.zeros((32, 32, 4), np.uint8))[1].tobytes()
    data = len(image).to_bytes(4, "little") + image
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    answer = Connection(server.url).post("/v2/models/glama/infer", header + data, headers)
    assert answer.reason == "HTTP 400, Invalid number of channels in binary input"


def test_a_model_that_glama_package_did_not_write_is_named(server):
    server.model.set_rt_info("{}", ["model_info", "glama_deploy"])
    with pytest.raises(EngineError, match=r"model glama at .* has no description that this version reads; write"):
        connect(server.url)
