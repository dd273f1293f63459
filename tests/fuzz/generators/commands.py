"""Tiny valid inputs for every command, and the arguments of a run of a few seconds: for the fuzzer and the kills."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from fuzz.generators import checkpoints
from glama_deploy.checkpoints import formats
from glama_deploy.cli import bench, build, demo, eval, export, inpaint, mask, masks, train
from glama_deploy.cli.entry import Command
from glama_deploy.export.pipeline import Request
from glama_deploy.export.pipeline import export as export_bundle
from glama_deploy.reference.random_weights import untrained

#: Every command by its name.
COMMANDS: dict[str, Command] = {
    "glama-export": export.main,
    "glama-build": build.main,
    "glama-inpaint": inpaint.main,
    "glama-mask": mask.main,
    "glama-masks": masks.main,
    "glama-train": train.main,
    "glama-eval": eval.main,
    "glama-bench": bench.main,
    "glama-demo": demo.main,
}

#: Arguments of a run that ends well in the folder of `write_inputs`.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "glama-export": ("--ckpt", "network.safetensors", "--out", "out", "--target", "openvino", "--no-parity"),
    "glama-build": ("bundle", "--target", "openvino"),
    "glama-inpaint": (
        *("--image", "image.png", "--mask", "mask.png", "--out", "out.png"),
        *("--model", "bundle", "--backend", "onnxruntime"),
    ),
    "glama-mask": ("--image", "image.png", "--mask", "mask.png", "--box", "4,5,9,8", "--grow", "2", "--out", "out.png"),
    "glama-masks": ("--out", "out.png", "--count", "1", "--size", "16x16"),
    "glama-train": ("--config", "training.yaml", "--out", "out"),
    "glama-eval": (
        *("--data", "images", "--model", "telea", "--out", "out"),
        *("--metric", "l1", "--masks", "EveryNLines", "--processes", "1"),
    ),
    "glama-bench": (
        *("--model", "bundle", "--subject", "onnxruntime", "--size", "16x16"),
        *("--runs", "1", "--threads", "1", "--out", "out"),
    ),
    "glama-demo": ("--out", "out"),
}

#: Height and width of the pictures.
HEIGHT, WIDTH = 40, 48

_TRAINING = {
    "base": "glama-tiny",
    "network": {"ngf": 4, "n_blocks": 1, "n_downsampling": 1},
    "discriminator": {"channels": 4, "layers": 1},
    "weights": {"perceptual": 0},
    "data": {"train": ["images"], "side": 32, "workers": 0},
    "optimization": {"steps": 2, "batch": 2},
    "saving": {"every": 1, "keep": 1},
}


def write_inputs(folder: Path, seed: int = 0) -> None:
    """Write a checkpoint, a bundle for ONNX Runtime, pictures with masks, and a training config into `folder`.

    Another seed gives another checkpoint and other pictures.
    """
    formats.save(folder / "network.safetensors", checkpoints.NETWORK, untrained(checkpoints.NETWORK, seed))
    export_bundle(Request(folder / "network.safetensors", folder / "bundle", ("onnx",), parity=False))
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[8:24, 10:30] = True
    for number in range(3):
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        waves = [128 + 100 * np.sin(y / rng.uniform(3, 20) + x / rng.uniform(3, 20)) for _ in range(3)]
        Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(hole).save(folder / "masks" / f"{number}.png")
    shutil.copy(folder / "images" / "0.png", folder / "image.png")
    shutil.copy(folder / "masks" / "0.png", folder / "mask.png")
    (folder / "training.yaml").write_text(yaml.safe_dump(_TRAINING), encoding="utf-8")
