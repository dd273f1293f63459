"""The scripts in examples/ run as their first lines say."""

from __future__ import annotations

import asyncio
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.io.images import read_image
from glama_deploy.io.mask_files import read_mask

ASSETS = Path(glama_deploy.__file__).parent / "assets"
SAMPLE, SAMPLE_MASK = ASSETS / "sample.jpg", ASSETS / "sample_mask.png"
EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.slow  # each script imports an engine in a process of its own


def run_example(name: str, *arguments: object, folder: Path) -> str:
    """Run a script of examples/ in `folder` and return what it prints.

    Raises:
        AssertionError: the script's exit code is not 0; the message has its output.
    """
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_only_missing_pixels_changed(filled: Path) -> None:
    before, after, missing = read_image(SAMPLE).rgb, read_image(filled).rgb, read_mask(SAMPLE_MASK)
    assert np.array_equal(after[~missing], before[~missing])
    assert not np.array_equal(after[missing], before[missing])


def test_every_example_has_a_test():
    tested = {"fill_picture.py", "fill_folder.py", "export_and_compare.py", "camera.py"}
    clients = {"triton_client.py", "ovms_client.py", "curl_triton.sh", "curl_ovms.sh"}  # in tests/remote
    assert {path.name for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".sh")} == tested | clients
    tested_folders = {"comfyui", "cpp", "docker", "node", "space"}  # in tests/examples, and two tests
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"} == tested_folders


def test_fill_picture_fills_the_sample_photo(tmp_path):
    printed = run_example("fill_picture.py", "--out", "filled.png", folder=tmp_path)
    assert printed.startswith("filled.png: ")
    assert_only_missing_pixels_changed(tmp_path / "filled.png")


def test_fill_folder_fills_each_picture_once(tmp_path):
    pictures, masks, out = tmp_path / "pictures", tmp_path / "masks", tmp_path / "out"
    for name in ("a.jpg", "b.png"):
        for source, place in ((SAMPLE, pictures / name), (SAMPLE_MASK, masks / f"{name[0]}.png")):
            place.parent.mkdir(exist_ok=True)
            Image.open(source).save(place)
    assert run_example("fill_folder.py", pictures, masks, out, folder=tmp_path) == "a.jpg: written\nb.png: written\n"
    assert_only_missing_pixels_changed(out / "b.png")
    assert (out / "a.jpg").exists()
    assert run_example("fill_folder.py", pictures, masks, out, folder=tmp_path) == "a.jpg: skipped\nb.png: skipped\n"


def test_export_and_compare_prints_the_parity_of_each_engine(tmp_path):
    printed = run_example("export_and_compare.py", "--out", "bundle", folder=tmp_path)
    engines = Bundle.open(tmp_path / "bundle").manifest.engines
    assert set(engines) == {"onnx", "openvino"}
    assert all(f"{name}: largest error " in printed for name in engines)


