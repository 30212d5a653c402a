"""The isotropic ConvNeXt-S that Table 6b compares with, registered in timm, which has none."""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXtBlock
from torch import nn

from horinsight.models.hornet import classifier_cfg
from horinsight.models.hornet_isotropic import IsotropicHorNet, built_isotropic

ARGUMENTS = ("order", "depthwise", "gf_size", "scale")


class IsotropicConvNeXt(IsotropicHorNet):
    """ConvNeXt with one resolution: patch embedding, 18 equal blocks, mean pool → LN → head.

    Args:
        dim: channels C.
        depth: number of blocks.
        kernel_size: K of the depthwise convolutions.
        layer_scale_init_value: initial layer scale, 0 or less for none, as published for this size.
        **options: of `IsotropicHorNet`, except those of its gⁿConvs.

    Raises:
        TypeError: an option that only a gⁿConv has.

    Example:
        >>> import torch
        >>> IsotropicConvNeXt(16, depth=2, num_classes=5)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5])

    Source: Liu et al. 2022 (arXiv 2201.03545), §3.3; names as in the published implementation (`stem`, `blocks`,
    `norm`, `head`), those of a block as in timm.
    """

    def __init__(
        self,
        dim: int = 384,
        *,
        depth: int = 18,
        kernel_size: int = 7,
        layer_scale_init_value: float = 0.0,
        **options: Any,
    ) -> None:
        refused = [name for name in ARGUMENTS if name in options]
        if refused:
            raise TypeError(f"An isotropic ConvNeXt has no {', '.join(refused)}: choose hornet_s_iso for these.")
        super().__init__(
            dim,
            depth=depth,
            order=1,
            kernel_size=kernel_size,
            layer_scale_init_value=layer_scale_init_value,
            **options,
        )

    def _block(self, dim: int, **options: Any) -> nn.Module:
        scaled = options["layer_scale_init_value"] > 0
        block: nn.Module = ConvNeXtBlock(
            dim,
            kernel_size=options["kernel_size"],
            mlp_ratio=options["ffn_ratio"],
            ls_init_value=options["layer_scale_init_value"] if scaled else None,
            drop_path=options["drop_path"],
        )
        return block


default_cfgs = generate_default_cfgs(
    {
        "convnext_s_iso": classifier_cfg(pool_size=(14, 14), first_conv="stem", paper_ids="arXiv:2201.03545"),
        "convnext_test_iso": classifier_cfg(
            input_size=(3, 96, 96), pool_size=(6, 6), first_conv="stem", paper_ids="arXiv:2201.03545"
        ),
    }
)


@register_model
def convnext_s_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """Isotropic ConvNeXt-S: 18 blocks of width 384 on a 14x14 map, 4.3 GMACs at 224 (Table 6b)."""
    return built_isotropic("convnext_s_iso", pretrained, kwargs, kind=IsotropicConvNeXt, depth=18)


@register_model
def convnext_test_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """A few thousand weights, for tests: three blocks, the fewest levels timm takes for a backbone."""
    return built_isotropic("convnext_test_iso", pretrained, kwargs, kind=IsotropicConvNeXt, dim=16, depth=3)
