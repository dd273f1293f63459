"""The node of examples/comfyui, loaded as ComfyUI loads it, and in ComfyUI itself where a checkout is here."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import glama_deploy
from fakes import comfy_api
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.mask_edits import grow_holes

NODE = Path(__file__).parents[2] / "examples" / "comfyui"

#: The inputs as a user leaves them.
USUAL = {"backend": "auto", "threshold": 0.5, "invert": False, "grow": 0, "feather": 0}


def load() -> ModuleType:
    """Load the node as `load_custom_node` of ComfyUI does: by its path, under a name made of the path."""
    name = str(NODE).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, NODE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def node() -> Iterator[ModuleType]:
    """The node of a ComfyUI without interface V3."""
    module = load()
    yield module
    while module._opened:
        module._opened.popitem()[1].close()


@pytest.fixture
def tensors(photo: np.ndarray, hole: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images [2, H, W, 3] and their masks [2, H, W], as ComfyUI's loaders make them."""
    images = torch.from_numpy(np.stack([photo, photo[::-1]]).astype(np.float32) / 255)
    return images, torch.from_numpy(np.stack([hole, hole[:, ::-1]]).astype(np.float32))


def run(node: ModuleType, image: torch.Tensor, mask: torch.Tensor, model: object, **knobs: Any) -> torch.Tensor:
    mapped = node.NODE_CLASS_MAPPINGS["GlamaInpaint"]
    (filled,) = getattr(mapped(), mapped.FUNCTION)(image, mask, **{**USUAL, **knobs}, model=str(model))
    return filled


def test_the_node_gives_the_results_of_the_library(node, tensors, tiny_bundle):
    images, masks = tensors
    filled = run(node, images, masks, tiny_bundle.path)
    assert (filled.dtype, filled.shape, filled.device) == (images.dtype, images.shape, images.device)
    with glama_deploy.load(tiny_bundle.path) as inpainter:
        for one, image, mask in zip(filled, images, masks, strict=True):
            assert torch.equal(one, inpainter(image, mask))
    missing = masks > 0
    assert torch.equal(filled[~missing], images[~missing])
    assert not torch.equal(filled[missing], images[missing])


def test_one_mask_serves_all_images_and_the_knobs_change_it(node, tensors, tiny_bundle, hole):
    images, masks = tensors
    both = run(node, images, masks[:1], tiny_bundle.path)
    assert torch.equal(run(node, images, masks[0], tiny_bundle.path), both)
    assert torch.equal(run(node, images, 1 - masks[:1], tiny_bundle.path, invert=True), both)
    assert torch.equal(run(node, images, masks[:1] * 0.2, tiny_bundle.path, threshold=0.1), both)
    assert torch.equal(run(node, images, masks[:1] * 0.2, tiny_bundle.path), images)
    grown = torch.from_numpy(grow_holes(hole, 6))
    sharp = run(node, images, masks[:1], tiny_bundle.path, grow=6)
    assert torch.equal(sharp, run(node, images, grown.float(), tiny_bundle.path))
    soft = run(node, images, masks[:1], tiny_bundle.path, grow=6, feather=6)
    rim = grown & ~torch.from_numpy(hole)
    assert torch.equal(soft[:, ~grown], images[:, ~grown])
    # a blend lies between the image and the result; float32 rounds three times
    low, high = torch.minimum(images, sharp) - 1e-6, torch.maximum(images, sharp) + 1e-6
    assert ((soft >= low) & (soft <= high))[:, rim].all()
    assert not torch.equal(soft[:, rim], sharp[:, rim])


def test_a_change_of_the_model_closes_the_former_one(node, tensors, tiny_bundle):
    images, masks = tensors
    run(node, images, masks, tiny_bundle.path)
    ((_, first),) = node._opened.items()
    run(node, images, masks, tiny_bundle.path, backend="onnxruntime")
    ((key, _),) = node._opened.items()
    assert key == (str(tiny_bundle.path), "onnxruntime")
    with pytest.raises(GlamaError, match="closed"):
        first(images[0], masks[0])


def test_wrong_inputs_are_named(node, tensors, tiny_bundle):
    images, masks = tensors
    for mask, knobs, fault in (
        (torch.zeros(1, 64, 64), {}, r"the mask is \[1, 64, 64\] and the image \[2, 96, 120, 3\]"),
        (torch.zeros(3, 96, 120), {}, r"one for all images or one for each"),
        (masks, {"feather": 3}, r"`feather` is 3 and `grow` is 0"),
        (masks, {"backend": "absent"}, r"absent"),
    ):
        with pytest.raises(GlamaError, match=fault):
            run(node, images, mask, tiny_bundle.path, **knobs)


