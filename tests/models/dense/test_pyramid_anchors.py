"""Anchors and regions: where they lie, against mmdet's rules written out and pictures whose regions are known."""

import math

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from horinsight.models.dense.pyramid_anchors import AlignedRoIAlign, PyramidAnchors

SIZE = (96, 160)


def anchors_by_hand(size: tuple[int, int]) -> list[list[float]]:
    """Row by row, column by column, ratio by ratio: mmdet's order, sides not rounded."""
    found = []
    for stride in (4, 8, 16, 32, 64):
        for row in range(math.ceil(size[0] / stride)):
            for column in range(math.ceil(size[1] / stride)):
                for ratio in (0.5, 1, 2):
                    w, h = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                    x, y = column * stride, row * stride
                    found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return found


def test_anchors_lie_as_in_mmdet():
    """The fifth level has 2x3 places for 96x160 pixels, and is of stride 64 all the same."""
    maps = [torch.zeros(2, 1, math.ceil(SIZE[0] / s), math.ceil(SIZE[1] / s)) for s in (4, 8, 16, 32, 64)]
    found = PyramidAnchors()(ImageList(torch.zeros(2, 3, *SIZE), [SIZE, SIZE]), maps)
    assert len(found) == 2
    torch.testing.assert_close(found[1], torch.tensor(anchors_by_hand(SIZE)))


def ramp(stride: int) -> torch.Tensor:
    """(1, 2, H, W): the x and the y of each cell's middle, in pixels."""
    rows, columns = (stride * (torch.arange(512 // stride, dtype=torch.float64) + 0.5) for _ in range(2))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])[None]


@pytest.mark.parametrize(("side", "level"), [(40, 0), (111, 0), (113, 1), (223, 1), (225, 2), (440, 2), (460, 3)])
def test_regions_are_cut_where_they_lie(side, level):
    """Of a map whose values are places, a bin's mean is its middle, on the level of the region's size alone."""
    maps = {str(index): torch.full_like(ramp(4 * 2**index), -1.0) for index in range(4)}
    maps[str(level)] = ramp(4 * 2**level)
    x1, y1 = 20.3, 24.7
    boxes = torch.tensor([[x1, y1, x1 + side, y1 + side]], dtype=torch.float64)
    pooled = AlignedRoIAlign(7)(maps, [boxes, boxes[:0]], [(512, 512)])
    middles = (torch.arange(7, dtype=torch.float64) + 0.5) * side / 7
    torch.testing.assert_close(pooled[0, 0], (x1 + middles).expand(7, 7))
    torch.testing.assert_close(pooled[0, 1], (y1 + middles)[:, None].expand(7, 7))
