"""HorNet-T/S/B/L, 7x7 and GF (HorNet §3.2, Table 1), registered in timm."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, LayerNorm2d
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from horinsight.models.elementwise import ScaledSum
from horinsight.models.gnconv import Depthwise, GnConv
from horinsight.models.image_classifier import ImageClassifier


class HorNetBlock(nn.Module):
    """x + γ_1 gⁿConv(LN(x)), then x + γ_2 FFN(LN(x)) (Figure 2, left).

    Args:
        dim: channels C.
        order: n of the gⁿConv.
        drop_path: probability of dropping each residual branch for a whole sample while training.
        layer_scale_init_value: initial γ of both branches; 0 or less for no layer scale at all.
        ffn_ratio: hidden width of the FFN over C.
        **gnconv_options: passed on to `GnConv`.
    """

    def __init__(
        self,
        dim: int,
        order: int,
        *,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        ffn_ratio: float = 4.0,
        **gnconv_options: Any,
    ) -> None:
        super().__init__()
        hidden = int(ffn_ratio * dim)
        self.norm1 = LayerNorm2d(dim, eps=1e-6)
        self.gnconv = GnConv(dim, order, **gnconv_options)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(hidden, dim)
        scaled = layer_scale_init_value > 0
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if scaled else None
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if scaled else None
        # each is called once: what hooks modules (captum's LRP) refuses one that is called twice
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.sum1 = ScaledSum()
        self.sum2 = ScaledSum()

    def mix(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised → (B, C, H, W)."""
        mixed: Tensor = self.gnconv(x)
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.norm1(x)).permute(0, 2, 3, 1)
        x = self.sum1(x.permute(0, 2, 3, 1), self.drop_path(y), gamma=self.gamma1)
        y = self.pwconv2(self.act(self.pwconv1(self.norm2(x))))
        x = self.sum2(x, self.drop_path2(y), gamma=self.gamma2)
        return x.permute(0, 3, 1, 2)


