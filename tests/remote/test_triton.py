"""Repositories and clients of Triton, with the real server of `make triton`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from fakes.tensorrt_bundles import with_engine
from glama_deploy.bundle import MANIFEST, Bundle, SizeRange, manifest_text
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.engines.repositories.repository import RepositoryRequest, write_repository
from glama_deploy.errors import EngineError
from glama_deploy.remote.connect import connect
from glama_deploy.remote.connection import Connection
from glama_deploy.remote.kserve import encode_request
from triton_server import TritonServer, run_in_environment, why_absent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_absent()), reason=why_absent() or "Triton is here"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Triton's own messages refuse a field that they do not have, and a value of another type.
_PARSE = """
import pathlib, sys
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
for path in sys.argv[1:]:
    config = text_format.Parse(pathlib.Path(path).read_text("utf-8"), ModelConfig())
    print(config.name, config.backend, config.max_batch_size, len(config.input), len(config.model_warmup))
"""


@pytest.fixture(scope="module")
def bundle(tiny, make_bundle, tmp_path_factory) -> Bundle:
    """The manifest has letters beyond ASCII, the encoding of the interpreter inside the server."""
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "Réseau.safetensors"
    shutil.copy(tiny, checkpoint)
    return make_bundle(checkpoint, ("openvino",), io="uint8")


@pytest.fixture(scope="module")
def repositories(tiny, tiny_bundle, make_bundle, bundle, tmp_path_factory) -> dict[str, Path]:
    """A repository for each backend, by the name of its model."""
    folder = tmp_path_factory.mktemp("repositories")
    with_plan = folder / "bundle"
    shutil.copytree(bundle.path, with_plan)
    profiles = tuple(SizeRange(min=(64, 64), opt=(side, side), max=(256, 256)) for side in (64, 128))
    (with_plan / MANIFEST).write_text(manifest_text(with_engine(bundle, profiles=profiles).manifest), encoding="utf-8")
    fixed = make_bundle(tiny, ("onnx",), io="uint8", size=(64, 64)).path
    asked = {
        "boxes": (bundle.path, "python"),
        "floats": (tiny_bundle.path, "python"),
        "graph": (bundle.path, "onnxruntime"),
        "fixed": (fixed, "onnxruntime"),
        "ir": (bundle.path, "openvino"),
        "plan": (with_plan, "tensorrt"),
    }
    return {
        name: write_repository(RepositoryRequest(source, "triton", folder / name, backend, name)).parent
        for name, (source, backend) in asked.items()
    }


@pytest.fixture(scope="module")
def triton(repositories, tmp_path_factory):
    server = TritonServer(list(repositories.values()), tmp_path_factory.mktemp("triton"))
    yield server
    server.stop()


@pytest.fixture
def files(photo, hole, tmp_path) -> tuple[Path, Path, Path]:
    """The paths of a picture, its mask, and an output that does not exist."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "out.png"


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_tritons_own_messages_take_every_field(repositories, tmp_path):
    configs = [folder / name / "config.pbtxt" for name, folder in repositories.items()]
    done = run_in_environment("-c", _PARSE, *configs)
    assert done.stdout.splitlines() == [
        "boxes python 0 2 1",
        "floats python 0 2 1",
        "graph onnxruntime 0 2 1",
        "fixed onnxruntime 8 2 1",
        "ir openvino 0 2 1",
        "plan tensorrt 0 2 2",  # a request for each profile
    ], done.stderr
    (tmp_path / "config.pbtxt").write_text(configs[0].read_text(encoding="ascii") + "max_batch: 3\n", encoding="ascii")
    assert 'no field named "max_batch"' in run_in_environment("-c", _PARSE, tmp_path / "config.pbtxt").stderr


@pytest.mark.parametrize("name", ["graph", "fixed", "ir", "plan"])
def test_the_other_backends_are_refused_for_their_library_alone(triton, name):
    """The server of `make triton` has the Python backend only. It parses and checks a configuration before."""
    model = triton.list_models()[name]
    assert model["state"] == "UNAVAILABLE"
    backend = {"graph": "onnxruntime", "fixed": "onnxruntime", "ir": "openvino", "plan": "tensorrt"}[name]
    assert f"unable to find backend library for backend '{backend}'" in model["reason"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nvidias_client_gets_the_bytes_of_glama_deploy(triton, bundle, files, photo, hole, protocol):
    """The example, in Python with NVIDIA's client, which shares no code with ours."""
    address = ["--url", triton.url.removeprefix("http://")] if protocol == "http" else ["--url", triton.grpc, "--grpc"]
    done = run_in_environment(EXAMPLES / "triton_client.py", *files, "--model", "boxes", *address)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read(files[2]), glama_deploy.load(bundle.path)(photo, hole))


