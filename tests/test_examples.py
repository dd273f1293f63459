"""The scripts in examples/ run as their first lines say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

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
    tested = {"fill_picture.py", "fill_folder.py", "export_and_compare.py"}
    clients = {"triton_client.py", "ovms_client.py", "curl_triton.sh", "curl_ovms.sh"}  # in tests/remote
    assert {path.name for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".sh")} == tested | clients


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


def test_the_space_serves_the_page_in_a_frame_of_its_host(monkeypatch):
    """The application of the Space, whose engine is not opened: its guards let the Space's own name pass."""
    import runpy

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
