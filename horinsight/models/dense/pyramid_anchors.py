"""Anchors and regions on a pyramid whose strides are known: mmdet's places and sizes, in torchvision's classes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from horinsight.models.dense.backbone_levels import LEVEL_STRIDES
from horinsight.models.dense.detector_backbone import LEVEL_NAMES

PYRAMID_STRIDES = (*LEVEL_STRIDES, 64)
ANCHOR_SCALE = 8  # an anchor's side over the stride of its level
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height over width


class PyramidAnchors(AnchorGenerator):
    """Three anchors at each place of five levels, around (column, row) times the stride.

    Place and order (row, column, ratio) are mmdet's and torchvision's alike. As in mmdet, and not as in torchvision,
    sides are not rounded to whole pixels, and a level's stride is its own, also where the map's side was rounded up.

    Example:
        >>> images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
        >>> maps = [torch.zeros(1, 1, side, side) for side in (16, 8, 4, 2, 1)]
        >>> PyramidAnchors()(images, maps)[0][1].tolist()
        [-16.0, -16.0, 16.0, 16.0]
    """

    def __init__(self, strides: Sequence[int] = PYRAMID_STRIDES) -> None:
        self.strides = tuple(strides)
        sizes = tuple((ANCHOR_SCALE * stride,) for stride in self.strides)
        super().__init__(sizes, (ASPECT_RATIOS,) * len(sizes))

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """(3, 4) corners around 0 of one level's anchors."""
        side = torch.as_tensor(scales, dtype=dtype, device=device)
        height = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        ws, hs = (side[None] / height[:, None]).flatten(), (side[None] * height[:, None]).flatten()
        return torch.stack([-ws, -hs, ws, hs], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Corners (anchors, 4) in pixels for each image."""
        self.set_cell_anchors(feature_maps[0].dtype, feature_maps[0].device)
        sizes = [level.shape[-2:] for level in feature_maps]
        anchors = torch.cat(self.grid_anchors(sizes, [(stride, stride) for stride in self.strides]))
        return [anchors] * len(image_list.image_sizes)


class AlignedRoIAlign(MultiScaleRoIAlign):
    """Regions cut from the level that suits their size, (regions, C, side, side).

    The level is torchvision's and mmdet's alike (224 pixels to the level of stride 16). As in mmdet, and not as in
    torchvision, samples lie half a pixel further up and left (`aligned=True`), as many a bin as it has cells, and the
    scales are the levels' own instead of guessed from the pictures' sizes.

    Args:
        side: of what comes out.
    """

    def __init__(self, side: int) -> None:
        super().__init__(list(LEVEL_NAMES), side, sampling_ratio=0)
        self.scales = [1 / stride for stride in LEVEL_STRIDES]
        self.map_levels = LevelMapper(k_min=2, k_max=5)  # log2 of the strides

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Of maps by name and boxes (regions, 4) for each image, in pixels of the padded batch."""
        level_of = self.map_levels(boxes)
        levels = level_of.split([len(one) for one in boxes])
        pooled = x[LEVEL_NAMES[0]].new_zeros(len(level_of), x[LEVEL_NAMES[0]].shape[1], *self.output_size)
        for index, (name, scale) in enumerate(zip(LEVEL_NAMES, self.scales, strict=True)):
            own = [one[level == index] for one, level in zip(boxes, levels, strict=True)]
            cut = roi_align(x[name], own, self.output_size, scale, self.sampling_ratio, aligned=True)
            pooled[level_of == index] = cut.to(pooled.dtype)
        return pooled
