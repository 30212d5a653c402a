"""The networks without gnConvs of the paper's ablation: depthwise convolution, SE and pooling (Tables 6a and 6c).

The paper says "simply replacing the self-attention with 7x7 depth-wise convolution in Swin-T" ([*], §4.3) and prints
29 M parameters and 4.5 G; more it does not say. What was tried, on Swin-T's depths (2, 2, 6, 2) and width 96:

| reading of [*] | parameters | MACs | prints 29 M, 4.5 G |
|---|---|---|---|
| the convolution alone, without projections | 19.85 M | 3.03 G | no |
| the same on depths (3, 3, 9, 3), which are ConvNeXt-T's | 28.61 M | 4.46 G | yes, but not Swin-T |
| projections C → C before and after it | 24.17 M | 3.73 G | no |
| φ_in and φ_out as a gⁿConv of order 1 has them (3C²) | 26.33 M | 4.07 G | no |
| projections C → 2C → C around it, over the 2C channels (taken) | 28.71 M | 4.49 G | yes |

The last keeps attention's 4C² weights in projections. The same mixer gives the other rows: with SE (reduction 16) over
the 2C channels 29.80 M and 4.49 G (printed: 30 M, 4.5 G; reduction 4 gives 33.0 M and 8 gives 30.9 M), in HorNet-T's
layout with a 3x3 convolution 3.97 G (printed 4.0) and with 3x3 pooling 3.94 G (printed 3.9), where the convolution
alone would give 2.67 G. On depths (3, 3, 9, 3), SE needs the reduction 4 to print 30 M, and no 3x3 variant prints 4.0.
Nothing tells of a non-linearity or a norm between the projections: there is none here, as in gⁿConv.
"""

from typing import Any

from timm.layers import SEModule
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from horinsight.models.gnconv import Depthwise, depthwise_operator, pointwise_conv
from horinsight.models.hornet import HorNet, HorNetBlock, built_hornet, classifier_cfg

EXPANSION = 2  # channels of the depthwise operator over C
SWIN_T: dict[str, Any] = {"base_dim": 96, "depths": (2, 2, 6, 2)}
GNCONV_OPTIONS = ("orders", "gf_sizes", "scale")


