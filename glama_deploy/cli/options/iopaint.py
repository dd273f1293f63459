"""The options of `iopaint run` 1.6, so that programs that call it can call `glama run` or `glama-inpaint`.

`--output` is a folder, which receives `STEM.png` and may hold an older one, or the image itself: both are replaced. A
mask file serves all images. As there, a mask is gray, and 127 or more is missing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.pairing import BY_STEM, Job, OutputFormat
from glama_deploy.io.files import check_writable
from glama_deploy.io.mask_files import BY_VALUES, MaskRule

#: An option that stands under its own heading in the help.
iopaint_option = partial(option, rich_help_panel="For programs that call iopaint run")

#: How IOPaint's batch processing reads masks: gray, without transparency, missing from 127 on.
MASK_RULE = MaskRule("luma", 126)

#: IOPaint's name of LaMa's published network, the name here, and the place in IOPaint's folder of models.
LAMA = "lama"
PUBLISHED_LAMA = "big-lama"
LAMA_FILE = Path("torch", "hub", "checkpoints", "big-lama.pt")

#: Keys of a config that choose what the network sees. The sizes belong to the strategies.
_REGIONS = {"Original": "full", "Crop": "auto", "Resize": "auto"}
_SIZES = {"hd_strategy_crop_trigger_size", "hd_strategy_crop_margin", "hd_strategy_resize_limit"}

#: All other keys, with the values that change nothing: those that IOPaint writes by itself.
_DEFAULTS: dict[str, object] = {
    "image": None,
    "mask": None,
    "ldm_steps": 20,
    "ldm_sampler": "plms",
    "zits_wireframe": True,
    "prompt": "",
    "negative_prompt": "",
    "use_croper": False,
    "croper_x": 0,
    "croper_y": 0,
    "croper_height": 512,
    "croper_width": 512,
    "use_extender": False,
    "extender_x": 0,
    "extender_y": 0,
    "extender_height": 640,
    "extender_width": 640,
    "sd_scale": 1.0,
    "sd_mask_blur": 11,
    "sd_strength": 1.0,
    "sd_steps": 50,
    "sd_guidance_scale": 7.5,
    "sd_sampler": "UniPC",
    "sd_seed": 42,
    "sd_match_histograms": False,
    "sd_outpainting_softness": 20.0,
    "sd_outpainting_space": 20.0,
    "sd_lcm_lora": False,
    "sd_keep_unmasked_area": True,
    "cv2_flag": "INPAINT_NS",
    "cv2_radius": 4,
    "paint_by_example_example_image": None,
    "p2p_image_guidance_scale": 1.5,
    "enable_controlnet": False,
    "controlnet_conditioning_scale": 0.4,
    "controlnet_method": "lllyasviel/control_v11p_sd15_canny",
    "enable_brushnet": False,
    "brushnet_method": "Sanster/brushnet_random_mask",
    "brushnet_conditioning_scale": 1.0,
    "enable_powerpaint_v2": False,
    "powerpaint_task": "text-guided",
    "fitting_degree": 1.0,
}


@dataclass(frozen=True)
class IopaintOptions:
    """What `iopaint run` has beside the options of glama-inpaint."""

    output: Annotated[
        Path | None,
        iopaint_option(
            "--output",
            help="As iopaint run: the folder of the outputs STEM.png, which are replaced. Masks are read as there.",
        ),
    ] = None
    config: Annotated[
        Path | None, iopaint_option("--config", help="As iopaint run: a JSON file. hd_strategy is followed.")
    ] = None
    model_dir: Annotated[
        Path | None, iopaint_option("--model-dir", help="As iopaint run: the folder that has IOPaint's model lama.")
    ] = None
    concat: Annotated[bool, iopaint_option("--concat", help="Of iopaint run; not supported.")] = False

    @property
    def usual_format(self) -> OutputFormat:
        """The format of a folder's outputs without the option `--format`: with `--output`, that of IOPaint."""
        return BY_STEM.format if self.output is None else "png"

    def check(self, out: Path | None) -> None:
        """Check the options that are not followed.

        Args:
            out: the option `--out`.

        Raises:
            GlamaError: an option asks for what is not supported, or there are two outputs.
        """
        if self.output is not None and out is not None:
            raise GlamaError("`out` and `output` are both given; give one of them")
        if self.concat:
            raise GlamaError("`concat` is not supported; leave out `concat`: the output is the filled picture alone")

    def choose_region(self, region: str) -> str:
        """Return the region that the config's strategy asks for.

        Args:
            region: the region without a config.

        Returns:
            The region.

        Raises:
            GlamaError: the config cannot be read, or has a value that is not supported.
        """
        if self.config is None:
            return region
        for key, value in _read_config(self.config).items():
            if key == "hd_strategy":
                if value not in _REGIONS:
                    raise GlamaError(f"{self.config}: hd_strategy is {value!r}; expected {', '.join(_REGIONS)}")
                region = _REGIONS[value] if region == "auto" else region
            elif key not in _SIZES and key not in _DEFAULTS:
                raise GlamaError(f"{self.config}: the key {key!r} is not known; remove the key")
            elif key in _DEFAULTS and value != _DEFAULTS[key]:
                raise GlamaError(
                    f"{self.config}: {key} is {value!r}, which LaMa's networks do not support; remove {key}"
                )
        return region

    def choose_rule(self, rule: MaskRule) -> MaskRule:
        """Return how masks are read.

        Args:
            rule: the rule that other options give.

        Returns:
            IOPaint's rule with `--output`, unless other options give a rule.
        """
        if self.output is None or (rule.source, rule.threshold) != (BY_VALUES.source, BY_VALUES.threshold):
            return rule
        return MaskRule(MASK_RULE.source, MASK_RULE.threshold, rule.invert)

    def choose_model(self, model: str) -> str:
        """Return the model that IOPaint's name stands for.

        Args:
            model: the model, as it was given.

        Returns:
            The file of the model `lama`; the published model if IOPaint's folder does not have the file.

        Raises:
            GlamaError: the folder of models does not have the file, or is given with another model.
        """
        if model != LAMA or Path(model).exists():
            if self.model_dir is not None:
                raise GlamaError(f"`model_dir` goes with `model` {LAMA}; give the path of the model in `model`")
            return model
        return find_lama(self.model_dir)


