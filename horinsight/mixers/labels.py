"""What each element of a tensor stands for: nothing, one cell of a map, all of a map, or a pair of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NONE = 0.0  # a parameter, a constant: no position
POOLED = 1.0  # all positions at once
FIRST_CELL = (
    2  # numbers from here on are cells; float32 holds them exactly up to 2^24, and padding, im2col, ... take it
)


class Grids:
    """Numbers the cells of maps: maps of the same size share their cells, whoever computed them.

    Example:
        >>> grids = Grids()
        >>> grids.cells(2, 2)
        tensor([[2., 3.],
                [4., 5.]])
        >>> grids.size_of(grids.cells(1, 3)), grids.size_of(grids.cells(2, 2)[:, 1:])
        ((1, 3), (2, 2))
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._maps: dict[tuple[int, int], Tensor] = {}
        self._firsts: dict[tuple[int, int], int] = {}
        self._next = FIRST_CELL
        self.device = device

    def cells(self, height: int, width: int) -> Tensor:
        """The cells of a map, of shape (height, width)."""
        size = (height, width)
        if size not in self._maps:
            numbers = torch.arange(self._next, self._next + height * width, dtype=torch.float32, device=self.device)
            self._maps[size] = numbers.view(height, width)
            self._firsts[size] = self._next
            self._next += height * width
        return self._maps[size]

    def size_of(self, cells: Tensor) -> tuple[int, int] | None:
        """The size of the map that all the cells in a tensor of labels are of; None for none, or for several maps."""
        numbers = cells[cells >= FIRST_CELL]
        if not numbers.numel():
            return None
        lowest, highest = int(numbers.min()), int(numbers.max())
        for size, first in self._firsts.items():
            if first <= lowest and highest < first + size[0] * size[1]:
                return size
        return None

    def rows_and_columns(self, cells: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Row and column of each cell of a map of this size; negative for what is no cell."""
        offsets = torch.where(cells >= FIRST_CELL, cells - self._firsts[size], -1.0).long()
        return torch.div(offsets, size[1], rounding_mode="floor"), torch.where(offsets < 0, -1, offsets % size[1])

    def coarsened(self, cells: Tensor, size: tuple[int, int]) -> Tensor | None:
        """The same labels as cells of a coarser map of which each cell covers as many; None where none does so.

        Example:
            >>> grids = Grids()
            >>> grids.cells(1, 2)
            tensor([[2., 3.]])
            >>> grids.coarsened(grids.cells(1, 4), (1, 2))
            tensor([[2., 2., 3., 3.]])
        """
        fine = self.size_of(cells)
        if fine is None or fine == size or fine[0] % size[0] or fine[1] % size[1]:
            return None
        rows, columns = self.rows_and_columns(cells, fine)
        over = self.cells(*size)[
            torch.div(rows.clamp(min=0), fine[0] // size[0], rounding_mode="floor"),
            torch.div(columns.clamp(min=0), fine[1] // size[1], rounding_mode="floor"),
        ]
        return torch.where(cells >= FIRST_CELL, over, cells)

    def thinned(self, cells: Tensor) -> Tensor | None:
        """The same labels as cells of the smaller map whose cells they are one by one; None where they form none.

        Every second row and column of a 14 × 14 map is the 7 × 7 map, and what is left after a border was cut off on
        all sides is one.
        """
        size = self.size_of(cells)
        if size is None:
            return None
        known = cells >= FIRST_CELL
        rows, columns = self.rows_and_columns(cells, size)
        own_rows, own_columns = rows[known].unique(), columns[known].unique()
        h, w = len(own_rows), len(own_columns)
        if (h, w) == size or len(cells[known].unique()) != h * w:
            return None
        if min(h, w) == 1 and h * size[1] != w * size[0]:
            return None  # a strip: the rows of a map that was pooled over its columns are no map
        if not (_spread(own_rows, size[0]) and _spread(own_columns, size[1])):
            return None
        finer = self.cells(h, w)[
            torch.bucketize(rows.clamp(min=0), own_rows).clamp(max=h - 1),
            torch.bucketize(columns.clamp(min=0), own_columns).clamp(max=w - 1),
        ]
        return torch.where(known, finer, cells)


def _spread(lines: Tensor, side: int) -> bool:
    """Whether rows (columns) are every n-th of a map of this side, or all but a border."""
    first, last = int(lines[0]), int(lines[-1])
    steps = lines.diff().unique()
    if len(steps) > 1:
        return False
    step = int(steps[0]) if len(steps) else side
    return abs(first - (side - 1 - last)) <= 1 if step == 1 else first < step and last >= side - step


def aligned(plane: Tensor, ndim: int) -> Tensor:
    """The plane with as many axes as wanted: new ones of length 1 come first, as in broadcasting."""
    return plane if plane.ndim == ndim else plane.reshape((1,) * (ndim - plane.ndim) + tuple(plane.shape))


def tight(plane: Tensor) -> Tensor:
    """The plane with every axis along which it does not vary cut to length 1."""
    for axis, length in enumerate(plane.shape):
        if length > 1:
            first = plane.narrow(axis, 0, 1)
            if plane.stride(axis) == 0 or bool((plane == first).all()):
                plane = first
    return plane


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one tensor.

    Attributes:
        shape: the tensor's.
        cells: which position each element stands for, with length 1 along axes where it does not vary.
        partners: where elements belong to two positions (the scores of a query and a key), the other one; else None.
    """

    shape: tuple[int, ...]
    cells: Tensor
    partners: Tensor | None = None

    @staticmethod
    def of(cells: Tensor, partners: Tensor | None = None, shape: Sequence[int] | None = None) -> Labels | None:
        """Labels from planes that broadcast to `shape` (that of `cells` when None); None where nothing is labelled."""
        shape = tuple(cells.shape if shape is None else shape)
        cells = tight(aligned(cells, len(shape)))
        if partners is not None:
            partners = tight(aligned(partners, len(shape)))
            if not bool((partners != NONE).any()):
                partners = None
        if partners is None and not bool((cells != NONE).any()):
            return None
        if partners is not None and not bool((cells != NONE).any()):
            cells, partners = partners, None
        return Labels(shape, cells, partners)

    @staticmethod
    def from_planes(planes: Sequence[Tensor], shape: Sequence[int] | None = None) -> Labels | None:
        """Labels from one plane, or from that and its partners."""
        return Labels.of(planes[0], planes[1] if len(planes) > 1 else None, shape)

    @property
    def planes(self) -> tuple[Tensor, ...]:
        return (self.cells,) if self.partners is None else (self.cells, self.partners)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Labels | None:
        """The labels after data moved: `move` is what happened to the tensor, on a plane of its full shape."""
        return Labels.from_planes([move(plane.expand(self.shape)) for plane in self.planes])

    def axes(self) -> tuple[int, ...]:
        """The axes along which the positions lie."""
        return tuple(i for i in range(len(self.shape)) if any(plane.shape[i] > 1 for plane in self.planes))

    def same_as(self, other: Labels | None) -> bool:
        """Whether two tensors of one shape carry the same labels."""
        if other is self:
            return True
        return (
            other is not None
            and self.shape == other.shape
            and len(self.planes) == len(other.planes)
            and all(torch.equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))
        )

    def has_cells(self) -> bool:
        return any(bool((plane >= FIRST_CELL).any()) for plane in self.planes)
