"""Options for devices whose memory is small: sizes, profiles and workspace that fit."""

from __future__ import annotations

from dataclasses import dataclass

from glama_deploy.bundle import SizeRange
from glama_deploy.engines.tensorrt.profiles import Profiles
from glama_deploy.errors import GlamaError


@dataclass(frozen=True)
class Preset:
    """The options of one device.

    Attributes:
        sizes: The sizes (height, width) that the engine is built for.
        profiles: The number of optimization profiles.
        workspace_mib: The largest scratch memory of a layer, in MiB.
    """

    sizes: SizeRange
    profiles: Profiles
    workspace_mib: int


#: The presets by name. Not measured: they halve the largest sides of the defaults and bound the workspace.
PRESETS = {
    "orin-nano": Preset(
        sizes=SizeRange(min=(64, 64), opt=(512, 512), max=(1024, 1024), max_batch=1), profiles="one", workspace_mib=512
    ),
}


def find_preset(name: str) -> Preset:
    """Find the options of a device.

    Args:
        name: The name of the preset.

    Returns:
        The preset.

    Raises:
        GlamaError: There is no preset of that name.
    """
    if name not in PRESETS:
        raise GlamaError(f"`device_preset` is {name!r}; expected {', '.join(PRESETS)}")
    return PRESETS[name]
