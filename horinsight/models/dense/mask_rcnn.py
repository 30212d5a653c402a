"""Mask R-CNN (He et al. 2017) on any backbone of timm, with FPN or HorFPN, as in Table 3."""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads

from horinsight.models.dense.detector import Detector, detector_backbone, with_origin
from horinsight.models.dense.detector_options import DetectorKeywords, DetectorOptions
from horinsight.models.dense.pyramid_anchors import AlignedRoIAlign
from horinsight.models.dense.region_heads import BOX_SIDE, MASK_SIDE, BoxHead, MaskHead
from horinsight.options import made

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # by which deltas of x, y, width, height are divided


def mask_rcnn(
    backbone: str | nn.Module,
    *,
    backbone_options: Mapping[str, Any] | None = None,
    options: DetectorOptions | None = None,
    **given: Unpack[DetectorKeywords],
) -> Detector:
    """Mask R-CNN with random weights, in eval mode; see `Detector` for how it is called and what is mmdet's.

    FPN of 256 channels with five levels, three anchors a place, a box head of two fully connected layers of 1024, a
    mask head of four 3x3 convolutions, boxes and masks for each class.

    Args:
        backbone: a name of timm or of this package, whose `features_only` gives strides 4, 8, 16, 32; or a backbone
            built so.
        backbone_options: for the constructor of a backbone that is named.
        options: the defaults when None.
        **given: fields of `DetectorOptions`, in place of those of `options`.

    Raises:
        ValueError: no such backbone, one with other levels, or an option that is refused.
        TypeError: a keyword that is no option.

    Example:
        >>> detector = mask_rcnn("hornet_test", channels=16, box_width=32, num_classes=3, min_size=64)
        >>> sorted(detector(torch.zeros(1, 3, 64, 96))[0])
        ['boxes', 'labels', 'masks', 'scores']
    """
    options = made(DetectorOptions, options, given, caller="mask_rcnn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        pyramid = detector_backbone(backbone, backbone_options, options)
        box_head = BoxHead(options.num_classes, channels=options.channels, width=options.box_width)
        mask_head = MaskHead(options.num_classes, channels=options.channels)
        heads = region_stage(box_head, mask_head, min_overlap=0.5, box_weights=BOX_WEIGHTS)
        detector = Detector(pyramid, heads, box_heads=[box_head], mask_heads=[mask_head], options=options)
    return with_origin(detector)


def region_stage(
    box_head: BoxHead, mask_head: MaskHead, *, min_overlap: float, box_weights: tuple[float, float, float, float]
) -> RoIHeads:
    """One stage of heads, in torchvision's class with mmdet's settings.

    Args:
        box_head: gives logits and deltas.
        mask_head: gives masks.
        min_overlap: IoU with an object from which on a proposal is that object; below, it is background.
        box_weights: by which deltas are divided.
    """
    return RoIHeads(
        AlignedRoIAlign(BOX_SIDE),
        box_head,
        nn.Identity(),  # the box head predicts already
        fg_iou_thresh=min_overlap,
        bg_iou_thresh=min_overlap,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=box_weights,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
        mask_roi_pool=AlignedRoIAlign(MASK_SIDE),
        mask_head=mask_head,
        mask_predictor=nn.Identity(),
    )
