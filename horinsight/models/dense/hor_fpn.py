"""HorFPN: a feature pyramid whose output convolutions are gⁿConvs (HorNet §3.2, Table 3)."""

from collections.abc import Callable

from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from horinsight.models.gnconv import Depthwise, GnConv

HOR_FPN_FILTER = (32, 17)  # rows and columns of the GF filters of a HorFPN


def hor_fpn_gnconv(
    in_channels: int,
    out_channels: int,
    *,
    order: int = 2,
    depthwise: Depthwise = "conv",
    kernel_size: int | None = None,
    gf_size: tuple[int, int] | None = None,
) -> GnConv:
    """The gⁿConv that takes the place of a 3x3 convolution in a HorFPN: other channels may enter it, and 1/α is 1.

    Args:
        in_channels: channels that enter.
        out_channels: channels C of its steps and of its output, divisible by 2^(order - 1), with GF by 2^order.
        order: n, 2 in the paper.
        depthwise: f, see `depthwise_operator`: "conv" for 7x7, "gf" for GF.
        kernel_size: K of a "conv" or "pool" f.
        gf_size: filter (rows, columns) of a "gf" f; (32, 17) when not given.

    Raises:
        ValueError: channels that the order does not divide, or f does not exist as asked for.

    Example:
        >>> sum(p.numel() for p in hor_fpn_gnconv(256, 256).parameters())
        249600
    """
    if depthwise == "gf" and gf_size is None:
        gf_size = HOR_FPN_FILTER
    return GnConv(
        out_channels,
        order,
        in_channels=in_channels,
        depthwise=depthwise,
        kernel_size=kernel_size,
        gf_size=gf_size,
        scale=1.0,
    )


class HorFpn(FeaturePyramidNetwork):
    """torchvision's feature pyramid, every 3x3 output convolution replaced by a gⁿConv without 1/α.

    Laterals, the top-down path and what `extra_blocks` adds stay as they are, and so do all arguments, inputs and
    outputs, so that it goes wherever a `FeaturePyramidNetwork` does. The gⁿConvs are `layer_blocks.0`, …, from the
    finest level on; with a norm layer each is followed by one.

    Args:
        in_channels_list: channels of each level that enters, the finest first.
        out_channels: channels C of every level that leaves, divisible by 2^(order - 1), with GF by 2^order.
        extra_blocks: what adds further levels, such as torchvision's `LastLevelMaxPool`.
        norm_layer: norm after every lateral and gⁿConv, from its number of channels; None for none, as published.
        order: n of the gⁿConvs.
        depthwise: f of the gⁿConvs, see `depthwise_operator`: "conv" for 7x7, "gf" for GF.
        kernel_size: K of a "conv" or "pool" f.
        gf_size: filter of a "gf" f; (32, 17) when not given.

    Raises:
        ValueError: no level, channels that the order does not divide, or f does not exist as asked for.
        TypeError: `extra_blocks` is no `ExtraFPNBlock`.

    Example:
        >>> import torch
        >>> levels = {"0": torch.zeros(1, 4, 16, 24), "1": torch.zeros(1, 8, 8, 12)}
        >>> {name: tuple(level.shape) for name, level in HorFpn([4, 8], 16)(levels).items()}
        {'0': (1, 16, 16, 24), '1': (1, 16, 8, 12)}

    Source: Rao et al. 2022 (arXiv 2207.14284), §3.2; the published name of its operator is GNConvModule.
    """

    def __init__(
        self,
        in_channels_list: list[int],
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
        *,
        order: int = 2,
        depthwise: Depthwise = "conv",
        kernel_size: int | None = None,
        gf_size: tuple[int, int] | None = None,
    ) -> None:
        if not in_channels_list:
            raise ValueError("HorFpn expects the channels of at least one level, got an empty in_channels_list.")
        super().__init__(in_channels_list, out_channels, extra_blocks, norm_layer)
        for level in range(len(in_channels_list)):
            gnconv = hor_fpn_gnconv(
                out_channels,
                out_channels,
                order=order,
                depthwise=depthwise,
                kernel_size=kernel_size,
                gf_size=gf_size,
            )
            draw_as_fpn(gnconv)
            self.layer_blocks[level] = gnconv if norm_layer is None else nn.Sequential(gnconv, norm_layer(out_channels))


def draw_as_fpn(module: nn.Module) -> None:
    """Draws the convolutions of a module as those of torchvision's feature pyramid: variance 1 / fan-in, no bias."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, a=1)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