def test_both_interfaces_have_the_same_inputs(node, tensors, tiny_bundle, monkeypatch):
    first = node.NODE_CLASS_MAPPINGS["GlamaInpaint"]
    required = first.INPUT_TYPES()["required"]
    assert (first.RETURN_TYPES, list(required)[:2]) == (("IMAGE",), ["image", "mask"])
    comfy_api.install(monkeypatch)
    module = load()
    # ComfyUI asks for comfy_entrypoint only where the module has no mapping of V1
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")
    (second,) = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
    schema = second.define_schema()
    assert (schema.node_id, schema.outputs) == ("GlamaInpaint", ["Image"])
    assert [each.id for each in schema.inputs] == list(required)
    for each in schema.inputs[2:]:
        kind, settings = required[each.id]
        assert {**each.settings} == ({**settings, "options": kind} if each.kind == "Combo" else settings)
        assert kind == each.kind.upper() or each.kind == "Combo"
    images, masks = tensors
    (filled,) = second.execute(images, masks, **USUAL, model=str(tiny_bundle.path)).args
    assert torch.equal(filled, run(node, images, masks, tiny_bundle.path))
    module._opened.popitem()[1].close()


def test_a_comfyui_with_a_part_of_interface_v3_gets_interface_v1(monkeypatch):
    """An update that failed leaves a `comfy_api.latest` without the classes."""
    comfy_api.install(monkeypatch)
    monkeypatch.delattr(sys.modules["comfy_api.latest"], "ComfyExtension")
    assert list(load().NODE_CLASS_MAPPINGS) == ["GlamaInpaint"]


class Host:
    """A ComfyUI in a process of its own, with the node among its custom nodes.

    Args:
        checkout: the folder of ComfyUI.
        base: a folder for its inputs, outputs and custom nodes.
    """

    def __init__(self, checkout: Path, base: Path) -> None:
        for name in ("custom_nodes", "input", "output", "front"):
            (base / name).mkdir(parents=True)
        (base / "front" / "index.html").touch()
        shutil.copytree(NODE, base / "custom_nodes" / "glama", ignore=shutil.ignore_patterns("__pycache__"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.base, self.url = base, f"http://127.0.0.1:{port}"
        options = ["--cpu", "--port", str(port), "--base-directory", str(base), "--disable-api-nodes"]
        options += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", "glama"]
        options += ["--front-end-root", str(base / "front"), "--database-url", f"sqlite:///{base}/comfyui.db"]
        python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        self.log = (base / "log.txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen([python, "main.py", *options], cwd=checkout, stdout=self.log, stderr=self.log)

    def ask(self, path: str, body: object = None) -> Any:
        """Send a request, and return the answer's JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def wait(self) -> None:
        """Wait until the host answers, or fail with its log."""
        while True:
            try:
                self.ask("/system_stats")
                return
            except OSError:
                if self.process.poll() is not None:
                    self.log.seek(0)
                    pytest.fail(self.log.read())
                time.sleep(0.2)

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Run a workflow, and return what the history says of it."""
        identifier = self.ask("/prompt", {"prompt": prompt})["prompt_id"]
        while identifier not in (history := self.ask(f"/history/{identifier}")):
            time.sleep(0.1)
        return history[identifier]


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    checkout = os.environ.get("COMFYUI_ROOT")
    if not checkout:
        pytest.skip("no ComfyUI here: COMFYUI_ROOT may name a checkout, COMFYUI_PYTHON its Python")
    host = Host(Path(checkout), tmp_path_factory.mktemp("comfyui") / "base")
    try:
        host.wait()
        yield host
    finally:
        host.process.terminate()
        host.process.wait(60)
        host.log.close()


@pytest.mark.slow
def test_comfyui_lists_and_runs_the_node(comfyui, photo, hole, tiny_bundle):
    described = comfyui.ask("/object_info/GlamaInpaint")["GlamaInpaint"]
    assert list(described["input"]["required"]) == ["image", "mask", "model", *USUAL]
    assert described["output"] == ["IMAGE"]
    Image.fromarray(photo).save(comfyui.base / "input" / "photo.png")
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).convert("RGB").save(comfyui.base / "input" / "mask.png")
    filling = {"image": ["1", 0], "mask": ["2", 0], "model": str(tiny_bundle.path), **USUAL}
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "3": {"class_type": "GlamaInpaint", "inputs": filling},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "filled"}},
    }
    done = comfyui.run(prompt)
    assert done["status"]["status_str"] == "success", done["status"]
    (written,) = done["outputs"]["4"]["images"]
    filled = np.asarray(Image.open(comfyui.base / "output" / written["filename"]))
    with glama_deploy.load(tiny_bundle.path) as inpainter:
        assert np.array_equal(filled, inpainter(photo, hole))
    filling["feather"] = 3
    failed = comfyui.run(prompt)["status"]
    assert failed["status_str"] == "error"
    assert "`feather` is 3 and `grow` is 0" in json.dumps(failed["messages"])
