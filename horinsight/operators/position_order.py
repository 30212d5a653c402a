"""Positions in the order of the map, wherever they lie in a tensor: in windows, channels last, permuted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.mixers.map_layouts import MapLayout


@dataclass(frozen=True, eq=False)
class PositionOrder:
    """How to read a tensor as tokens (B, held + H · W, C), and to write it back.

    Tokens come in the order of the map, row by row, after those places that hold none of its cells: class tokens,
    registers, padding.

    Attributes:
        size: (H, W).
        num_held: places that hold no cell.
        token_of_place: (places,) which token each place along the axes of positions holds; places of one image.
        place_of_token: (held + H · W,) the first place of each token.
        lengths: of the axes of positions, for one image.
        axes: those axes; 0 where positions lie in the batch axis.
        batch_axis: where images lie, before positions of that axis.
        rest: the lengths of the other axes, which are read as channels.
    """

    size: tuple[int, int]
    num_held: int
    token_of_place: Tensor
    place_of_token: Tensor
    lengths: tuple[int, ...]
    axes: tuple[int, ...]
    batch_axis: int
    rest: tuple[int, ...]

    @staticmethod
    def of(layout: MapLayout, *, batch_axis: int = 0) -> PositionOrder:
        """The order that a layout asks for.

        Args:
            layout: of the tensor.
            batch_axis: where images lie in it.

        Raises:
            ValueError: its positions are not all cells of one map.

        Example:
            >>> from horinsight.mixers.labels import Grids, Labels
            >>> from horinsight.mixers.map_layouts import layout_of
            >>> grids = Grids()
            >>> windows = grids.cells(2, 4).reshape(2, 2, 2).transpose(0, 1).reshape(2, 4, 1)  # left and right half
            >>> order = PositionOrder.of(layout_of(Labels.of(windows), grids))
            >>> order.tokens(windows).flatten().tolist(), torch.equal(order.native(order.tokens(windows)), windows)
            ([2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], True)
        """
        cells = layout.cells.flatten().cpu()
        count = 0 if layout.size is None else layout.size[0] * layout.size[1]
        known = cells >= 0
        if layout.size is None or not torch.equal(cells[known].unique(), torch.arange(count, device="cpu")):
            raise ValueError(
                f"Expected positions that are the cells of one map, got {len(cells[known].unique())} cells of "
                f"{'several maps' if layout.size is None else 'a map of ' + 'x'.join(map(str, layout.size))}: leave "
                "this block out."
            )
        held = (~known).nonzero().flatten()
        tokens = torch.empty_like(cells)
        tokens[held] = torch.arange(len(held), device="cpu")
        tokens[known] = cells[known] + len(held)
        places = torch.empty(len(held) + count, dtype=torch.long, device="cpu")
        backwards = torch.arange(len(cells) - 1, -1, -1, device="cpu")
        places[tokens[backwards]] = backwards  # of several places the first is written last
        rest = tuple(n for axis, n in enumerate(layout.shape) if axis not in layout.axes and axis != batch_axis)
        lengths = tuple(layout.cells.shape)
        return PositionOrder(layout.size, len(held), tokens, places, lengths, layout.axes, batch_axis, rest)

    @property
    def in_order(self) -> bool:
        """Whether tokens lie as they are, one after the other."""
        return torch.equal(self.token_of_place, torch.arange(len(self.place_of_token), device="cpu"))

    def _axes_after_batch(self) -> tuple[list[int], list[int]]:
        """Axes of positions, and the others, in a tensor whose batch axis is parted from its positions and first."""
        parted = self.batch_axis in self.axes
        moved = [axis + 1 if parted or axis < self.batch_axis else axis for axis in self.axes]
        ndim = 1 + len(self.axes) + len(self.rest)
        return moved, [axis for axis in range(1, ndim) if axis not in moved]

    def tokens(self, x: Tensor) -> Tensor:
        """(B, held + H · W, C) of a tensor in its own layout."""
        if self.batch_axis in self.axes:
            inside = self.lengths[self.axes.index(self.batch_axis)]
            x = x.unflatten(self.batch_axis, (-1, inside))
        x = x.movedim(self.batch_axis, 0)
        positions, others = self._axes_after_batch()
        in_front = x.permute(0, *positions, *others)
        flat = in_front.flatten(1, len(positions)) if positions else in_front[:, None]
        tokens: Tensor = flat.flatten(2) if others else flat[..., None]
        return tokens.index_select(1, self.place_of_token.to(x.device))

    def native(self, tokens: Tensor) -> Tensor:
        """The tensor in its own layout of (B, held + H · W, C)."""
        positions, others = self._axes_after_batch()
        flat = tokens[:, self.token_of_place.to(tokens.device)]
        x = flat.unflatten(2, self.rest) if len(self.rest) > 1 else flat if others else flat[..., 0]
        x = x.unflatten(1, self.lengths) if positions else x[:, 0]
        order = [0, *positions, *others]
        x = x.permute([order.index(axis) for axis in range(len(order))]).movedim(0, self.batch_axis)
        if self.batch_axis in self.axes:
            x = x.flatten(self.batch_axis, self.batch_axis + 1)
        return x.contiguous()
