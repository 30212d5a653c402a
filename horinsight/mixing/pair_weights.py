"""Mixing weights that are scores of pairs, wherever queries and keys lie: in windows, pooled, thinned, permuted."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from horinsight.mixing.weights import MixingWeights, in_full_precision


@dataclass(frozen=True, eq=False, kw_only=True)
class PairWeights(MixingWeights):
    """An attention matrix for each of G groups of positions (windows, say; one where all look at all).

    Heads stand where gⁿConv has channels. What tokens without a place on the map add (class tokens, registers, padding)
    is in `offset`. `values`, `offset` and `mixed` are as the product has them, (B, G, heads, keys or queries, d).

    Attributes:
        attention: (B, G, heads, N, M), N queries and M keys a group.
        query_cells: (G, N) int64, the cell of the queries' map, height x width; -1 for none.
        key_cells: (G, M) int64, the cell of the values' map; -1 for none.
        value_size: (rows, columns) of the map that keys and values are of.
        output_error: by how much the module's own output changes, relative to its largest value, when `apply()` takes
            the place of the product in it.
    """

    attention: Tensor
    query_cells: Tensor
    key_cells: Tensor
    value_size: tuple[int, int]
    output_error: float

    @cached_property
    def reconstruction_error(self) -> float:
        """`output_error`: the identity, checked on what the module put out."""
        return self.output_error

    def declared(self) -> dict[str, str]:
        return {"value": "v, what the scores multiply", "held": "the scores of pairs, after their softmax"}

    @property
    def num_channels(self) -> int:
        return self.attention.shape[2]

    @property
    def looked_at(self) -> tuple[int, int]:
        return self.value_size

    @property
    def num_values(self) -> int:
        """Cells of the map that is looked at: columns of the matrices."""
        return self.value_size[0] * self.value_size[1]

    def at(self, row: int, col: int) -> Tensor:
        query = self.query(row, col)
        whole = self.attention.new_zeros(len(self.attention), self.num_channels, self.num_values)
        for group, place in (self.query_cells == query).nonzero().tolist():
            inside = self.key_cells[group] >= 0
            whole.index_add_(2, self.key_cells[group][inside], self.attention[:, group, :, place, inside])
        on_map: Tensor = whole.unflatten(2, self.value_size)
        return on_map

    def channel_mean(self) -> Tensor:
        return self._unrolled(self.attention.mean(2, keepdim=True))[:, 0]

    def absolute(self) -> Tensor:
        """Σ_c |h_ij^c|, (B, H·W, values)."""
        return self._unrolled(self.attention.abs().sum(2, keepdim=True))[:, 0]

    def _dense(self) -> Tensor:
        return self._unrolled(self.attention)

    @in_full_precision
    def at_middle(self) -> tuple[Tensor, Tensor]:
        query = self.query(self.height // 2, self.width // 2)
        group, place = (self.query_cells == query).nonzero()[0].tolist()
        row = self.attention[:, group, :, place, None].masked_fill(self.key_cells[group] < 0, 0)
        found = (row @ self.values[:, group]).squeeze(2) + self.offset[:, group, :, place]
        return found, self.mixed[:, group, :, place]

    @in_full_precision
    def apply(self) -> Tensor:
        on_map = self.attention.masked_fill((self.key_cells < 0)[None, :, None, None], 0)
        return on_map @ self.values + self.offset

    def _unrolled(self, attention: Tensor) -> Tensor:
        """(B, G, heads, N, M) → (B, heads, H·W, values)."""
        B, G, heads = attention.shape[:3]
        whole = attention.new_zeros(B, heads, self.num_positions, self.num_values)
        for group in range(G):
            queries, keys = self.query_cells[group] >= 0, self.key_cells[group] >= 0
            block = attention[:, group][:, :, queries][..., keys]
            rows = torch.zeros_like(block[..., :1]).expand(-1, -1, -1, self.num_values).contiguous()
            rows.index_add_(3, self.key_cells[group][keys], block)
            whole.index_add_(2, self.query_cells[group][queries], rows)
        return whole
