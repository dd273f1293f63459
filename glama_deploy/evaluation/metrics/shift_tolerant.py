"""ST-LPIPS: LPIPS whose network tolerates shifts (Ghildyal and Liu, ECCV 2022), of AlexNet.

The network is AlexNet with a stride of 1 in its first convolution. Each stride of 2 is a blur instead. Convolutions and
linear layers were trained on people's judgements. The package `stlpips-pytorch` contains them. No code of the package
runs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.pairs import Measurement, Pair

#: The convolutions' names in the file, shapes and paddings.
_CONVOLUTIONS = (
    ("net.slice1.0", (64, 3, 11, 11), 2),
    ("net.slice2.5", (192, 64, 5, 5), 2),
    ("net.slice3.9", (384, 192, 3, 3), 1),
    ("net.slice4.11", (256, 384, 3, 3), 1),
    ("net.slice5.13", (256, 256, 3, 3), 1),
)

#: LPIPS's shift and scale of images of −1…1.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class StLpips:
    """The distance of two images."""

    def __init__(self, path: Path, device: str) -> None:
        """Open the network.

        Args:
            path: the file of weights.
            device: where the network runs, as PyTorch names it.

        Raises:
            GlamaError: the file is damaged or holds another network.
        """
        state = backbones.read_tensors(path)
        names: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape, _ in _CONVOLUTIONS}
        names |= {f"{name}.bias": shape[:1] for name, shape, _ in _CONVOLUTIONS}
        names |= {f"lin{i}.model.1.weight": (1, shape[0], 1, 1) for i, (_, shape, _) in enumerate(_CONVOLUTIONS)}
        for name, shape in names.items():
            if name not in state or tuple(state[name].shape) != shape:
                raise GlamaError(f"{path} holds the weights of another network; install stlpips-pytorch again")
        self._state = {name: state[name].to(device, torch.float32) for name in names}
        self._shift, self._scale = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        self._see_truth = backbones.LastFeatures(self._see)

    def measure(self, pair: Pair) -> Measurement:
        """Measure the distance of two images.

        Args:
            pair: the inpainted image beside the photograph.

        Returns:
            The distances of the missing pixels and of the whole image.
        """
        found, truth, missing = pair.tensors
        whole = within = 0.0
        for number, (one, other) in enumerate(zip(self._see_truth(truth), self._see(found), strict=True)):
            distances = functional.conv2d((one - other).square(), self._state[f"lin{number}.model.1.weight"])
            whole += float(distances.mean())
            within += backbones.average_missing(distances, missing)
        return Measurement(within, whole)

    def _see(self, image: Tensor) -> list[Tensor]:
        """Return the unit vectors of the five maps of an image [1, 3, H, W] of 0…1."""
        x = (2 * image - 1 - self._shift) / self._scale
        units = []
        for number, (name, _, padding) in enumerate(_CONVOLUTIONS):
            if number in (1, 2):
                x = _blur_and_halve(functional.max_pool2d(x, 3, 1))
            x = functional.conv2d(x, self._state[f"{name}.weight"], self._state[f"{name}.bias"], padding=padding)
            x = functional.relu(_blur_and_halve(x) if number == 0 else x)
            units.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return units


def _blur_and_halve(x: Tensor) -> Tensor:
    """Blur with the binomial 3×3 window, and take every second position. Maps are mirrored by 2 at their edges."""
    line = torch.tensor([1.0, 2.0, 1.0], device=x.device) / 4
    window = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), window, stride=2, groups=x.shape[1])
