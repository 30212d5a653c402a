"""UperNet's heads: pyramid pooling, a top-down path, and one classifier over all four levels (Xiao et al. 2018).

Names are those of mmsegmentation, with which HorNet was published; `fpn_bottleneck` may be a gⁿConv: then this is the
published GNUPerHead.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.models.dense.hor_fpn import draw_as_fpn, hor_fpn_gnconv
from horinsight.models.gnconv import Depthwise

POOL_SCALES = (1, 2, 3, 6)
CHANNELS = 512
AUXILIARY_CHANNELS = 256
AUXILIARY_LEVEL = 2  # the third


def resized_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, C, *size), bilinear, corners not aligned; computed in x's dtype."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def normed_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """A convolution without bias, BatchNorm, ReLU: `conv`, `bn`, `act`; the map keeps its size.

    Example:
        >>> [name for name, _ in normed_conv(4, 8, 3).named_children()]
        ['conv', 'bn', 'act']
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), act=nn.ReLU()))


def normed_gnconv(
    in_channels: int, out_channels: int, *, order: int, depthwise: Depthwise, gf_size: tuple[int, int] | None
) -> nn.Sequential:
    """HorFPN's gⁿConv, BatchNorm, ReLU: `gnconv`, `bn`, `act`; see `hor_fpn_gnconv`."""
    gnconv = hor_fpn_gnconv(in_channels, out_channels, order=order, depthwise=depthwise, gf_size=gf_size)
    draw_as_fpn(gnconv)
    return nn.Sequential(OrderedDict(gnconv=gnconv, bn=nn.BatchNorm2d(out_channels), act=nn.ReLU()))


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class UperHead(nn.Module):
    """Four levels → logits on the finest map: pyramid pooling of the last, top-down sums, `fpn_bottleneck`, classifier.

    Args:
        in_channels: of the four levels, the finest first.
        num_classes: outputs.
        channels: of everything inside.
        pool_scales: sides of the maps that the last level is pooled to.
        horfpn: f of a gⁿConv in place of the 3x3 convolution of `fpn_bottleneck` ("conv" for 7x7, "gf" for GF, see
            `depthwise_operator`); None for that convolution.
        order: n of that gⁿConv.
        gf_size: filter of its GF; (32, 17) when not given.
        dropout: of whole channels before the classifier, while training.

    Raises:
        ValueError: `channels` that the order does not divide.

    Example:
        >>> levels = [torch.zeros(1, 4, 24 // 2**k, 32 // 2**k) for k in range(4)]
        >>> UperHead([4] * 4, 5, channels=8, horfpn="conv").eval()(levels).shape
        torch.Size([1, 5, 24, 32])

    Source: Xiao et al. 2018 (arXiv 1807.10221); Rao et al. 2022 (arXiv 2207.14284), §3.2.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = CHANNELS,
        pool_scales: Sequence[int] = POOL_SCALES,
        horfpn: Depthwise | None = None,
        order: int = 2,
        gf_size: tuple[int, int] | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        *finer, last = in_channels
        pools = [nn.Sequential(nn.AdaptiveAvgPool2d(scale), normed_conv(last, channels, 1)) for scale in pool_scales]
        self.psp_modules = nn.ModuleList(pools)
        self.bottleneck = normed_conv(last + len(pools) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(normed_conv(width, channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(normed_conv(channels, channels, 3) for _ in finer)
        joined = len(in_channels) * channels
        self.fpn_bottleneck = (
            normed_conv(joined, channels, 3)
            if horfpn is None
            else normed_gnconv(joined, channels, order=order, depthwise=horfpn, gf_size=gf_size)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(channels, num_classes)

    def forward(self, levels: list[Tensor]) -> Tensor:
        last = levels[-1]
        size = (last.shape[2], last.shape[3])
        pooled = [last] + [resized_map(pool(last), size) for pool in self.psp_modules]
        top = self.bottleneck(torch.cat(pooled, dim=1))

        outputs = [top]
        laterals = [lateral(level) for lateral, level in zip(self.lateral_convs, levels[:-1], strict=True)]
        for lateral, conv in zip(laterals[::-1], reversed(self.fpn_convs), strict=True):  # from coarse to fine
            top = lateral + resized_map(top, (lateral.shape[2], lateral.shape[3]))
            outputs.insert(0, conv(top))

        finest = (outputs[0].shape[2], outputs[0].shape[3])
        joined = [outputs[0]] + [resized_map(output, finest) for output in outputs[1:]]
        features = self.fpn_bottleneck(torch.cat(joined, dim=1))
        logits: Tensor = self.conv_seg(self.dropout(features))
        return logits


class FcnHead(nn.Module):
    """The auxiliary head on one level: a 3x3 convolution with BatchNorm and ReLU, then the classifier.

    Args:
        in_channels: of the level.
        num_classes: outputs.
        channels: between the two.
        dropout: of whole channels before the classifier, while training.

    Example:
        >>> FcnHead(4, 5, channels=8)(torch.zeros(2, 4, 6, 7)).shape
        torch.Size([2, 5, 6, 7])
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, channels: int = AUXILIARY_CHANNELS, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(normed_conv(in_channels, channels, 3))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_seg(self.dropout(self.convs(x)))
        return logits
