"""The isotropic HorNet-S of Figure 4 and Table 6b, registered in timm."""

from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from horinsight.models.gnconv import Depthwise
from horinsight.models.hornet import HorNetBlock, classifier_cfg, drop_path_rates
from horinsight.models.image_classifier import ImageClassifier


class IsotropicHorNet(ImageClassifier):
    """HorNet with one resolution, in the layout of ViT/DeiT-S: patch embedding, equal blocks, mean pool → LN → head.

    No position embedding. The published implementation has no isotropic model; the layout follows the paper's text
    (Table 6b, Figure 4) and its naming follows the isotropic ConvNeXt (`stem`, `blocks`, `norm`, `head`).

    Args:
        dim: channels C.
        depth: number of blocks.
        order: n of every gⁿConv; the paper's FLOPs do not tell it.
        patch_size: side of a patch in pixels, the stride of the embedding.
        depthwise: f, see `depthwise_operator`.
        kernel_size: K of a "conv" or "pool" f.
        gf_size: filter of a "gf" f.
        scale: 1/α of every gⁿConv.
        layer_scale_init_value: initial layer scale, 0 or less for none.
        ffn_ratio: hidden width of the FFN over the channels.
        in_chans: image channels.
        num_classes: outputs of the head; 0 for none.
        global_pool: see `ImageClassifier`.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.

    Raises:
        ValueError: a `dim` that the order does not divide, or options that do not fit together.

    Example:
        >>> import torch
        >>> IsotropicHorNet(16, depth=2, order=3, num_classes=5)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5])

    Source: Rao et al. 2022 (arXiv 2207.14284), §4.3 and Table 6b.
    """

    def __init__(
        self,
        dim: int = 384,
        *,
        depth: int = 13,
        order: int = 5,
        patch_size: int = 16,
        depthwise: Depthwise = "conv",
        kernel_size: int | None = None,
        gf_size: tuple[int, int] | None = None,
        scale: float = 1 / 3,
        layer_scale_init_value: float = 1e-6,
        ffn_ratio: float = 4.0,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.stem = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.blocks = nn.Sequential(
            *[
                self._block(
                    dim,
                    order=order,
                    drop_path=rate,
                    layer_scale_init_value=layer_scale_init_value,
                    ffn_ratio=ffn_ratio,
                    depthwise=depthwise,
                    kernel_size=kernel_size,
                    gf_size=gf_size,
                    scale=scale,
                )
                for rate in drop_path_rates([depth], drop_path_rate)[0]
            ]
        )
        self.feature_info = [
            {"num_chs": dim, "reduction": patch_size, "module": f"blocks.{index}"} for index in range(depth)
        ]
        self._build_head(dim)

    def _block(self, dim: int, **options: Any) -> nn.Module:
        return HorNetBlock(dim, **options)

    def num_sections(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    def run_sections(self, x: Tensor, count: int, taken: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Runs the patch embedding and the first `count` blocks; see `ImageClassifier`."""
        outputs: list[Tensor] = []
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            if index < count:
                if not torch.jit.is_scripting() and self._recomputes():  # noqa: SIM108 (a statement is what TorchScript skips)
                    x = checkpoint_seq([block], x)
                else:
                    x = block(x)
                if index in taken:
                    outputs.append(x)
        return x, outputs

    def _keep_sections(self, count: int) -> None:
        self.blocks = self.blocks[:count]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that split the parameters into stem and blocks, for layer-wise learning rates (timm)."""
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


default_cfgs = generate_default_cfgs(
    {
        "hornet_s_iso": classifier_cfg(pool_size=(14, 14), first_conv="stem"),
        "hornet_s_iso_gf": classifier_cfg(pool_size=(14, 14), first_conv="stem"),
        "hornet_digits_iso": classifier_cfg(
            input_size=(3, 56, 56),
            pool_size=(14, 14),
            crop_pct=1.0,
            num_classes=10,
            first_conv="stem",
            file=str(Path(__file__).parent / "weights" / "hornet_digits_iso.safetensors"),
        ),
        "hornet_test_iso": classifier_cfg(input_size=(3, 96, 96), pool_size=(6, 6), first_conv="stem"),
    }
)


def built_isotropic(
    variant: str,
    pretrained: bool,
    options: dict[str, Any],
    *,
    kind: type[IsotropicHorNet] = IsotropicHorNet,
    **layout: Any,
) -> IsotropicHorNet:
    """An isotropic HorNet, or a network in its layout, as timm builds it; options come before the variant's layout."""
    depth = {**layout, **options}.get("depth", 13)
    model: IsotropicHorNet = build_model_with_cfg(
        kind,
        variant,
        pretrained,
        feature_cfg={"out_indices": tuple(range(depth)), "feature_cls": "getter"},
        **{**layout, **options},
    )
    return model


@register_model
def hornet_s_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """Isotropic HorNet-S 7x7: 13 blocks of width 384 on a 14x14 map, 4.5 GMACs at 224 (Table 6b)."""
    return built_isotropic("hornet_s_iso", pretrained, kwargs)


@register_model
def hornet_s_iso_gf(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """Isotropic HorNet-S GF: filters (14, 8) in every block, 4.5 GMACs at 224 (Table 6b)."""
    return built_isotropic("hornet_s_iso_gf", pretrained, kwargs, depthwise="gf")


@register_model
def hornet_digits_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """The layout of Figure 4's model at width 64: 13 blocks of order 5 on a 14x14 map, for 56x56 digits."""
    return built_isotropic("hornet_digits_iso", pretrained, kwargs, dim=64, patch_size=4)


@register_model
def hornet_test_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicHorNet:
    """A few thousand weights, for tests: three blocks of order 3, the fewest levels timm takes for a backbone."""
    return built_isotropic("hornet_test_iso", pretrained, kwargs, dim=16, depth=3, order=3)
