"""The baseline of the paper's ablation (Table 6a): the same network with a plain depthwise convolution as its mixer."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from horinsight.models.hornet import HorNetBlock, classifier_cfg
from horinsight.models.hornet_isotropic import IsotropicHorNet

GNCONV_OPTIONS = ("order", "depthwise", "gf_size", "scale")


class DepthwiseBlock(HorNetBlock):
    """x + γ_1 f(LN(x)), then x + γ_2 FFN(LN(x)), with f a K x K depthwise convolution: interaction order 0.

    Args:
        dim: channels C.
        kernel_size: K.
        **options: of `HorNetBlock`, except the order.
    """

    def __init__(self, dim: int, *, kernel_size: int = 7, **options: Any) -> None:
        super().__init__(dim, 1, **options)
        del self.gnconv
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def mix(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised → (B, C, H, W)."""
        mixed: Tensor = self.dwconv(x)
        return mixed


class IsotropicDepthwiseNet(IsotropicHorNet):
    """`IsotropicHorNet` with depthwise convolutions in place of its gⁿConvs.

    Args:
        dim: channels C.
        kernel_size: K.
        **options: of `IsotropicHorNet`, except those of its gⁿConvs.

    Raises:
        TypeError: an option that only a gⁿConv has.

    Source: the baseline [*] of Table 6a, on the layout of Table 6b.
    """

    def __init__(self, dim: int = 384, *, kernel_size: int = 7, **options: Any) -> None:
        refused = [name for name in GNCONV_OPTIONS if name in options]
        if refused:
            raise TypeError(f"A plain depthwise convolution has no {', '.join(refused)}: choose a HorNet for these.")
        super().__init__(dim, order=1, kernel_size=kernel_size, **options)

    def _block(self, dim: int, **options: Any) -> HorNetBlock:
        return DepthwiseBlock(dim, **{name: value for name, value in options.items() if name not in GNCONV_OPTIONS})


default_cfgs = generate_default_cfgs(
    {
        "dwconv_digits_iso": classifier_cfg(
            input_size=(3, 56, 56), pool_size=(14, 14), crop_pct=1.0, num_classes=10, first_conv="stem"
        ),
    }
)


@register_model
def dwconv_digits_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicDepthwiseNet:
    """`hornet_digits_iso` with plain 7x7 depthwise convolutions instead of its gⁿConvs."""
    layout = {"dim": 64, "patch_size": 4, **kwargs}
    model: IsotropicDepthwiseNet = build_model_with_cfg(
        IsotropicDepthwiseNet,
        "dwconv_digits_iso",
        pretrained,
        feature_cfg={"out_indices": tuple(range(layout.get("depth", 13))), "feature_cls": "getter"},
        **layout,
    )
    return model
