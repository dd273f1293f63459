"""The programs of examples/cpp and examples/node give the bytes that ONNX Runtime gives in Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.bundle import Bundle

onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Whether the compiler's warnings are errors, as for code that people copy.
STRICT = "-Wall -Wextra -Wpedantic -Werror"

pytestmark = pytest.mark.slow  # a compiler and engines in processes of their own

#: Runs a program of the examples with paths, and returns how the program ended.
Program = Callable[..., "subprocess.CompletedProcess[str]"]


def find_headers() -> Path:
    """Return the folder of ONNX Runtime's C++ headers, or skip the test."""
    places = [Path(os.environ.get("ONNXRUNTIME_ROOT", "/nowhere"), "include"), Path("/usr/include/onnxruntime")]
    for place in places:
        if found := next(place.rglob("onnxruntime_cxx_api.h"), None):
            return found.parent
    pytest.skip("no headers of ONNX Runtime here: ONNXRUNTIME_ROOT may name an unpacked release")


def build_cpp(folder: Path) -> list[str]:
    """Build the C++ program against the library of the Python package, which has the headers' functions."""
    headers = find_headers()
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("no cmake or no C++ compiler here (Debian: apt-get install cmake g++)")
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("this package of ONNX Runtime has no shared library for Linux")
    (folder / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    (folder / "include").symlink_to(headers)
    build = folder / "build"
    settings = [f"-DONNXRUNTIME_ROOT={folder}", f"-DCMAKE_CXX_FLAGS={STRICT}"]
    for command in (["cmake", "-S", EXAMPLES / "cpp", "-B", build, *settings], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr
    return [str(build / "glama_fill")]


def find_node() -> list[str]:
    """Return the command of the program for Node.js, or skip the test."""
    node, script = shutil.which("node"), EXAMPLES / "node" / "fill_picture.js"
    if node is None:
        pytest.skip("no Node.js here (Debian: apt-get install nodejs)")
    found = subprocess.run([node, "-e", "require('onnxruntime-node')"], cwd=script.parent, capture_output=True)
    if found.returncode != 0:
        pytest.skip("no onnxruntime-node here: npm install in examples/node, or NODE_PATH names a node_modules")
    return [node, str(script)]


@pytest.fixture(scope="module", params=["cpp", "node"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    command = find_node() if request.param == "node" else build_cpp(tmp_path_factory.mktemp("cpp"))

    def run(*paths: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *map(str, paths)], capture_output=True, encoding="utf-8")

    return run


@pytest.fixture(scope="module")
def bundle(tiny: Path, make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(tiny, ("onnx",), io="uint8")


@pytest.fixture
def files(tmp_path: Path, photo: np.ndarray, hole: np.ndarray) -> list[Path]:
    """A picture and its mask. The sides, 93 and 117 pixels, are no multiples of 8."""
    paths = [tmp_path / "photo.ppm", tmp_path / "mask.pgm"]
    Image.fromarray(photo[:93, :117]).save(paths[0])
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)[:93, :117]).save(paths[1])
    return paths


def test_a_program_gives_the_bytes_of_python(program, bundle, files, tmp_path):
    done = program(bundle.path / "model.onnx", *files, tmp_path / "out.ppm")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    picture, missing = np.asarray(Image.open(files[0])), np.asarray(Image.open(files[1])) > 0
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx")
    (expected,) = session.run(["inpainted"], {"image": picture[None], "mask": missing.astype(np.uint8)[None]})
    filled = np.asarray(Image.open(tmp_path / "out.ppm"))
    assert np.array_equal(filled, expected[0])
    assert np.array_equal(filled[~missing], picture[~missing])
    assert np.ptp(filled[missing]) > 0
    inpainter = glama_deploy.load(bundle.path, backend="onnxruntime")
    whole = inpainter(picture, missing, region="full")
    # the inpainter computes a window around the holes, whose sums may round to the next level
    assert np.abs(whole.astype(int) - filled).max() <= 1


def test_a_program_reads_comments_and_exact_thresholds(program, bundle, files, tmp_path):
    mask = np.asarray(Image.open(files[1]))
    gray = np.where(mask > 0, 128, 127).astype(np.uint8)
    files[1].write_bytes(b"P5\n# drawn by hand\n117 # wide\n93\n255\n" + gray.tobytes())
    assert program(bundle.path / "model.onnx", *files, tmp_path / "gray.ppm").returncode == 0
    Image.fromarray(mask).save(files[1])
    assert program(bundle.path / "model.onnx", *files, tmp_path / "white.ppm").returncode == 0
    assert (tmp_path / "gray.ppm").read_bytes() == (tmp_path / "white.ppm").read_bytes()


def test_bad_input_is_one_line_and_writes_nothing(program, bundle, tiny, make_bundle, files, tmp_path):
    model, (picture, mask), out = bundle.path / "model.onnx", files, tmp_path / "out.ppm"
    short, small, deep, huge = (tmp_path / f"{name}.ppm" for name in ("short", "small", "deep", "huge"))
    short.write_bytes(picture.read_bytes()[:-1])
    small.write_bytes(b"P5\n1 1\n255\n\0")
    deep.write_bytes(b"P6\n1 1\n65535\n\0\0\0\0\0\0")
    huge.write_bytes(b"P6\n99999999999999999999 1\n255\n")
    cases = {
        (model, picture, mask): "usage",
        (model, tmp_path / "absent.ppm", mask, out): "cannot read",
        (model, mask, mask, out): "kind P6",
        (model, short, mask, out): "ends before its last pixel",
        (model, deep, mask, out): "8 bits a channel",
        (model, picture, small, out): "the mask is 1x1 and the picture 117x93",
        (model, picture, mask, tmp_path / "absent" / "out.ppm"): "cannot write",
        (picture, picture, mask, out): "ONNX Runtime failed",
        (make_bundle(tiny, ("onnx",)).path / "model.onnx", picture, mask, out): "--io uint8",
    }
    for paths, fault in cases.items():
        done = program(*paths)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert fault in done.stderr
    assert program(model, huge, mask, out).returncode == 2
    assert not list(tmp_path.glob("out.ppm*"))
