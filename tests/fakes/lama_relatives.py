"""Small relatives of LaMa with weights by a formula, and the outputs of LaMa's own code for them.

`tests/data/lama_relatives.npz` has the outputs of the original generators. It is made again, from a clone of
advimman/lama, by `python tests/fakes/lama_relatives.py CLONE tests/data/lama_relatives.npz`. (LaMa's spatial transform
imports kornia, which none of these networks uses.)
"""

from __future__ import annotations

import copy
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

#: Every so many pixels of an output are stored, along each side.
STEP = 5

#: The sides of the picture: multiples of 8, above the dilations.
HEIGHT, WIDTH = 72, 88

_NO_GLOBAL = {"ratio_gin": 0, "ratio_gout": 0, "enable_lfu": False}
_COMMON = {"input_nc": 4, "output_nc": 3, "ngf": 8, "n_downsampling": 1, "n_blocks": 2, "add_out_act": "sigmoid"}
_FOURIER: dict[str, Any] = {
    "kind": "ffc_resnet",
    **_COMMON,
    "init_conv_kwargs": _NO_GLOBAL,
    "downsample_conv_kwargs": _NO_GLOBAL,
    "resnet_conv_kwargs": {"ratio_gin": 0.75, "ratio_gout": 0.75, "enable_lfu": False},
}
_REGULAR: dict[str, Any] = {"kind": "pix2pixhd_global", **_COMMON, "conv_kind": "default"}
_DILATED: dict[str, Any] = {
    "kind": "pix2pixhd_multidilated",
    **_COMMON,
    "conv_kind": "default",
    "multidilation_kwargs": {"comb_mode": "cat_in", "dilation_num": 4},
}


def _changed(base: dict[str, Any], section: str = "", /, **fields: Any) -> dict[str, Any]:
    tree = copy.deepcopy(base)
    (tree[section] if section else tree).update(fields)
    return tree


def _without(base: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in base.items() if name != field}


#: The section `generator` of LaMa's config, by the name of the relative.
RELATIVES: dict[str, dict[str, Any]] = {
    "lama": _FOURIER,
    "tanh": _changed(_FOURIER, add_out_act=True),
    "tanh by name": _changed(_FOURIER, add_out_act="tanh"),
    "tanh by default": _without(_FOURIER, "add_out_act"),
    "no activation": _changed(_FOURIER, add_out_act=False),
    "fft_norm backward": _changed(_FOURIER, "resnet_conv_kwargs", fft_norm="backward"),
    "fft_norm forward": _changed(_FOURIER, "resnet_conv_kwargs", fft_norm="forward"),
    "fft_norm null": _changed(_FOURIER, "resnet_conv_kwargs", fft_norm=None),
    "dilation": _changed(_FOURIER, "resnet_conv_kwargs", dilation=3),
    "regular": _REGULAR,
    "regular by default": _without(_changed(_REGULAR, max_features=12), "add_out_act"),
    "regular with dilation": _changed(_REGULAR, dilation=2, second_dilation=2),
    "dilated": _DILATED,
    "dilated by default": _without(_without(_DILATED, "multidilation_kwargs"), "n_blocks"),
    "dilated from 2": _changed(_DILATED, "multidilation_kwargs", min_dilation=2, dilation_num=2),
}


def make_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the values of a parameter: a wave whose phase depends on the name, scaled as an initialization is.

    Args:
        name: The parameter's name.
        shape: Its shape.

    Returns:
        float32.
    """
    phase = sum(ord(letter) * (place + 1) for place, letter in enumerate(name))
    wave = np.sin(np.arange(math.prod(shape)) * 1.7 + np.arange(math.prod(shape)) ** 2 * 0.013 + phase)
    values = wave.reshape(shape)
    if len(shape) == 4:
        gain = 0.5 if ".convs." in name else 4  # several convolutions are summed
        return (values * math.sqrt(gain / math.prod(shape[1:]))).astype(np.float32)
    positive = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
    return (1 + 0.4 * values if positive else 0.3 * values).astype(np.float32)


def make_input() -> np.ndarray:
    """Make the input of a generator.

    Returns:
        float32 [1, 4, HEIGHT, WIDTH]: the masked picture, and the mask.
    """
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = [0.5 + 0.5 * np.sin(rows / (5 + band) + columns / (9 - band) + band) for band in range(3)]
    mask = (np.abs(rows - 30) < 12) & (np.abs(columns - 50) < 17)
    return np.stack([*(band * ~mask for band in picture), mask])[None].astype(np.float32)


def write_folder(name: str, folder: Path) -> Path:
    """Write a relative as a LaMa model folder.

    Args:
        name: A key of :data:`RELATIVES`.
        folder: The folder, which does not exist.

    Returns:
        The folder.
    """
    import torch
    import yaml

    from glama_deploy.checkpoints import lama_config
    from glama_deploy.network import NetworkConfig, parameter_shapes

    (folder / "models").mkdir(parents=True)
    tree = {"training_model": {"concat_mask": True}, "generator": RELATIVES[name]}
    text = yaml.safe_dump(json.loads(json.dumps(tree)))  # without aliases of sections that are one object
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    shapes = parameter_shapes(NetworkConfig(**lama_config.read(folder / "config.yaml")))
    state = {f"generator.{key}": torch.from_numpy(make_parameter(key, shape)) for key, shape in shapes.items()}
    torch.save({"state_dict": state}, folder / "models" / "best.ckpt")
    return folder


def read_outputs(name: str) -> np.ndarray:
    """Read the original's output for :func:`make_input`.

    Args:
        name: A key of :data:`RELATIVES`.

    Returns:
        float32 [3, HEIGHT / STEP, WIDTH / STEP].
    """
    with np.load(Path(__file__).parents[1] / "data" / "lama_relatives.npz") as stored:
        return stored[name]


def _write(clone: Path, target: Path) -> None:
    import torch

    kornia = types.ModuleType("kornia.geometry.transform")
    kornia.rotate = None  # type: ignore[attr-defined]
    utils = types.ModuleType("saicinpainting.utils")
    utils.get_shape = None  # type: ignore[attr-defined]
    sys.modules |= {name: types.ModuleType(name) for name in ("kornia", "kornia.geometry")}
    sys.modules |= {"kornia.geometry.transform": kornia, "saicinpainting.utils": utils}
    sys.path.insert(0, str(clone))
    from saicinpainting.training.modules import make_generator

    outputs = {}
    for name, config in RELATIVES.items():
        generator = make_generator(None, **copy.deepcopy(config)).eval()
        state = generator.state_dict()
        for key, values in state.items():
            if not key.endswith("num_batches_tracked"):
                state[key] = torch.from_numpy(make_parameter(key, tuple(values.shape)))
        generator.load_state_dict(state)
        with torch.inference_mode():
            outputs[name] = generator(torch.from_numpy(make_input()))[0, :, ::STEP, ::STEP].numpy()
    np.savez_compressed(target, **outputs)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]))
