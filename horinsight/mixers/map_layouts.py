"""How the positions of a tensor lie: as a map, as tokens, in windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from horinsight.mixers.labels import FIRST_CELL, Grids, Labels

Layout = Literal["map", "channels_last", "tokens", "tokens_last", "windows", "other"]


@dataclass(frozen=True, eq=False)
class MapLayout:
    """Where the positions of a tensor are.

    Attributes:
        layout: "map" (B, C, H, W), "channels_last" (B, H, W, C), "tokens" (B, N, C), "tokens_last" (B, C, N), "windows"
            (the batch axis holds parts of the map), or "other".
        size: rows and columns of the map that the positions are of; None where they are of several.
        prefix_tokens: how many elements before the first position are none: class tokens, registers.
        axes: the axes of the tensor along which positions lie.
        cells: for each place along these axes its cell of the map, row · columns + column; -1 for none.
        shape: of the tensor, for one image.
    """

    layout: Layout
    size: tuple[int, int] | None
    prefix_tokens: int
    axes: tuple[int, ...]
    cells: Tensor
    shape: tuple[int, ...]


def layout_of(labels: Labels | None, grids: Grids) -> MapLayout | None:
    """How the positions of a tensor with these labels lie; None where it has none.

    Example:
        >>> grids = Grids()
        >>> tokens = Labels.of(grids.cells(2, 3).reshape(1, 6, 1), shape=(1, 6, 8))
        >>> lies = layout_of(tokens, grids)
        >>> lies.layout, lies.size, lies.cells.tolist()
        ('tokens', (2, 3), [0, 1, 2, 3, 4, 5])
    """
    if labels is None or not labels.has_cells():
        return None
    cells = labels.cells
    coarse = grids.thinned(cells) if labels.partners is None else None
    cells = cells if coarse is None else coarse
    axes = labels.axes()
    size = grids.size_of(cells)
    plane = cells.squeeze(tuple(i for i in range(cells.ndim) if i not in axes)) if cells.ndim else cells
    prefix = 0
    if plane.ndim == 1:
        known = (plane >= FIRST_CELL).nonzero()
        prefix = int(known[0])
    if size is not None:
        rows, columns = grids.rows_and_columns(plane, size)
        plane = (rows * size[1] + columns).where(rows >= 0, -1)
    return MapLayout(_named_layout(len(labels.shape), axes), size, prefix, axes, plane.long(), tuple(labels.shape))


def _named_layout(ndim: int, axes: tuple[int, ...]) -> Layout:
    if 0 in axes:
        return "windows"
    named: dict[tuple[int, tuple[int, ...]], Layout] = {
        (4, (2, 3)): "map",
        (4, (2,)): "map",
        (4, (3,)): "map",
        (4, (1, 2)): "channels_last",
        (3, (1,)): "tokens",
        (3, (2,)): "tokens_last",
    }
    return named.get((ndim, axes), "other")
