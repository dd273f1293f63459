"""φ of the high-receptive-field perceptual loss (equation 2): a dilated ResNet-50 for scene parsing (Zhou et al.,
ADE20K), whose features see far because its last two stages dilate instead of striding.

The weights are a file of the user's: `encoder_epoch_20.pth` of `ade20k-resnet50dilated-ppm_deepsup`
(http://sceneparsing.csail.mit.edu/model/pytorch/), which LaMa takes too.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import first_line
from glama_deploy.training.checkpoints import DAMAGE

#: ImageNet's statistics, which the network expects.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_REMEDY = (
    "get encoder_epoch_20.pth of ade20k-resnet50dilated-ppm_deepsup from sceneparsing.csail.mit.edu/model/pytorch, or "
    "set the perceptual loss's weight to 0"
)


class SceneParsingResNet(ResNet):
    """image [B, 3, H, W] (0…1) → the outputs of its four stages, [B, 256…2048, H/4…H/8, W/4…W/8].

    Frozen, always in eval mode. Parameters bear the names of the published file: a stem of three 3×3 convolutions
    (conv1, conv2, conv3 with bn1, bn2, bn3), then layer1 … layer4.
    """

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=[False, True, True])
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128)
        self.inplanes, self.dilation = 128, 1
        self.layer1 = self._make_layer(Bottleneck, 64, 3)  # behind a stem of 128 channels
        del self.fc, self.avgpool
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> SceneParsingResNet:
        """Stays in eval mode: its statistics are not ours to change."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.mean) / self.std
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = self.relu(norm(conv(x)))
        x = self.maxpool(x)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


def load(path: Path) -> SceneParsingResNet:
    """The network with the published weights. Raises CheckpointError: no file, not a checkpoint, another network."""
    if not path.is_file():
        raise CheckpointError(f"the perceptual loss's weights are not at {path}: {_REMEDY}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise CheckpointError(f"{path} is no checkpoint ({first_line(error)}): {_REMEDY}") from error
    network = SceneParsingResNet()
    counts = "num_batches_tracked"  # which only training reads
    wanted = {n: tuple(v.shape) for n, v in network.state_dict().items() if not n.endswith(counts)}
    given = state if isinstance(state, dict) else {}
    found = {n: tuple(v.shape) for n, v in given.items() if n in wanted and isinstance(v, Tensor)}
    wrong = [name for name, shape in wanted.items() if found.get(name) != shape]
    if wrong:
        raise CheckpointError(
            f"{path} is of another network: {len(wrong)} of {len(wanted)} parameters are missing or of another shape, "
            f"the first {wrong[0]}: {_REMEDY}"
        )
    network.load_state_dict({name: state[name] for name in found}, strict=False)
    return network
