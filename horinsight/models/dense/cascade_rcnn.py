"""Cascade Mask R-CNN (Cai and Vasconcelos 2018): three stages, each of which learns from better boxes; Table 2."""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
)
from torchvision.ops import clip_boxes_to_image

from horinsight.models.dense.detector import Detector, detector_backbone, with_origin
from horinsight.models.dense.detector_options import DetectorKeywords, DetectorOptions
from horinsight.models.dense.mask_rcnn import region_stage
from horinsight.models.dense.region_heads import BoxHead, MaskHead
from horinsight.options import made

STAGES = (  # IoU from which a proposal is an object, weights of its box's deltas, weight of the stage's losses
    (0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
    (0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    (0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)
NUM_BOX_CONVS = 4

Maps = dict[str, Tensor]
Sizes = list[tuple[int, int]]


def cascade_mask_rcnn(
    backbone: str | nn.Module,
    *,
    backbone_options: Mapping[str, Any] | None = None,
    options: DetectorOptions | None = None,
    **given: Unpack[DetectorKeywords],
) -> Detector:
    """Cascade Mask R-CNN with random weights, in eval mode; see `Detector` for how it is called, `CascadeHeads` for it.

    Three box heads of four 3x3 convolutions (without bias, with BatchNorm) and one fully connected layer of 1024, three
    mask heads as in `mask_rcnn`, boxes and masks for each class.

    Args:
        backbone: as for `mask_rcnn`.
        backbone_options: likewise.
        options: likewise.
        **given: likewise.

    Raises:
        ValueError: no such backbone, one with other levels, or an option that is refused.
        TypeError: a keyword that is no option.

    Example:
        >>> detector = cascade_mask_rcnn("hornet_test_gf", channels=16, box_width=32, num_classes=3, min_size=64)
        >>> len(detector.box_heads), sorted(detector([torch.zeros(3, 64, 96)])[0])
        (3, ['boxes', 'labels', 'masks', 'scores'])
    """
    options = made(DetectorOptions, options, given, caller="cascade_mask_rcnn")
    classes, channels = options.num_classes, options.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        pyramid = detector_backbone(backbone, backbone_options, options)
        boxes = [
            BoxHead(classes, channels=channels, width=options.box_width, num_convs=NUM_BOX_CONVS, num_fcs=1)
            for _ in STAGES
        ]
        masks = [MaskHead(classes, channels=channels) for _ in STAGES]
        heads = CascadeHeads(boxes, masks)
        detector = Detector(pyramid, heads, box_heads=boxes, mask_heads=masks, options=options)
    return with_origin(detector)


class CascadeHeads(nn.Module):
    """Three stages of heads; each moves the boxes that the next one classifies.

    A box moves by its class's deltas: while training that of its object, for background and in eval mode the class of
    the highest logit, the background left aside. Objects' own boxes, which every stage learns from, are not handed on.
    In eval mode the class logits of the stages are averaged and then made scores by a softmax, boxes are the last
    stage's, and masks the average of three mask heads' probabilities in them. All this is mmdet's.

    Args:
        box_heads: one a stage.
        mask_heads: one a stage.
    """

    def __init__(self, box_heads: list[BoxHead], mask_heads: list[MaskHead]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            region_stage(box_head, mask_head, min_overlap=min_overlap, box_weights=box_weights)
            for box_head, mask_head, (min_overlap, box_weights, _) in zip(box_heads, mask_heads, STAGES, strict=True)
        )

    def forward(
        self, features: Maps, proposals: list[Tensor], image_shapes: Sizes, targets: list[Maps] | None = None
    ) -> tuple[list[Maps], Maps]:
        """Detections and no losses, or losses and no detections, of boxes in pixels of the padded batch."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._detections(features, proposals, image_shapes), {}

    def _losses(self, features: Maps, proposals: list[Tensor], sizes: Sizes, targets: list[Maps]) -> Maps:
        losses: Maps = {}
        for number, (stage, (_, _, share)) in enumerate(zip(self._stages(), STAGES, strict=True), 1):
            proposals, matched, labels, deltas_wanted = stage.select_training_samples(proposals, targets)
            logits, deltas = stage.box_head(stage.box_roi_pool(features, proposals, sizes))
            classified, moved = fastrcnn_loss(logits, deltas, labels, deltas_wanted)
            drawn = _mask_loss(stage, features, (proposals, matched, labels), sizes, targets)
            named = {"loss_classifier": classified, "loss_box_reg": moved, "loss_mask": drawn}
            losses |= {f"{name}_{number}": share * loss for name, loss in named.items()}
            with torch.no_grad():
                found = torch.cat(labels)
                classes = torch.where(found > 0, found, likeliest_class(logits))
                refined = refined_boxes(stage, deltas, classes, proposals, sizes)
                proposals = [
                    one[~_is_target(before, target["boxes"])]
                    for one, before, target in zip(refined, proposals, targets, strict=True)
                ]
        return losses

    def _detections(self, features: Maps, proposals: list[Tensor], sizes: Sizes) -> list[Maps]:
        stages = self._stages()
        logits: list[Tensor] = []
        for stage in stages:
            scores, deltas = stage.box_head(stage.box_roi_pool(features, proposals, sizes))
            logits.append(scores)
            if stage is not stages[-1]:
                proposals = refined_boxes(stage, deltas, likeliest_class(scores), proposals, sizes)
        mean = torch.stack(logits).mean(0)
        boxes, scores, labels = stages[-1].postprocess_detections(mean, deltas, proposals, sizes)
        pooled = stages[-1].mask_roi_pool(features, boxes, sizes)
        masks = [maskrcnn_inference(stage.mask_head(pooled), labels) for stage in stages]
        return [
            {"boxes": box, "labels": label, "scores": score, "masks": torch.stack(mask).mean(0)}
            for box, label, score, *mask in zip(boxes, labels, scores, *masks, strict=True)
        ]

    def _stages(self) -> list[RoIHeads]:
        return list(self.stages)


def likeliest_class(logits: Tensor) -> Tensor:
    """(N,) the class of the highest logit, from 1, whatever the background's."""
    return logits[:, 1:].argmax(1) + 1


def refined_boxes(
    stage: RoIHeads, deltas: Tensor, classes: Tensor, proposals: list[Tensor], image_shapes: Sizes
) -> list[Tensor]:
    """Proposals moved by the deltas of their classes and cut at the pictures' edges.

    Args:
        stage: whose weights of deltas apply.
        deltas: (N, 4 · (1 + classes)), over all pictures.
        classes: (N,), from 1.
        proposals: (n, 4) of each picture.
        image_shapes: (H, W) of each picture.
    """
    moved = stage.box_coder.decode(deltas, proposals)[torch.arange(len(classes)), classes]
    each = moved.split([len(one) for one in proposals])
    return [clip_boxes_to_image(boxes, size) for boxes, size in zip(each, image_shapes, strict=True)]


def _is_target(boxes: Tensor, objects: Tensor) -> Tensor:
    """(n,) whether a box is an object's own, which was put among the proposals."""
    same: Tensor = (boxes[:, None] == objects[None].to(boxes)).all(-1).any(1)
    return same


def _mask_loss(
    stage: RoIHeads,
    features: Maps,
    samples: tuple[list[Tensor], list[Tensor], list[Tensor]],
    sizes: Sizes,
    targets: list[Maps],
) -> Tensor:
    """Of the proposals that are objects: their boxes, which object each is, and their labels."""
    chosen = [label > 0 for label in samples[2]]
    boxes, matched = ([values[own] for values, own in zip(kind, chosen, strict=True)] for kind in samples[:2])
    logits = stage.mask_head(stage.mask_roi_pool(features, boxes, sizes))
    masks, labels = [target["masks"] for target in targets], [target["labels"] for target in targets]
    loss: Tensor = maskrcnn_loss(logits, boxes, masks, labels, matched)
    return loss
