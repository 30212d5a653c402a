"""Names of a detector's weights: ours (timm's and torchvision's), and the published ones (mmdet, version 2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from horinsight.models.parameter_names import names_in_model

if TYPE_CHECKING:
    from horinsight.models.dense.detector import Detector

# ours → the published one; the first that fits
PUBLISHED_NAMES = (
    (re.compile(r"^backbone\.levels\.norm(\d+)\."), r"backbone.norm\1."),
    (re.compile(r"^backbone\.levels\.body\.model\."), "backbone."),  # timm wraps some backbones, and cuts others up
    (re.compile(r"^backbone\.levels\.body\."), "backbone."),
    (re.compile(r"^backbone\.fpn\.inner_blocks\.(\d+)\.0\."), r"neck.lateral_convs.\1.conv."),
    (re.compile(r"^backbone\.fpn\.layer_blocks\.(\d+)\.0\."), r"neck.fpn_convs.\1.conv."),
    (re.compile(r"^backbone\.fpn\.layer_blocks\.(\d+)\."), r"neck.fpn_convs.\1."),  # HorFPN's gnConv
    (re.compile(r"^rpn\.head\.conv\.0\.0\."), "rpn_head.rpn_conv."),
    (re.compile(r"^rpn\.head\.cls_logits\."), "rpn_head.rpn_cls."),
    (re.compile(r"^rpn\.head\.bbox_pred\."), "rpn_head.rpn_reg."),
    (re.compile(r"^roi_heads\.box_head\."), "roi_head.bbox_head."),
    (re.compile(r"^roi_heads\.mask_head\."), "roi_head.mask_head."),
    (re.compile(r"^roi_heads\.stages\.(\d+)\.box_head\."), r"roi_head.bbox_head.\1."),
    (re.compile(r"^roi_heads\.stages\.(\d+)\.mask_head\."), r"roi_head.mask_head.\1."),
)
CLASSES = (".fc_cls.weight", ".fc_cls.bias")  # whose rows are classes, with the background among them


def published_name(key: str) -> str:
    """The published name of a weight of a detector.

    Example:
        >>> published_name("roi_heads.stages.2.box_head.shared_convs.0.bn.weight")
        'roi_head.bbox_head.2.shared_convs.0.bn.weight'
    """
    for pattern, replacement in PUBLISHED_NAMES:
        if pattern.match(key):
            return pattern.sub(replacement, key)
    return key


def mmdet_state_dict(detector: Detector) -> dict[str, Tensor]:
    """A detector's weights under the published names and in mmdet's order of classes, the background last.

    Backbones have the names of the published HorNet and of ResNets; others keep timm's. Only the classifiers are
    copied. `load_checkpoint` reads what this gives.

    Example:
        >>> from horinsight.models.dense.mask_rcnn import mask_rcnn
        >>> weights = mmdet_state_dict(mask_rcnn("hornet_test", channels=16, box_width=32, num_classes=3))
        >>> weights["roi_head.bbox_head.fc_cls.weight"].shape, "neck.fpn_convs.3.conv.bias" in weights
        (torch.Size([4, 32]), True)
    """
    return {
        published_name(key): tensor.roll(-1, 0) if key.endswith(CLASSES) else tensor
        for key, tensor in detector.state_dict().items()
    }


def weights_by_own_names(detector: Detector, tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Which weight of a detector each tensor of a file is, and the tensors in its order of classes.

    Args:
        detector: to be filled.
        tensors: of a file: under our names, or under published ones; HorNets also as mmpretrain spells them.

    Returns:
        Key of the file → key of the detector for those that have one, and key of the file → tensor.
    """
    own = detector.state_dict()
    of_published = {published_name(key): key for key in own}
    found = names_in_model(tensors, {**own, **{name: own[key] for name, key in of_published.items()}})
    named = {key: of_published.get(name, name) for key, name in found.items()}
    foreign = [key for key, name in found.items() if name in of_published and name not in own]
    turned = {key: tensors[key].roll(1, 0) for key in foreign if named[key].endswith(CLASSES)}
    return named, {**tensors, **turned}