def find_lama(folder: Path | None = None) -> str:
    """Find the model that IOPaint calls `lama`.

    Args:
        folder: IOPaint's folder of models; None: the folder of the user's cache.

    Returns:
        The path of IOPaint's own file; the name of the published model where no folder is given and none has the file.

    Raises:
        GlamaError: the given folder does not have the file.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    file = (folder or Path(cache)).expanduser() / LAMA_FILE
    if file.is_file():
        return str(file)
    if folder is not None:
        raise GlamaError(f"`model_dir` {folder} has no {LAMA_FILE}; check the folder, or give `model` a path")
    return PUBLISHED_LAMA


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise GlamaError(f"`config` {path} cannot be read ({reason}); a JSON file is expected") from error
    if not isinstance(config, dict):
        raise GlamaError(f"`config` {path} has no JSON object; an object of keys and values is expected")
    return config


def pair_picture(image: Path, mask: Path | None, output: Path) -> Job:
    """Pair one picture with its mask, as IOPaint does.

    Args:
        image: the image.
        mask: the mask; None if other options mark the missing pixels.
        output: the folder of the output. The output may be the image itself, which is then replaced.

    Returns:
        The job.

    Raises:
        GlamaError: the mask is missing, or the output cannot be written.
    """
    if mask is not None and not mask.is_file():
        raise GlamaError(f"no mask at {mask}; check the path" if not mask.exists() else f"`mask` {mask} is a folder")
    if output.exists() and not output.is_dir():
        raise GlamaError(f"`output` {output} is a file; a folder is expected")
    target = output / f"{image.stem}.png"
    if mask is not None and (image.samefile(mask) or (target.exists() and target.samefile(mask))):
        raise GlamaError(f"`mask` {mask} is the image or its output; give the mask's own file")
    check_writable(target)
    return Job(image, mask, target)