class SeparableMixer(nn.Module):
    """φ_out(SE(f(φ_in(x)))): C → 2C → C, with f a depthwise operator and SE the gates of its channels, if asked for.

    Args:
        dim: channels C.
        depthwise: f, see `depthwise_operator`.
        kernel_size: K of f.
        se_reduction: 2C over the hidden width of squeeze-and-excitation; 0 for none.

    Example:
        >>> import torch
        >>> SeparableMixer(8, se_reduction=4)(torch.zeros(1, 8, 7, 9)).shape
        torch.Size([1, 8, 7, 9])
    """

    def __init__(
        self, dim: int, *, depthwise: Depthwise = "conv", kernel_size: int | None = None, se_reduction: int = 0
    ) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        if se_reduction < 0 or se_reduction > hidden:
            raise ValueError(
                f"se_reduction expects a number from 1 to {EXPANSION} * dim = {hidden}, or 0 for no "
                f"squeeze-and-excitation, got {se_reduction}."
            )
        self.proj_in = pointwise_conv(dim, hidden)
        self.dwconv = depthwise_operator(hidden, depthwise, kernel_size=kernel_size)
        self.se = SEModule(hidden, rd_channels=hidden // se_reduction) if se_reduction else nn.Identity()
        self.proj_out = pointwise_conv(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj_out(self.se(self.dwconv(self.proj_in(x))))
        return out


class SeparableBlock(HorNetBlock):
    """`HorNetBlock` with a `SeparableMixer` in place of its gⁿConv: interaction order 0, with SE 1.

    Args:
        dim: channels C.
        depthwise: f of the mixer.
        kernel_size: K of f.
        se_reduction: of the mixer.
        **options: of `HorNetBlock`, except those of its gⁿConv.
    """

    def __init__(
        self,
        dim: int,
        *,
        depthwise: Depthwise = "conv",
        kernel_size: int | None = None,
        se_reduction: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(dim, 1, **options)
        del self.gnconv
        self.mixer = SeparableMixer(dim, depthwise=depthwise, kernel_size=kernel_size, se_reduction=se_reduction)

    def mix(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised → (B, C, H, W)."""
        mixed: Tensor = self.mixer(x)
        return mixed


class SeparableNet(HorNet):
    """`HorNet` with a `SeparableMixer` in place of each gⁿConv.

    Args:
        base_dim: channels of the first stage.
        se_reduction: see `SeparableMixer`.
        **options: of `HorNet`, except those of its gⁿConvs.

    Raises:
        TypeError: an option that only a gⁿConv has.

    Example:
        >>> import torch
        >>> SeparableNet(8, depths=(1, 1, 1, 1), num_classes=5)(torch.zeros(2, 3, 64, 96)).shape
        torch.Size([2, 5])

    Source: rows without gⁿConv of Tables 6a and 6c; this file's docstring says what the paper leaves open.
    """

    def __init__(self, base_dim: int = 96, *, se_reduction: int = 0, **options: Any) -> None:
        refused = [name for name in GNCONV_OPTIONS if name in options]
        if refused:
            raise TypeError(f"A network without gnConvs has no {', '.join(refused)}: choose a HorNet for these.")
        self._se_reduction = se_reduction
        super().__init__(base_dim, orders=1, **options)

    def _block(self, dim: int, **options: Any) -> HorNetBlock:
        kept = {name: value for name, value in options.items() if name not in ("order", "scale")}
        return SeparableBlock(dim, se_reduction=self._se_reduction, **kept)


_TEST = {"input_size": (3, 96, 96), "pool_size": (3, 3)}

default_cfgs = generate_default_cfgs(
    {
        "dwconv7x7_swin_t": classifier_cfg(),
        "se_dwconv7x7_swin_t": classifier_cfg(),
        "dwconv3x3_hornet_t": classifier_cfg(),
        "pool_hornet_t": classifier_cfg(),
        "se_dwconv_test": classifier_cfg(**_TEST),
    }
)


@register_model
def dwconv7x7_swin_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with 7x7 depthwise convolutions for its attention, [*]: 29 M parameters, 4.5 GMACs (Table 6a)."""
    return built_hornet("dwconv7x7_swin_t", pretrained, kwargs, kind=SeparableNet, **SWIN_T)


@register_model
def se_dwconv7x7_swin_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """`dwconv7x7_swin_t` with squeeze-and-excitation: 30 M parameters, 4.5 GMACs (Table 6a)."""
    return built_hornet("se_dwconv7x7_swin_t", pretrained, kwargs, kind=SeparableNet, se_reduction=16, **SWIN_T)


@register_model
def dwconv3x3_hornet_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with 3x3 depthwise convolutions for its gⁿConvs: 4.0 GMACs (Table 6c)."""
    return built_hornet("dwconv3x3_hornet_t", pretrained, kwargs, kind=SeparableNet, base_dim=64, kernel_size=3)


@register_model
def pool_hornet_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with 3x3 mean pooling for its gⁿConvs: 3.9 GMACs (Table 6c)."""
    return built_hornet(
        "pool_hornet_t", pretrained, kwargs, kind=SeparableNet, base_dim=64, depthwise="pool", kernel_size=3
    )


@register_model
def se_dwconv_test(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """A few thousand weights, for tests: one block a stage, 7x7 depthwise convolutions with squeeze-and-excitation."""
    layout: dict[str, Any] = {"base_dim": 8, "depths": (1, 1, 1, 1), "se_reduction": 4}
    return built_hornet("se_dwconv_test", pretrained, kwargs, kind=SeparableNet, **layout)