def read_video(path: Path) -> list[np.ndarray]:
    opened = cv2.VideoCapture(str(path))
    frames = []
    while (read := opened.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


def test_camera_fills_drawn_frames_and_the_frames_of_a_video(tmp_path):
    camera = runpy.run_path(str(EXAMPLES / "camera.py"))
    drawn = list(camera["draw_frames"]())
    missing = camera["mark_corner"](camera["TEST_SIZE"])
    assert run_example("camera.py", "--out", "first.avi", folder=tmp_path).startswith(f"{len(drawn)} frames in ")
    filled = read_video(tmp_path / "first.avi")
    assert len(filled) == len(drawn)
    for before, after in zip(drawn, filled, strict=True):
        error = np.abs(after.astype(int) - before)
        assert error[~missing].mean() < 5  # Motion JPEG is lossy
        assert after[missing].mean() > 100  # the black corner is filled with the bright colors around it
    Image.fromarray(missing).save(tmp_path / "mask.png")
    printed = run_example("camera.py", "first.avi", "--mask", "mask.png", "--frames", 3, folder=tmp_path)
    assert printed.startswith("3 frames in ")


def test_ctrl_c_ends_the_camera_and_keeps_the_video(tmp_path, monkeypatch, capsys):
    fill, calls = glama_deploy.Inpainter.__call__, []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return fill(*arguments)

    monkeypatch.setattr(glama_deploy.Inpainter, "__call__", interrupt)
    monkeypatch.setattr(sys, "argv", ["camera.py", "--out", str(tmp_path / "out.avi")])
    runpy.run_path(str(EXAMPLES / "camera.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("3 frames in ")
    assert len(read_video(tmp_path / "out.avi")) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("mask", "says"), [((8, 6), "has another size"), ((6, 8), "curl:")])
def test_the_curl_client_takes_no_mask_of_another_size(tmp_path, mask, says):
    Image.new("RGB", (6, 8)).save(tmp_path / "photo.ppm")
    Image.new("L", mask).save(tmp_path / "mask.pgm")
    command = ["sh", str(EXAMPLES / "curl_triton.sh"), "photo.ppm", "mask.pgm", "filled.ppm", "http://127.0.0.1:9"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert not (tmp_path / "filled.ppm").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.mp4"], "nothing.mp4 cannot be opened; give a camera's number, a video, or 'test'"),
        (["97"], "97 cannot be opened; give a camera's number"),
        (["videotestsrc ! appsink"], "appsink cannot be opened; "),
        (["--mask", SAMPLE_MASK], "the mask is 512x768, the frames are 120x160; give a mask of the frames' size"),
        (["--frames", "0"], "'0' is not a number of frames; give 1 or more"),
        (["--out", "no-folder/filled.avi"], "no-folder/filled.avi cannot be written; give a path that ends in .avi"),
        (["--model", "nothing"], "no checkpoint at nothing"),
        (["--gpu"], "CuPy is not installed; pip install cupy-cuda12x"),
    ],
)
def test_camera_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["camera.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "camera.py"), run_name="__main__")
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


class StandIn(ModuleType):
    """CuPy's names that the example calls, in main memory. Work in its stream is done at once."""

    uint8 = np.uint8
    cuda = SimpleNamespace(
        Stream=lambda non_blocking: SimpleNamespace(non_blocking=non_blocking, synchronize=lambda: None),
        Device=lambda: SimpleNamespace(synchronize=lambda: None),
    )

    class Array(np.ndarray):
        def set(self, values: np.ndarray, stream: object) -> None:
            assert values.flags.c_contiguous
            assert values.dtype == self.dtype
            self[...] = values

        def get(self, stream: object) -> np.ndarray:
            return np.array(self)

    def empty(self, shape: tuple[int, ...], dtype: type) -> Array:
        return np.empty(shape, dtype).view(self.Array)

    def empty_like(self, array: Array) -> Array:
        return np.empty_like(array)

    def asarray(self, array: np.ndarray) -> Array:
        return np.asarray(array).view(self.Array)


def test_camera_fills_each_frame_on_the_gpu_at_fixed_arrays_in_one_stream(monkeypatch):
    """With a stand-in for CuPy: here is no GPU."""
    monkeypatch.setitem(sys.modules, "cupy", StandIn("cupy"))
    camera = runpy.run_path(str(EXAMPLES / "camera.py"))
    calls = []

    class Inpainter:
        def run_on_gpu(self, image, mask, *, out, stream):
            out[...] = np.where(mask[..., None], 7, image)
            assert stream.non_blocking
            calls.append((id(image), id(mask), id(out), id(stream)))

    missing = camera["mark_corner"](camera["TEST_SIZE"])
    fill = camera["fill_on_gpu"](Inpainter(), missing)
    for frame in camera["draw_frames"]():
        np.testing.assert_array_equal(fill(frame[:, ::-1]), np.where(missing[..., None], 7, frame[:, ::-1]))
    assert len(set(calls)) == 1


def test_the_space_serves_the_page_in_a_frame_of_its_host(monkeypatch):
    """The application of the Space, whose engine is not opened: its guards let the Space's own name pass."""
    import httpx

    from glama_deploy.server.app import make_app

    monkeypatch.setenv("SPACE_HOST", "user-glama.hf.space")
    app = make_app(runpy.run_path(str(EXAMPLES / "space" / "app.py"))["settings"])

    async def ask(host: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"https://{host}") as client:
            return await client.get("/healthz")

    answer = asyncio.run(ask("user-glama.hf.space"))
    assert answer.status_code == 200
    assert "frame-ancestors https://huggingface.co" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers
    assert asyncio.run(ask("other.example")).status_code == 421