def drop_path_rates(depths: Sequence[int], rate: float) -> list[list[float]]:
    """Stochastic depth rates, rising linearly from 0 at the first block to `rate` at the last, by stage."""
    total = sum(depths)
    flat = [rate * index / max(total - 1, 1) for index in range(total)]
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def _per_stage(name: str, value: Any, num_stages: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * num_stages
    if len(values) != num_stages:
        raise ValueError(f"{name} expects one value per stage ({num_stages}), got {len(values)}: {value}.")
    return values


class HorNet(ImageClassifier):
    """The hierarchical HorNet: four stages of strides 4, 8, 16, 32 (§3.2).

    Args:
        base_dim: C, channels of the first stage, doubled at each further one.
        depths: blocks in each stage.
        orders: n of each stage's gⁿConv, or one for all.
        depthwise: f of the stages without a GF filter, see `depthwise_operator`.
        kernel_size: K of that f; one for all stages or one each.
        gf_sizes: filter (rows, columns) of each stage that uses GF, None for the others; None for no GF at all.
        scale: 1/α of every gⁿConv.
        layer_scale_init_value: initial layer scale, 0 or less for none.
        ffn_ratio: hidden width of the FFN over the channels.
        in_chans: image channels.
        num_classes: outputs of the head; 0 for none.
        global_pool: see `ImageClassifier`.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.

    Raises:
        ValueError: a list of the wrong length, or dims that an order does not divide.

    Example:
        >>> HorNet(8, depths=(1, 1, 1, 1), num_classes=5)(torch.zeros(2, 3, 64, 96)).shape
        torch.Size([2, 5])

    Source: Rao et al. 2022 (arXiv 2207.14284); names as in the published implementation.
    """

    def __init__(
        self,
        base_dim: int = 64,
        *,
        depths: Sequence[int] = (2, 3, 18, 2),
        orders: int | Sequence[int] = (2, 3, 4, 5),
        depthwise: Depthwise = "conv",
        kernel_size: int | Sequence[int] | None = None,
        gf_sizes: Sequence[tuple[int, int] | None] | None = None,
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
        num_stages = 4
        depths = _per_stage("depths", depths, num_stages)
        orders = _per_stage("orders", orders, num_stages)
        filters = [None] * num_stages if gf_sizes is None else _per_stage("gf_sizes", gf_sizes, num_stages)
        kernels = _per_stage("kernel_size", kernel_size, num_stages)
        if kernel_size is not None and all(filters):
            raise ValueError(f"kernel_size={kernel_size} has no stage to apply to: every stage has a GF filter.")
        dims = [base_dim * 2**stage for stage in range(num_stages)]
        rates = drop_path_rates(depths, drop_path_rate)

        stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], kernel_size=4, stride=4), LayerNorm2d(dims[0], eps=1e-6))
        self.downsample_layers = nn.ModuleList([stem])
        for C, C_next in pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(LayerNorm2d(C, eps=1e-6), nn.Conv2d(C, C_next, kernel_size=2, stride=2))
            )
        self.stages = nn.ModuleList()
        for stage, dim in enumerate(dims):
            gf = filters[stage]
            f = {"depthwise": "gf", "gf_size": gf} if gf else {"depthwise": depthwise, "kernel_size": kernels[stage]}
            blocks = [
                self._block(
                    dim,
                    order=orders[stage],
                    drop_path=rate,
                    layer_scale_init_value=layer_scale_init_value,
                    ffn_ratio=ffn_ratio,
                    scale=scale,
                    **f,
                )
                for rate in rates[stage]
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": dim, "reduction": 4 * 2**stage, "module": f"stages.{stage}"})
        self._build_head(dims[-1])

    def _block(self, dim: int, **options: Any) -> HorNetBlock:
        return HorNetBlock(dim, **options)

    def num_sections(self) -> int:
        """The number of stages."""
        return len(self.stages)

    def run_sections(self, x: Tensor, count: int, taken: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Runs the first `count` stages, each its downsampling, then its blocks; see `ImageClassifier`."""
        outputs: list[Tensor] = []
        for index, (downsample, blocks) in enumerate(zip(self.downsample_layers, self.stages)):  # noqa: B905
            if index < count:
                x = downsample(x)
                if not torch.jit.is_scripting() and self._recomputes():  # noqa: SIM108 (a statement is what TorchScript skips)
                    x = checkpoint_seq(blocks, x)
                else:
                    x = blocks(x)
                if index in taken:
                    outputs.append(x)
        return x, outputs

    def _keep_sections(self, count: int) -> None:
        self.downsample_layers = self.downsample_layers[:count]
        self.stages = self.stages[:count]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that split the parameters into stem, stages or blocks, for layer-wise learning rates (timm)."""
        stem = r"^downsample_layers\.0"
        if coarse:
            return {"stem": stem, "blocks": r"^(?:stages|downsample_layers)\.(\d+)"}
        return {
            "stem": stem,
            "blocks": [(r"^downsample_layers\.(\d+)", (0,)), (r"^stages\.(\d+)\.(\d+)", None), (r"^norm", (99999,))],
        }


def classifier_cfg(**overrides: Any) -> dict[str, Any]:
    """A timm `default_cfg` for a HorNet: how images are prepared, where the first convolution and the head are."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "downsample_layers.0.0",
        "classifier": "head",
        "license": "mit",
        "paper_ids": "arXiv:2207.14284",
        **overrides,
    }


_IMG384 = {"input_size": (3, 384, 384), "pool_size": (12, 12), "crop_pct": 1.0}
_TEST = {"input_size": (3, 96, 96), "pool_size": (3, 3)}

default_cfgs = generate_default_cfgs(
    {
        "hornet_tiny_7x7": classifier_cfg(),
        "hornet_tiny_gf": classifier_cfg(),
        "hornet_small_7x7": classifier_cfg(),
        "hornet_small_gf": classifier_cfg(),
        "hornet_base_7x7": classifier_cfg(),
        "hornet_base_gf": classifier_cfg(),
        "hornet_base_gf_img384": classifier_cfg(**_IMG384),
        "hornet_large_7x7": classifier_cfg(),
        "hornet_large_gf": classifier_cfg(),
        "hornet_large_gf_img384": classifier_cfg(**_IMG384),
        "hornet_test": classifier_cfg(**_TEST),
        "hornet_test_gf": classifier_cfg(**_TEST),
    }
)

_GF = (None, None, (14, 8), (7, 4))
_GF_IMG384 = (None, None, (24, 13), (12, 7))
_GF_TEST = (None, None, (6, 4), (3, 2))


def built_hornet(
    variant: str, pretrained: bool, options: dict[str, Any], *, kind: type[HorNet] = HorNet, **layout: Any
) -> HorNet:
    """A HorNet, or a network in its layout, as timm builds it; options come before the variant's layout."""
    model: HorNet = build_model_with_cfg(
        kind,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**layout, **options},
    )
    return model


@register_model
def hornet_tiny_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T 7x7: 22 M parameters, 4.0 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_tiny_7x7", pretrained, kwargs, base_dim=64)


@register_model
def hornet_tiny_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T GF: 23 M parameters, 3.9 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_tiny_gf", pretrained, kwargs, base_dim=64, gf_sizes=_GF)


@register_model
def hornet_small_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S 7x7: 50 M parameters, 8.8 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_small_7x7", pretrained, kwargs, base_dim=96)


@register_model
def hornet_small_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S GF: 50 M parameters, 8.7 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_small_gf", pretrained, kwargs, base_dim=96, gf_sizes=_GF)


@register_model
def hornet_base_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B 7x7: 87 M parameters, 15.6 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_base_7x7", pretrained, kwargs, base_dim=128)


@register_model
def hornet_base_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B GF: 88 M parameters, 15.5 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_base_gf", pretrained, kwargs, base_dim=128, gf_sizes=_GF)


@register_model
def hornet_base_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B GF for 384x384 images: 92 M parameters, 45.4 GMACs (Table 1)."""
    return built_hornet("hornet_base_gf_img384", pretrained, kwargs, base_dim=128, gf_sizes=_GF_IMG384)


@register_model
def hornet_large_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L 7x7: 195 M parameters, 34.8 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_large_7x7", pretrained, kwargs, base_dim=192)


@register_model
def hornet_large_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L GF: 196 M parameters, 34.6 GMACs at 224 (Table 1)."""
    return built_hornet("hornet_large_gf", pretrained, kwargs, base_dim=192, gf_sizes=_GF)


@register_model
def hornet_large_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L GF for 384x384 images: 202 M parameters, 101.8 GMACs (Table 1)."""
    return built_hornet("hornet_large_gf_img384", pretrained, kwargs, base_dim=192, gf_sizes=_GF_IMG384)


@register_model
def hornet_test(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """A few thousand weights, for tests: one block a stage, orders 2, 3, 4, 5, 7x7."""
    return built_hornet("hornet_test", pretrained, kwargs, base_dim=8, depths=(1, 1, 1, 1))


@register_model
def hornet_test_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """A few thousand weights, for tests: one block a stage, orders 2, 3, 4, 5, GF in stages 3 and 4."""
    return built_hornet("hornet_test_gf", pretrained, kwargs, base_dim=8, depths=(1, 1, 1, 1), gf_sizes=_GF_TEST)
