"""Mask2Former (Cheng et al. 2022) in transformers' own classes, on any backbone of timm: Table 5's framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from horinsight.models.dense.backbone_levels import LEVEL_STRIDES, detection_levels
from horinsight.models.dense.pyramid_backbone import PyramidBackbone
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.zero_branches import opened_branches

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.modeling_outputs import BackboneOutput

ADE20K_CLASSES = 150


class LevelsEncoder(nn.Module):
    """`PyramidBackbone` as transformers call a backbone: images (B, C, H, W) → four `feature_maps`.

    Args:
        levels: the backbone.
    """

    def __init__(self, levels: PyramidBackbone) -> None:
        super().__init__()
        self.levels = levels
        self.channels = levels.channels

    def forward(self, pixel_values: Tensor) -> BackboneOutput:
        from transformers.modeling_outputs import BackboneOutput

        return BackboneOutput(feature_maps=tuple(self.levels(pixel_values)))


def mask2former(
    backbone: str,
    *,
    backbone_options: Mapping[str, Any] | None = None,
    level_norms: bool | None = None,
    num_classes: int = ADE20K_CLASSES,
    seed: int = 0,
    **config: Any,
) -> Mask2FormerForUniversalSegmentation:
    """transformers' Mask2Former on a backbone of timm, with random weights, in eval mode.

    It takes `pixel_values` (B, 3, H, W), normalised, and gives `masks_queries_logits` and `class_queries_logits`;
    transformers' image processor makes segments of them. Its weights have transformers' names but for the backbone's.
    What is analysed is `model.pixel_level_module.encoder`, its backbone.

    Args:
        backbone: a name of timm or of this package, whose `features_only` gives strides 4, 8, 16, 32.
        backbone_options: for its constructor.
        level_norms: see `PyramidBackbone`.
        num_classes: of segments.
        seed: of the random weights.
        **config: further fields of transformers' `Mask2FormerConfig`, such as `num_queries`.

    Raises:
        ValueError: no such backbone, or one with other levels.
        ImportError: transformers are not there.

    Example:
        >>> small = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2}
        >>> model = mask2former("hornet_test", encoder_layers=1, decoder_layers=2, num_queries=5, **small)
        >>> model(torch.zeros(1, 3, 64, 96)).masks_queries_logits.shape
        torch.Size([1, 5, 16, 24])
    """
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        levels = detection_levels(backbone, backbone_options, level_norms=level_norms)
        model = _around(levels, {"num_labels": num_classes, "feature_strides": list(LEVEL_STRIDES), **config})
    opened = opened_branches(levels, seed=seed)
    for part in (model, levels):
        set_weights_origin(part, WeightsOrigin(f"random, seed {seed}{opened}", trained=False))
    return model.eval()


# stands where the backbone will, while transformers build what is around it; never called
_STAND_IN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 4}


def _around(levels: PyramidBackbone, config: Mapping[str, Any]) -> Mask2FormerForUniversalSegmentation:
    """Mask2Former on a backbone that transformers do not know."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

    stages = [f"stage{index + 1}" for index in range(len(LEVEL_STRIDES))]
    settings = Mask2FormerConfig(backbone_config=SwinConfig(out_features=stages, **_STAND_IN), **config)
    model = Mask2FormerForUniversalSegmentation(settings)
    pixels = model.model.pixel_level_module
    pixels.decoder = Mask2FormerPixelDecoder(settings, feature_channels=levels.channels)
    model.init_weights()  # of the new decoder; the others have theirs
    pixels.encoder = LevelsEncoder(levels)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without their remarks; an import that fails says what to install."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise ImportError("mask2former needs transformers: install horinsight[mask2former].") from error
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
