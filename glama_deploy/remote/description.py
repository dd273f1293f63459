"""What a client must know of a served model to cut the same boxes as a program that opens the model itself.

`glama package` writes the description into the model's folder. Triton and OpenVINO Model Server give it to clients.
"""

from __future__ import annotations

from typing import Literal

from glama_deploy.bundle import SizeRange
from glama_deploy.frozen import FrozenModel
from glama_deploy.network import NetworkConfig

#: The key of the description: a parameter of a model of Triton, and an entry of `model_info` of an OpenVINO model.
DESCRIPTION = "glama_deploy"

#: The entry of an OpenVINO model's `rt_info` that OpenVINO Model Server gives to clients.
MODEL_INFO = "model_info"

#: The order of the channels of images.
Color = Literal["rgb", "bgr"]


class ModelDescription(FrozenModel):
    """A served model.

    Attributes:
        software: the name and version of the software that wrote the description.
        network: the configuration of the network.
        sizes: sizes that the model takes, multiples of 8, and the number of images at once.
        precision: what the bundle's engine is built in; for people.
        color: the order of the channels of `image` and `inpainted`.
    """

    software: str
    network: NetworkConfig
    sizes: SizeRange
    precision: str
    color: Color = "rgb"
