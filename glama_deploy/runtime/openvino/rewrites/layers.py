"""What the rewriters of OpenVINO models that compute with the channels last ask of nodes, and tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glama_deploy.runtime.openvino.rewrites.constants import is_constant


@dataclass(frozen=True)
class Found:
    """What a rewriter rewrote.

    Attributes:
        convolutions: The names of the 3×3 convolutions.
        units: The names of the Fourier units.
    """

    convolutions: tuple[str, ...]
    units: tuple[str, ...]


def get_key(source: Any) -> tuple[str, int]:
    """Return what identifies an output of a node, also after another node took its name and place.

    Args:
        source: An output of a node.

    Returns:
        The node's name and the output's number.
    """
    return source.get_node().get_friendly_name(), source.get_index()


def is_pointwise(node: Any) -> bool:
    """Return whether a convolution has a kernel of 1×1, a stride of one, no border, and floating-point weights.

    Args:
        node: A node of the type Convolution.

    Returns:
        True for such a convolution.
    """
    kernel, attributes = node.input_value(1), node.get_attributes()
    plain = attributes["strides"] == [1, 1] and attributes["pads_begin"] == attributes["pads_end"] == [0, 0]
    return plain and list(kernel.get_shape())[2:] == [1, 1] and is_constant(kernel)


def can_add_channels_last(source: Any, total: Any) -> bool:
    """Return whether a summand may have the shape of the sum, or is a constant with one value, or one for each channel.

    Sides that a graph of any size leaves open are taken as equal: its feature maps are not broadcast.

    Args:
        source: An input of a sum of tensors [B, C, H, W].
        total: The partial shape of the sum.

    Returns:
        True if the sum can be computed with the channels last.
    """
    if not is_constant(source):
        return bool(source.get_partial_shape().compatible(total))
    shape = list(source.get_shape())  # (an index behind the end of an OpenVINO shape is a segmentation fault)
    if all(side == 1 for side in shape):
        return True
    return len(shape) == 4 and shape == [1, total[1].get_length(), 1, 1]
