"""The backbone of a detector: any of timm that gives four levels of strides 4, 8, 16 and 32."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from horinsight.models.dense.pyramid_backbone import PyramidBackbone
from horinsight.models.registry import check_model_name

LEVEL_STRIDES = (4, 8, 16, 32)


def detection_levels(
    backbone: str | nn.Module, options: Mapping[str, Any] | None = None, *, level_norms: bool | None = None
) -> PyramidBackbone:
    """The four levels of a backbone by its name, or of one that was built with timm's `features_only`.

    GF filters are those of the model that is named: (14, 8) and (7, 4), or (24, 13) and (12, 7) of `*_img384`.

    Args:
        backbone: a name of timm or of this package, or a backbone that is built.
        options: for the constructor of a backbone that is named, see `timm_backbone`.
        level_norms: whether a channel LayerNorm ends each level, see `PyramidBackbone`.

    Raises:
        ValueError: no such model, other levels, or options for a backbone that is built already.

    Example:
        >>> detection_levels("hornet_test").strides
        (4, 8, 16, 32)
    """
    if not isinstance(backbone, nn.Module):
        return PyramidBackbone(timm_backbone(backbone, options), level_norms=level_norms)
    if options:
        raise ValueError("backbone_options go to a backbone that is named, got one that is built already.")
    check_levels(backbone)
    return PyramidBackbone(backbone, level_norms=level_norms)


def timm_backbone(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A backbone of timm cut to its levels of strides 4, 8, 16 and 32, with the weights that its constructor draws.

    Args:
        name: of a model of timm, or of this package.
        options: for its constructor, such as `drop_path_rate`; a Swin takes pictures of any size unless
            `strict_img_size=True`.

    Raises:
        ValueError: no such model, or one that does not give these levels.

    Example:
        >>> timm_backbone("resnet18").feature_info.reduction()
        [4, 8, 16, 32]
    """
    check_model_name(name)
    swin = timm.model_entrypoint(name).__module__.rpartition(".")[2] in ("swin_transformer", "swin_transformer_v2")
    options = {**({"strict_img_size": False} if swin else {}), **(options or {})}
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
        raise ValueError(f"Expected a backbone of timm built with features_only=True, got {name}.")
    if list(info.reduction()) != list(LEVEL_STRIDES):
        raise ValueError(
            f"Expected a backbone with four levels of strides 4, 8, 16, 32, got strides "
            f"{', '.join(map(str, info.reduction()))} from {name}: take a hierarchical one, such as hornet_tiny_7x7."
        )
