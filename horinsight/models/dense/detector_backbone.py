"""A backbone with its feature pyramid: the part of a detector in which positions of the picture meet."""

from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from horinsight.models.dense.hor_fpn import HorFpn
from horinsight.models.dense.pyramid_backbone import PyramidBackbone

LEVEL_NAMES = ("0", "1", "2", "3")
Fpn = Literal["fpn", "horfpn_7x7", "horfpn_gf"]


def pyramid(kind: Fpn, in_channels: list[int], channels: int) -> nn.Module:
    """The pyramid over four levels, with a fifth of stride 64: FPN, or HorFPN with f = 7x7 or GF.

    Raises:
        ValueError: another kind.
    """
    if kind not in get_args(Fpn):
        raise ValueError(f"fpn expects one of {', '.join(get_args(Fpn))}, got {kind!r}.")
    more = LastLevelMaxPool()
    fpn: nn.Module
    if kind == "fpn":
        fpn = FeaturePyramidNetwork(in_channels, channels, more)
    else:
        fpn = HorFpn(in_channels, channels, more, depthwise="gf" if kind == "horfpn_gf" else "conv")
    return fpn


class DetectorBackbone(nn.Module):
    """Images (B, C, H, W), normalised → five maps of strides 4 to 64, by name: "0", "1", "2", "3", "pool".

    All mixers of a detector that see the whole picture are here, and it runs on any batch, so this is the part that
    `model_mixing_weights`, `model_interaction_spectra` and `model_influence` are asked about.

    Args:
        levels: the backbone.
        fpn: the pyramid, see `pyramid`.
        channels: of every map that comes out.

    Example:
        >>> import torch
        >>> from horinsight.models.dense.backbone_levels import detection_levels
        >>> backbone = DetectorBackbone(detection_levels("hornet_test"), channels=16)
        >>> [tuple(level.shape[1:]) for level in backbone(torch.zeros(1, 3, 64, 96)).values()]
        [(16, 16, 24), (16, 8, 12), (16, 4, 6), (16, 2, 3), (16, 1, 2)]
    """

    def __init__(self, levels: PyramidBackbone, *, fpn: Fpn = "fpn", channels: int = 256) -> None:
        super().__init__()
        self.levels = levels
        self.fpn = pyramid(fpn, list(levels.channels), channels)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(OrderedDict(zip(LEVEL_NAMES, self.levels(images), strict=True)))
        return maps
