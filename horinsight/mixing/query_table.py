"""The maps of all queries of a block in one small table: what a figure needs that follows a pointer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from horinsight.mixing.factored_weights import FactoredWeights
from horinsight.mixing.weights import MixingWeights

MAX_PAIRS = 2**24  # of a query and a position, 64 MiB in float32; a map of 56 x 56 has 9.8 million


@dataclass(frozen=True, eq=False)
class QueryTable:
    """h_ij of one image, the mean over channels or one of them, for all queries i; only the positions j that i sees.

    Attributes:
        size: (rows, columns) of the map of the queries.
        looked_at: (rows, columns) of the map that is looked at.
        values: (N, A) float32, h_ij of the A positions that query i sees at most.
        cells: (N, A) int32, the position j of each, -1 where i sees fewer; None where A is all of them, in order.
    """

    size: tuple[int, int]
    looked_at: tuple[int, int]
    values: np.ndarray
    cells: np.ndarray | None

    def at(self, row: int, col: int) -> np.ndarray:
        """The map of one query, (rows, columns)."""
        i = row * self.size[1] + col
        if self.cells is None:
            row_of_map: np.ndarray = self.values[i].reshape(self.looked_at)
            return row_of_map
        found: np.ndarray = np.zeros(self.looked_at[0] * self.looked_at[1], dtype=self.values.dtype)
        inside = self.cells[i] >= 0
        found[self.cells[i][inside]] = self.values[i][inside]
        return found.reshape(self.looked_at)


def query_table(
    weights: MixingWeights, *, image: int = 0, channel: int | None = None, max_pairs: int = MAX_PAIRS
) -> QueryTable:
    """All maps of one image at once, as `weights.at(row, col)` gives them one by one.

    Args:
        weights: of a block, for a batch of images.
        image: which of them.
        channel: one channel (or head); the mean over all when None.
        max_pairs: of a query and a position, that are held in memory while the table is made.

    Raises:
        ValueError: no such image or channel, or more pairs.

    Example:
        >>> from horinsight.mixing.extraction import mixing_weights
        >>> conv = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
        >>> table = query_table(mixing_weights(conv, torch.randn(1, 4, 6, 6)))
        >>> table.values.shape, table.at(0, 0).shape, int((table.at(0, 0) != 0).sum())
        ((36, 9), (6, 6), 4)
    """
    (H, W), (h, w) = (weights.height, weights.width), weights.looked_at
    if not 0 <= image < len(weights.offset):
        raise ValueError(f"image expects a number from 0 to {len(weights.offset) - 1}, got {image}.")
    if channel is not None and not 0 <= channel < weights.num_channels:
        raise ValueError(f"channel expects a number from 0 to {weights.num_channels - 1}, got {channel}.")
    if isinstance(weights, FactoredWeights):
        cells, values = weights.targets().cpu(), _factored(weights, image, channel).cpu()
        if cells.shape[1] < h * w:
            return _packed((H, W), (h, w), values.masked_fill(cells < 0, 0), cells)
        return _packed((H, W), (h, w), _by_position(values, cells, h * w), None)
    if H * W * h * w > max_pairs:
        raise ValueError(
            f"The maps of all queries of a {H}x{W} map have {H * W * h * w:.1e} pairs of positions, more than "
            f"{max_pairs:.1e}: ask for single queries, or raise max_pairs."
        )
    found = _every_row(weights, image, channel)
    seen = found != 0
    most = int(seen.sum(1).max())
    if 3 * most > 2 * h * w:  # positions cost half as much again as values
        return _packed((H, W), (h, w), found, None)
    cells = seen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return _packed((H, W), (h, w), found.gather(1, cells), cells.masked_fill(~seen.gather(1, cells), -1))


def table_positions(tables: Sequence[QueryTable]) -> int:
    """The number of values and positions that tables hold together: four bytes each.

    Example:
        >>> table_positions([QueryTable((1, 2), (1, 2), np.zeros((2, 2), np.float32), None)])
        4
    """
    return sum(table.values.size + (0 if table.cells is None else table.cells.size) for table in tables)


def _factored(weights: FactoredWeights, image: int, channel: int | None) -> Tensor:
    """(N, D): gate times kernel, by offset."""
    gate = weights.gate[image].flatten(1).double()  # (C, N)
    kernel = weights.kernel.double()
    if channel is not None:
        return gate[channel, :, None] * kernel[channel]
    return gate.T @ kernel / weights.num_channels


def _by_position(values: Tensor, cells: Tensor, num_positions: int) -> Tensor:
    """(N, D) by offset → (N, M) by position."""
    inside = cells >= 0
    found = values.new_zeros(len(values), num_positions)
    return found.scatter_add_(1, cells.masked_fill(~inside, 0), values.masked_fill(~inside, 0))


def _every_row(weights: MixingWeights, image: int, channel: int | None) -> Tensor:
    """(N, M): the rows of all queries, prefix tokens left out."""
    N = weights.height * weights.width
    if channel is None:
        return weights.channel_mean()[image, -N:, -weights.looked_at[0] * weights.looked_at[1] :]  # prefix comes first
    rows = [weights.at(i // weights.width, i % weights.width)[image, channel].flatten() for i in range(N)]
    return torch.stack(rows)


def _packed(size: tuple[int, int], looked_at: tuple[int, int], values: Tensor, cells: Tensor | None) -> QueryTable:
    numbers = values.float().cpu().numpy()
    return QueryTable(size, looked_at, numbers, None if cells is None else cells.int().cpu().numpy())
