"""The four levels of a backbone for dense prediction: of any timm network, with the published norm at their ends."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import timm
import torch.nn.functional as F
from timm.layers import Format, LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

from horinsight.models.hornet import HorNetBlock
from horinsight.models.image_classifier import checked_images
from horinsight.models.registry import check_model_name

NUM_LEVELS = 4
SEGMENTATION_FILTERS = (None, None, (24, 13), (12, 7))  # of GF backbones, by stage, whatever their size
_SWIN_EPS = 1e-5
_NORM_EPS = {  # of the LayerNorm at the end of each level, by the blocks that the network is made of
    HorNetBlock: 1e-6,
    ConvNeXtBlock: 1e-6,
    SwinTransformerBlock: _SWIN_EPS,
    SwinTransformerV2Block: _SWIN_EPS,
}


class PyramidBackbone(nn.Module):
    """The last four levels of a network, each ended by a channel LayerNorm (`norm0` … `norm3`) where that is published.

    Args:
        body: a timm model built with `features_only=True` that gives four levels.
        level_norms: whether the levels end with a LayerNorm; None for what is published: HorNet, Swin and ConvNeXt have
            them, other networks have none.
        multiple: pictures are padded with zeros at the right and at the bottom to a multiple of so many pixels; None
            for what is published: of 4 for Swin, not at all for other networks.

    Raises:
        ValueError: no `features_only` model, or not four levels of growing stride.

    Attributes:
        channels: of the levels, the finest first.
        strides: of the levels, in pixels.

    Example:
        >>> import torch
        >>> body = timm.create_model("hornet_test", features_only=True)
        >>> [tuple(level.shape) for level in PyramidBackbone(body)(torch.zeros(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 16, 8, 12), (1, 32, 4, 6), (1, 64, 2, 3)]
    """

    norm0: nn.Module
    norm1: nn.Module
    norm2: nn.Module
    norm3: nn.Module

    def __init__(self, body: nn.Module, *, level_norms: bool | None = None, multiple: int | None = None) -> None:
        super().__init__()
        self.channels, self.strides = _levels_of(body)
        self.body = body
        self.in_chans = _image_channels(body)
        eps = next((eps for kind, eps in _NORM_EPS.items() if any(isinstance(m, kind) for m in body.modules())), None)
        self.has_level_norms = eps is not None if level_norms is None else level_norms
        for level, channels in enumerate(self.channels):
            norm = LayerNorm2d(channels, eps=eps or 1e-6) if self.has_level_norms else nn.Identity()
            self.add_module(f"norm{level}", norm)
        self.multiple = (self.strides[0] if eps == _SWIN_EPS else 1) if multiple is None else multiple
        self._channels_last = getattr(body, "output_fmt", None) == Format("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = checked_images(x, self.in_chans, "A network of four levels", self.strides[-1])
        if self.multiple > 1:
            x = F.pad(x, (0, -x.shape[3] % self.multiple, 0, -x.shape[2] % self.multiple))
        levels = self.body(x)
        if self._channels_last:
            levels = [level.permute(0, 3, 1, 2).contiguous() for level in levels]
        norms = (self.norm0, self.norm1, self.norm2, self.norm3)
        return [norm(level) for norm, level in zip(norms, levels, strict=True)]


def pyramid_backbone(
    name: str, *, level_norms: bool | None = None, multiple: int | None = None, **options: Any
) -> PyramidBackbone:
    """A `PyramidBackbone` of a model by its name.

    Args:
        name: of this package or of timm.
        level_norms: see `PyramidBackbone`.
        multiple: see `PyramidBackbone`.
        **options: for the model's constructor. `gf_sizes` of a HorNet GF are those of segmentation, (24, 13) and
            (12, 7), unless given; a Swin takes pictures of any size unless `strict_img_size=True`.

    Raises:
        ValueError: an unknown name, or a network without four levels.

    Example:
        >>> backbone = pyramid_backbone("hornet_test_gf")
        >>> backbone.body.model.stages[2][0].gnconv.dwconv.complex_weight.shape
        torch.Size([30, 24, 13, 2])
    """
    check_model_name(name)
    options = {**_segmentation_options(name), **options}
    try:
        body = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=tuple(range(-NUM_LEVELS, 0)), **options
        )
    except (AssertionError, IndexError, RuntimeError) as error:  # timm's, for what has fewer levels or none
        raise ValueError(
            f"{name} gives no {NUM_LEVELS} levels ({error}): choose a network of {NUM_LEVELS} strides, such as "
            "hornet_tiny_gf or resnet50."
        ) from error
    return PyramidBackbone(body, level_norms=level_norms, multiple=multiple)


def _segmentation_options(name: str) -> Mapping[str, Any]:
    """What a backbone is built with for segmentation where nothing else is asked for."""
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    if family == "hornet" and "_gf" in name:
        return {"gf_sizes": SEGMENTATION_FILTERS}
    return {"strict_img_size": False} if family in ("swin_transformer", "swin_transformer_v2") else {}


def _levels_of(body: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the levels that a `features_only` model gives."""
    info: Any = getattr(body, "feature_info", None)
    if not hasattr(info, "channels") or not hasattr(info, "reduction"):
        raise ValueError(
            f"A backbone is expected to be a timm model built with features_only=True, got {type(body).__name__}: "
            "pass its name, or timm.create_model(name, features_only=True, out_indices=(-4, -3, -2, -1))."
        )
    channels, strides = tuple(info.channels()), tuple(info.reduction())
    if len(strides) != NUM_LEVELS or any(a >= b for a, b in pairwise(strides)):
        raise ValueError(
            f"A backbone is expected to give {NUM_LEVELS} levels, each of a larger stride than the one before, got "
            f"{len(strides)} of strides {', '.join(map(str, strides))}."
        )
    return channels, strides


def _image_channels(body: nn.Module) -> int:
    """Channels of the pictures that a network takes: those of its first convolution."""
    first = next((part for part in body.modules() if isinstance(part, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels
