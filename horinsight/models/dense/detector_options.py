"""What a detector is built with: every option of it, described once."""

from dataclasses import dataclass
from typing import TypedDict

from horinsight.models.dense.detector_backbone import Fpn
from horinsight.options import check_fields, option


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """Options of `mask_rcnn` and `cascade_mask_rcnn`; the defaults are those of the published configurations.

    Attributes:
        fpn: the feature pyramid: "fpn", or HorFPN with f = 7x7 or GF ("horfpn_7x7", "horfpn_gf").
        num_classes: without the background: 80 on COCO.
        channels: of the pyramid and of the heads' convolutions.
        box_width: of the box heads' fully connected layers.
        level_norms: a channel LayerNorm behind each level of the backbone; None for HorNet, Swin and ConvNeXt alone.
        min_size: to how many pixels a picture's shorter side is brought.
        max_size: the most that its longer side may then have.
        seed: of the random weights.

    Raises:
        ValueError: a value below its least, or no such pyramid.
    """

    fpn: Fpn = option("fpn", "The feature pyramid.")
    num_classes: int = option(80, "Classes without the background.", least=1)
    channels: int = option(256, "Channels of the pyramid and of the heads' convolutions.", least=1)
    box_width: int = option(1024, "Width of the box heads' fully connected layers.", least=1)
    level_norms: bool | None = option(None, "A LayerNorm behind each level; None where that is published.")
    min_size: int = option(800, "Pixels of a picture's shorter side.", least=32)
    max_size: int = option(1333, "Most pixels of its longer side.", least=32)
    seed: int = option(0, "Of the random weights.")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_size < self.min_size:
            raise ValueError(f"max_size expects at least min_size={self.min_size}, got {self.max_size}.")


class DetectorKeywords(TypedDict, total=False):
    """The fields of `DetectorOptions` as keyword arguments."""

    fpn: Fpn
    num_classes: int
    channels: int
    box_width: int
    level_norms: bool | None
    min_size: int
    max_size: int
    seed: int
