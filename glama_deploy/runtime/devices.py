"""The devices that a user can name, and their one parser."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from glama_deploy.catalogue import find_meant_backend, join_names
from glama_deploy.errors import EngineError

#: The kinds of devices. For OpenVINO, `gpu` and `npu` are devices of Intel, and with `auto` OpenVINO chooses. For a
#: provider of ONNX Runtime, `gpu` is a GPU of any vendor.
Kind = Literal["cpu", "cuda", "gpu", "npu", "auto"]

#: How messages and helps spell the devices of each kind.
SPELLINGS: dict[Kind, str] = {
    "cpu": "cpu",
    "cuda": "cuda or cuda:N",
    "gpu": "GPU or GPU.N",
    "npu": "NPU",
    "auto": "AUTO or AUTO:GPU,CPU",
}

#: Devices by the names of PyTorch and of graphics interfaces: a kind, or a provider of ONNX Runtime.
_OTHER_NAMES: dict[str, Kind | Literal["coreml", "webgpu"]] = {
    "xpu": "gpu",  # PyTorch's name of Intel's GPUs
    "mps": "coreml",  # PyTorch's name of Apple's GPUs
    "metal": "coreml",
    "vulkan": "webgpu",
}

#: A device's kind, in small letters, and what stands behind it: the number of a GPU, or those that `auto` chooses from.
_PATTERN = re.compile(
    r"(?P<kind>cpu|cuda|gpu|npu|auto)"
    r"(?:(?<=cuda):(?P<cuda>\d{1,4})|(?<=[gn]pu)\.(?P<number>\d{1,4})"
    r"|(?<=auto):(?P<candidates>-?[cgn]pu(?:\.\d{1,4})?(?:,-?[cgn]pu(?:\.\d{1,4})?)*))?"
)


@dataclass(frozen=True)
class Device:
    """A device that a user named.

    Attributes:
        kind: the kind.
        index: the number of the device among those of its kind, from 0; None: the first, or the one that is current.
        candidates: of the kind `auto`, the devices that OpenVINO chooses from, by its names; empty: all.
    """

    kind: Kind
    index: int | None = None
    candidates: str = ""

    def __str__(self) -> str:
        """Return the name as a user writes it.

        Returns:
            The name; for devices of OpenVINO, the one that OpenVINO knows.
        """
        if self.kind in ("cpu", "cuda"):
            return self.kind if self.index is None else f"{self.kind}:{self.index}"
        if self.kind == "auto" and self.candidates:
            return f"AUTO:{self.candidates}"
        return self.kind.upper() if self.index is None else f"{self.kind.upper()}.{self.index}"


#: The CPU, which has no number.
CPU = Device("cpu")


def parse_device(device: object) -> Device | None:
    """Read a device as a user gives it.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or a device of OpenVINO (`CPU`, `GPU`, `GPU.N`, `NPU`, `AUTO`), in capital or
            small letters; a `torch.device`, whose text is such a name; or None.

    Returns:
        The device; None for None.

    Raises:
        EngineError: no device has this name.
    """
    if device is None:
        return None
    text = str(device)
    found = _PATTERN.fullmatch(text.lower())
    if found is None:
        raise EngineError(f"`device` is {text!r}; {_suggest(text)}{list_devices(SPELLINGS)} is expected")
    number = found["cuda"] or found["number"]
    return Device(
        cast(Kind, found["kind"]), None if number is None else int(number), (found["candidates"] or "").upper()
    )


def list_devices(kinds: Iterable[str]) -> str:
    """Return the names of devices as a message lists them.

    Args:
        kinds: the devices' kinds.

    Returns:
        The text, such as `cpu, cuda or cuda:N`.
    """
    return join_names([name for kind in kinds for name in SPELLINGS[cast(Kind, kind)].split(" or ")])


def _suggest(text: str) -> str:
    """Return the advice for a wrong name: a provider, or the kind that the name is most similar to; empty for none."""
    name = re.split("[:.]", text.lower())[0]
    name = _OTHER_NAMES.get(name, name)
    if name not in SPELLINGS and (backend := find_meant_backend(name)):
        return f"give `backend={backend}`; as device, "
    near = difflib.get_close_matches(name, SPELLINGS, n=1)
    return f"is {SPELLINGS[cast(Kind, near[0])]} meant? " if near else ""


def check_gpu_index(index: int | None, count: int) -> None:
    """Check that a GPU exists.

    Args:
        index: the GPU's number from 0; None: any.
        count: the number of CUDA GPUs that this process sees, at least one.

    Raises:
        EngineError: no GPU has the number.
    """
    if index is None or index < count:
        return
    there = "1 CUDA GPU, cuda:0" if count == 1 else f"{count} CUDA GPUs, cuda:0 to cuda:{count - 1}"
    raise EngineError(f"`device` is cuda:{index}, and there is no such GPU; this process sees {there}")
