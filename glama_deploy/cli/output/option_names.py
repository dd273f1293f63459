"""The names of fields in messages, as the options of the command line.

The library names a field in backticks, because its callers use Python. The commands show the option instead:

    `min_size`                      --min-size
    `fft=matmul`                    --fft matmul
    `overwrite=True`                --overwrite
    `parity=False`                  --no-parity
    `export(fft=matmul)`            glama-export --fft matmul
    `build(BUNDLE, target=trt)`     glama-build BUNDLE --target trt

Other text in backticks stays as it is: a file may have such a name, and an engine may say it.
"""

from __future__ import annotations

import re

#: A field, a field with its value, or a call of a command's function.
_NAMED = re.compile(
    r"`(?:(?P<command>export|build|inpaint|package|train|eval)\((?P<arguments>[^`]*)\)|(?P<field>[a-z_]+(?:=[^`]*)?))`"
)

#: The fields that messages of the library name.
FIELDS = frozenset(
    (  # noqa: SIM905
        "allow_engine_code annotations backend backup_folder batch box calibration calibration_images category check "
        "checkpoint codec color color_tolerance compile_sizes concat config cpus_per_worker crop data dataset device "
        "device_preset download engine engine_device fail_fast feather fft for format frame gpus gpus_per_worker grow "
        "hardware_compatible host image image_column in_place input instances invert io jobs json key_column mask "
        "mask_column mask_from mask_name masks max_batch max_size metrics min_size model model_dir models name "
        "optimization_level ort_web out output output_dir overwrite parity parity_size port precision predicted "
        "processes profiles quality ray ray_address recursive reference refine refittable region results resume root "
        "save segment_frames server shrink size stripped target targets temporal temporal_frames threads threshold "
        "timing_cache token variants version_compatible watch weights weights_key workers workspace_mib"
    ).split()
)

#: Fields whose option has another name.
_OPTIONS = {
    "calibration": "calib",
    "calibration_images": "calib-images",
    "checkpoint": "ckpt",
    "gpus": "gpu",
    "metrics": "metric",
    "models": "model",
    "optimization_level": "opt-level",
    "stripped": "strip-weights",
    "targets": "target",
    "workspace_mib": "workspace",
}


def show_options(message: str) -> str:
    """Replace the fields that a message names by the options of the command line.

    Args:
        message: One line.

    Returns:
        The line for a user of the commands.
    """
    return _NAMED.sub(_show, message)


def _show(match: re.Match[str]) -> str:
    if match["field"]:
        known = match["field"].partition("=")[0] in FIELDS
        return _show_argument(match["field"]) if known else match[0]
    # a comma in a path separates nothing
    arguments = [_show_argument(argument) for argument in re.split(", (?=[a-z_]+=)", match["arguments"]) if argument]
    return " ".join([f"glama-{match['command']}", *arguments])


def _show_argument(argument: str) -> str:
    """Show `field=value` as an option, and a positional argument as it is."""
    field, equals, value = argument.partition("=")
    if field not in FIELDS:
        return argument
    name = _OPTIONS.get(field, field.replace("_", "-"))
    if value == "False":
        return f"--no-{name}"
    return f"--{name} {value}" if equals and value != "True" else f"--{name}"