def test_curl_gets_the_bytes_of_glama_deploy(triton, bundle, photo, hole, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    Image.fromarray(hole.astype(np.uint8) * np.uint8(255)).save(tmp_path / "mask.pgm")
    command = ["sh", EXAMPLES / "curl_triton.sh", "photo.ppm", "mask.pgm", "filled.ppm", triton.url, "boxes"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert np.array_equal(read(tmp_path / "filled.ppm"), glama_deploy.load(bundle.path)(photo, hole))


@pytest.mark.parametrize("model", ["boxes", "floats"])
@pytest.mark.parametrize("region", ["crop", "full"])
def test_a_picture_is_filled_as_on_this_machine(triton, bundle, tiny_bundle, files, capsys, model, region):
    path = bundle.path if model == "boxes" else tiny_bundle.path
    photo, mask, out = files
    code = glama_inpaint.run(
        [str(photo), str(mask), str(out), "--server", triton.url, "--model", model, "--region", region]
    )
    assert code == 0
    assert f"triton 2.51.0 at {triton.url}: {model} fp32" in capsys.readouterr().err
    expected = glama_deploy.load(path)(read(photo), read(mask), region=region)
    assert np.array_equal(read(out), expected)


def test_only_boxes_travel(triton, monkeypatch):
    """Of a large picture with two small holes, the client sends boxes that are much smaller than the picture."""
    sent: list[int] = []
    post = Connection.post

    def post_and_count(connection, path, body, headers):
        sent.append(len(body))
        return post(connection, path, body, headers)

    monkeypatch.setattr(Connection, "post", post_and_count)
    image = np.full((1200, 1600, 3), 90, np.uint8)
    mask = np.zeros((1200, 1600), bool)
    mask[100:110, 100:110] = mask[1000:1010, 1500:1510] = True
    filled = connect(triton.url, "boxes")(image, mask)
    assert (filled[~mask] == 90).all()
    assert sent
    assert sum(sent) < image.nbytes / 4


def test_several_images_of_a_request_are_filled_like_each_alone(triton, bundle, photo, hole):
    images, masks = np.stack([photo, photo[::-1]]), np.stack([hole, hole[::-1]])
    filled = connect(triton.url, "boxes").batch(images, masks)
    assert np.array_equal(filled, glama_deploy.load(bundle.path).batch(images, masks))


def test_a_picture_that_cannot_be_filled_is_an_error_of_one_line(triton):
    """The request is sent past the planner, which would refuse it on this machine."""
    tensors = {"image": np.zeros((1, 8, 64, 3), np.uint8), "mask": np.ones((1, 8, 64), np.uint8)}
    answer = Connection(triton.url).post("/v2/models/boxes/infer", *encode_request(tensors, "inpainted", {}))
    assert answer.status == 400
    assert "the image is 8x64; both sides must be from 16 to 16384 pixels" in json.loads(answer.body)["error"]


def test_a_region_that_does_not_exist_is_an_error_of_one_line(triton, photo, hole):
    tensors = {"image": photo[None], "mask": hole[None].view(np.uint8)}
    request = encode_request(tensors, "inpainted", {"region": "half"})
    answer = Connection(triton.url).post("/v2/models/boxes/infer", *request)
    assert answer.status == 400
    assert "`region` is 'half'; expected auto, full, crop" in answer.reason


def test_a_model_that_the_server_does_not_have_is_named(triton):
    with pytest.raises(EngineError, match=r"model other at .* is not ready .*; the server has boxes, floats: give a"):
        connect(triton.url, "other")
    with pytest.raises(EngineError, match=r"has 2 models \(boxes, floats\); give the name of one in `model`"):
        connect(triton.url)


def test_the_port_of_grpc_is_not_taken_for_a_server(triton):
    with pytest.raises(EngineError, match=r"the answer is not HTTP"):
        connect(triton.grpc)
