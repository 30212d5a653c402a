"""The four maps of a backbone that a detector builds on: strides 4, 8, 16 and 32, each with its channel LayerNorm."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import timm
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from horinsight.models.image_classifier import checked_images
from horinsight.models.registry import check_model_name

LEVEL_STRIDES = (4, 8, 16, 32)
LEVEL_NAMES = ("0", "1", "2", "3")
NORM_EPS = 1e-6


class BackboneLevels(nn.Module):
    """Images (B, C, H, W) → four maps of strides 4, 8, 16, 32 by name, "0" to "3".

    Published detectors put a channel LayerNorm behind every level of HorNet, Swin and ConvNeXt, whose residual streams
    no norm ends, and none behind a ResNet's, which end with BatchNorm and ReLU.

    Args:
        backbone: a timm backbone built with `features_only=True` and these four levels, see `timm_backbone`.
        level_norms: whether to put the norms; where None, to every backbone without a BatchNorm.

    Raises:
        ValueError: the backbone has other levels.

    Example:
        >>> import torch
        >>> levels = BackboneLevels(timm_backbone("hornet_test"))
        >>> {name: tuple(level.shape) for name, level in levels(torch.zeros(1, 3, 64, 96)).items()}["3"]
        (1, 64, 2, 3)
    """

    def __init__(self, backbone: nn.Module, *, level_norms: bool | None = None) -> None:
        super().__init__()
        check_levels(backbone)
        info: Any = backbone.feature_info
        self.body = backbone
        self.channels: list[int] = list(info.channels())
        self._channels_last = "NHWC" in str(getattr(backbone, "output_fmt", "NCHW"))
        if level_norms is None:
            level_norms = not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
        self.norms = nn.ModuleList(
            LayerNorm2d(channels, eps=NORM_EPS) if level_norms else nn.Identity() for channels in self.channels
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = checked_images(images, images.shape[1] if images.ndim == 4 else 3, "The backbone of a detector")
        maps = self.body(images)
        if self._channels_last:
            maps = [level.permute(0, 3, 1, 2) for level in maps]
        normed = [norm(level) for norm, level in zip(self.norms, maps, strict=True)]
        return OrderedDict(zip(LEVEL_NAMES, normed, strict=True))


def timm_backbone(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A backbone of timm cut to its levels of strides 4, 8, 16 and 32, with the weights that its constructor draws.

    Args:
        name: of a model of timm, or of this package.
        options: for its constructor (`drop_path_rate`; `strict_img_size=False` for Swin).

    Raises:
        ValueError: no such model, or one that does not give these levels.

    Example:
        >>> timm_backbone("resnet18").feature_info.reduction()
        [4, 8, 16, 32]
    """
    check_model_name(name)
    options = dict(options or {})
    try:
        body: nn.Module = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, AttributeError, AssertionError) as error:  # timm's ways to say that it cannot be cut
        raise ValueError(f"{name} gives no maps of several strides (timm's features_only): {error}.") from error
    info: Any = body.feature_info
    reductions = list(info.reduction())
    if reductions == list(LEVEL_STRIDES) or not set(LEVEL_STRIDES) <= set(reductions):
        check_levels(body, name)
        return body
    chosen = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in LEVEL_STRIDES]
    body = timm.create_model(name, pretrained=False, features_only=True, out_indices=chosen, **options)
    return body


def check_levels(backbone: nn.Module, name: str | None = None) -> None:
    """Refuse a backbone without maps of strides 4, 8, 16 and 32.

    Raises:
        ValueError: says which it has.
    """
    name = name or type(backbone).__name__
    info: Any = getattr(backbone, "feature_info", None)
    if not hasattr(info, "reduction"):
        raise ValueError(f"A detector expects a backbone of timm built with features_only=True, got {name}.")
    if list(info.reduction()) != list(LEVEL_STRIDES):
        raise ValueError(
            f"A detector expects a backbone with four levels of strides 4, 8, 16, 32, got strides "
            f"{', '.join(map(str, info.reduction()))} from {name}: take a hierarchical one, such as hornet_tiny_7x7."
        )
