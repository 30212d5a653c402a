"""A two-stage detector: pyramid, region proposals, heads; torchvision's parts in the layout of mmdet."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from horinsight.description import data_configuration
from horinsight.models.dense.backbone_levels import LEVEL_STRIDES, detection_levels
from horinsight.models.dense.detection_targets import check_targets
from horinsight.models.dense.detector_backbone import DetectorBackbone
from horinsight.models.dense.detector_names import weights_by_own_names
from horinsight.models.dense.detector_options import DetectorOptions
from horinsight.models.dense.pyramid_anchors import ASPECT_RATIOS, PyramidAnchors
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.zero_branches import opened_branches

SIZE_DIVISOR = 32  # of the padded batch
PROPOSALS = 1000  # kept of a picture
CANDIDATES = {"training": 2000, "testing": 1000}  # of a level, before overlapping ones are dropped


class Detector(GeneralizedRCNN):
    """Finds objects: boxes, labels, scores and masks of each picture; losses while training.

    Called with a list of pictures (C, H, W) or a batch (B, C, H, W), colours from 0 to 1: it normalises and resizes
    them itself. In eval mode it gives for each picture a dictionary of `boxes` (N, 4) as x1, y1, x2, y2 in the
    picture's pixels, `labels` (N,) from 1, `scores` (N,), and `masks` (N, 1, H, W) from 0 to 1. In training mode it
    takes `targets` (`check_targets`) and gives a dictionary of losses.

    What is analysed is its `backbone` (`DetectorBackbone`), which takes a normalised batch and holds every mixer of the
    whole picture. `box_heads` and `mask_heads` are those of regions, one a stage.

    What equals mmdet's (version 2), so that weights mean the same: anchors, their places and order; deltas of a box (of
    its centre by its sides, of its sides by their logarithm; the heads' divided by 10, 10, 5, 5, which mmdet writes as
    standard deviations of 0.1, 0.1, 0.2, 0.2); the level of a region; RoIAlign with half-pixel samples; thresholds and
    numbers of proposals and detections. What differs: labels start at 1, the background is 0 (`load_checkpoint` turns
    the classifiers' rows); losses are torchvision's (smooth L1 with β = 1/9 on deltas); masks are cut from targets and
    pasted into pictures as torchvision does; only growth of a box is limited, not shrinkage; pictures are resized by
    torch. A backbone's BatchNorm learns its statistics while training, unless that part is put in eval mode.

    Args:
        backbone: with its pyramid.
        roi_heads: called with maps, proposals, sizes and targets.
        box_heads: those inside `roi_heads`, in the order of the stages.
        mask_heads: likewise.
        options: sizes of pictures, number of classes.
    """

    def __init__(
        self,
        backbone: DetectorBackbone,
        roi_heads: nn.Module,
        *,
        box_heads: Sequence[nn.Module],
        mask_heads: Sequence[nn.Module],
        options: DetectorOptions,
    ) -> None:
        configuration = data_configuration(backbone)
        transform = GeneralizedRCNNTransform(
            options.min_size,
            options.max_size,
            list(configuration["mean"]),
            list(configuration["std"]),
            size_divisible=SIZE_DIVISOR,
        )
        super().__init__(backbone, _proposals(options.channels), roi_heads, transform)
        self.options = options
        self._heads = tuple(box_heads), tuple(mask_heads)  # registered once, inside roi_heads

    @property
    def box_heads(self) -> tuple[nn.Module, ...]:
        """One for each stage, each called with regions (N, C, 7, 7)."""
        return self._heads[0]

    @property
    def mask_heads(self) -> tuple[nn.Module, ...]:
        """One for each stage, each called with regions (N, C, 14, 14)."""
        return self._heads[1]

    def forward(self, images: Sequence[Tensor] | Tensor, targets: Any = None) -> Any:
        """See the class.

        Raises:
            ValueError: pictures of another shape or smaller than the largest stride, or targets that do not fit.
        """
        pictures = _checked_pictures(images)
        if self.training:
            check_targets(targets, pictures, self.options.num_classes)
        return super().forward(pictures, targets)

    def named_weights(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
        """How `load_checkpoint` reads a file for it, see `weights_by_own_names`."""
        return weights_by_own_names(self, tensors)


def _proposals(channels: int) -> RegionProposalNetwork:
    """mmdet's settings: an anchor is an object's above IoU 0.7, background below 0.3; 256 are learned from."""
    return RegionProposalNetwork(
        PyramidAnchors(),
        RPNHead(channels, len(ASPECT_RATIOS)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=CANDIDATES,
        post_nms_top_n={"training": PROPOSALS, "testing": PROPOSALS},
        nms_thresh=0.7,
    )


def _checked_pictures(images: Sequence[Tensor] | Tensor) -> list[Tensor]:
    if not len(images):
        raise ValueError("A detector expects at least one picture, got none.")
    least = max(LEVEL_STRIDES)
    for picture in images:
        if not isinstance(picture, Tensor) or picture.ndim != 3:
            got = f"shape {tuple(picture.shape)}" if isinstance(picture, Tensor) else type(picture).__name__
            raise ValueError(f"A detector expects pictures (C, H, W) in a list, or a batch (B, C, H, W), got {got}.")
        if min(picture.shape[1:]) < least:
            raise ValueError(
                f"A detector expects pictures of at least {least} pixels a side, its backbone's largest stride, "
                f"got {picture.shape[1]}x{picture.shape[2]}: enlarge or pad them."
            )
    return list(images)


def detector_backbone(
    backbone: str | nn.Module, backbone_options: Mapping[str, Any] | None, options: DetectorOptions
) -> DetectorBackbone:
    """The backbone of a detector by name, or around one that was built with timm's `features_only`.

    Raises:
        ValueError: it has other levels than four of strides 4 to 32, or options come with a backbone that is built.
    """
    levels = detection_levels(backbone, backbone_options, level_norms=options.level_norms)
    return DetectorBackbone(levels, fpn=options.fpn, channels=options.channels)


def with_origin(detector: Detector) -> Detector:
    """The same detector in eval mode, with branches open that constructors start at 0, and its origin written down."""
    seed = detector.options.seed
    opened = opened_branches(detector.backbone.levels, seed=seed)
    for part in (detector, detector.backbone):  # which is measured by itself
        set_weights_origin(part, WeightsOrigin(f"random, seed {seed}{opened}", trained=False))
    detector.eval()
    return detector
