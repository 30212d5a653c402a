"""Mixing weights that are an attention matrix, of the whole map or of each window."""

from dataclasses import dataclass

from torch import Tensor

from horinsight.mixing.weights import MixingWeights, in_full_precision


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionWeights(MixingWeights):
    """A full attention matrix; heads stand where gⁿConv has channels. Rows sum to 1.

    `apply()` is (B, N, heads · d), the tokens that enter the output projection.

    Attributes:
        attention: (B, heads, N, N), N = prefix tokens + H·W, prefix tokens first.
        num_prefix_tokens: class and register tokens.
    """

    attention: Tensor
    num_prefix_tokens: int = 0

    def declared(self) -> dict[str, str]:
        return {"value": "v, what the scores multiply", "held": "the scores of pairs, after their softmax"}

    @property
    def num_channels(self) -> int:
        return self.attention.shape[1]

    @property
    def num_positions(self) -> int:
        return self.attention.shape[-1]

    def at(self, row: int, col: int) -> Tensor:
        i = self.query(row, col) + self.num_prefix_tokens
        row_of_map: Tensor = self.attention[:, :, i, self.num_prefix_tokens :].unflatten(-1, (self.height, self.width))
        return row_of_map

    def channel_mean(self) -> Tensor:
        return self.attention.mean(1)

    def _dense(self) -> Tensor:
        return self.attention

    @in_full_precision
    def at_middle(self) -> tuple[Tensor, Tensor]:
        i = self.query(self.height // 2, self.width // 2) + self.num_prefix_tokens
        found = (self.attention[:, :, i, None] @ self.values)[:, :, 0].flatten(1) + self.offset[:, i]
        return found, self.mixed[:, i]

    @in_full_precision
    def apply(self) -> Tensor:
        return (self.attention @ self.values).transpose(1, 2).flatten(2) + self.offset


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowWeights(MixingWeights):
    """Attention inside windows, unrolled to the whole map. Rows sum to 1 where no window is padded.

    `apply()` is (B, H·W, heads · d). What padding adds to the map's border is in `offset`.

    Attributes:
        attention: (B, windows, heads, A, A), A positions a window.
        cells: (windows, A) int64, the position on the map of each place in each window; -1 for padding.
        masked: (windows, A, A) bool, which pairs the shift brought into one window and the mask keeps apart; None where
            nothing is masked. Their attention is not exactly 0.
    """

    attention: Tensor
    cells: Tensor
    masked: Tensor | None = None

    def declared(self) -> dict[str, str]:
        return {"value": "v, what the scores multiply", "held": "the scores of pairs, after their softmax"}

    @property
    def num_channels(self) -> int:
        return self.attention.shape[2]

    def at(self, row: int, col: int) -> Tensor:
        window, place = (self.cells == self.query(row, col)).nonzero()[0]
        inside = self.cells[window] >= 0
        B, heads = len(self.attention), self.num_channels
        weights = self.attention.new_zeros(B, heads, self.num_positions)
        weights[:, :, self.cells[window][inside]] = self.attention[:, window, :, place, inside]
        return weights.reshape(B, heads, self.height, self.width)

    def channel_mean(self) -> Tensor:
        return self._unrolled(self.attention.mean(2, keepdim=True))[:, 0]

    def _dense(self) -> Tensor:
        return self._unrolled(self.attention)

    @in_full_precision
    def at_middle(self) -> tuple[Tensor, Tensor]:
        i = self.query(self.height // 2, self.width // 2)
        window, place = (self.cells == i).nonzero()[0]
        weights = self.attention[:, window, :, place, None] * (self.cells[window] >= 0)
        return (weights @ self.values[:, window])[:, :, 0].flatten(1) + self.offset[:, i], self.mixed[:, i]

    @in_full_precision
    def apply(self) -> Tensor:
        B, _, heads, _, d = self.values.shape
        mixed = (self.attention @ self.values).permute(0, 1, 3, 2, 4).flatten(3)  # (B, windows, A, heads · d)
        inside = self.cells >= 0
        tokens = mixed.new_zeros(B, self.num_positions, heads * d)
        tokens[:, self.cells[inside]] = mixed[:, inside]
        return tokens + self.offset

    def _unrolled(self, attention: Tensor) -> Tensor:
        """(B, windows, heads, A, A) → (B, heads, H·W, H·W)."""
        N = self.num_positions
        whole = attention.new_zeros(len(attention), attention.shape[2], N, N)
        for window, cells in enumerate(self.cells):
            inside = cells >= 0
            block = attention[:, window][:, :, inside][..., inside]
            whole[:, :, cells[inside][:, None], cells[inside][None, :]] = block
        return whole
