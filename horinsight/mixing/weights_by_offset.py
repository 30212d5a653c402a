"""Mixing weights by offset: h[b, c, i, d] for the pairs of a query i and an offset d = j - i whose j is on the map."""

from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.mixing.factored_weights import FactoredWeights, InterleavedWeights
from horinsight.mixing.held_weights import HeldWeights
from horinsight.mixing.matrix_weights import AttentionWeights, WindowWeights
from horinsight.mixing.pair_weights import PairWeights
from horinsight.mixing.query_places import same_place
from horinsight.mixing.weights import MixingWeights


@dataclass(frozen=True, eq=False)
class WeightsByOffset:
    """h[b, c, i, d] = gate[b, c, i] · kernel[c, d] (factored), or `explicit` as it is; float64.

    valid: (N, D) whether j is on the map; rows, columns: (N, D) signed displacement j - i in cells.
    """

    valid: Tensor
    rows: Tensor
    columns: Tensor
    gate: Tensor | None = None
    kernel: Tensor | None = None
    explicit: Tensor | None = None


def weights_by_offset(weights: MixingWeights) -> list[WeightsByOffset]:
    """Weights of any kind by offset, one part for each kind of channels.

    Raises:
        ValueError: a kind that has no offsets.
    """
    if isinstance(weights, InterleavedWeights):
        return [part for piece in weights.parts for part in weights_by_offset(piece)]
    H, W = weights.height, weights.width
    i = torch.arange(H * W, device="cpu")[:, None]
    if isinstance(weights, FactoredWeights):
        j = weights.targets().cpu()
        gate = weights.gate.flatten(2).double().cpu()
        return [
            WeightsByOffset(j >= 0, j // W - i // W, j % W - i % W, gate=gate, kernel=weights.kernel.double().cpu())
        ]
    if isinstance(weights, AttentionWeights):
        prefix = weights.num_prefix_tokens
        h = weights.attention[:, :, prefix:, prefix:].double().cpu()
        j = torch.arange(H * W, device="cpu").expand(H * W, H * W)
        return [_relative(h, i, j, W)]
    if isinstance(weights, WindowWeights):
        return [_windows_by_offset(weights, i)]
    if isinstance(weights, PairWeights):
        return [_pairs_by_offset(weights)]
    if isinstance(weights, HeldWeights):
        h = weights.dense().double().cpu()
        j = torch.arange(h.shape[3], device="cpu").expand(h.shape[2], -1)
        return [_relative(h, _places_looked_at(weights), j, weights.looked_at[1])]
    raise ValueError(f"Adaptivity is not defined for {type(weights).__name__}.")


def _windows_by_offset(weights: WindowWeights, i: Tensor) -> WeightsByOffset:
    B, _, heads, A, _ = weights.attention.shape
    N = weights.num_positions
    inside = weights.cells >= 0
    of_cell = weights.cells[inside]
    seen = weights.cells[:, None, :].expand(-1, A, -1)
    if weights.masked is not None:
        seen = seen.masked_fill(weights.masked, -1)
    j = torch.full((N, A), -1, device="cpu")
    j[of_cell] = seen[inside]
    h = torch.zeros(B, heads, N, A, dtype=torch.float64, device="cpu")
    h[:, :, of_cell] = weights.attention.double().cpu().permute(0, 2, 1, 3, 4)[:, :, inside]
    return _relative(h, i, j, weights.width)


def _pairs_by_offset(weights: PairWeights) -> WeightsByOffset:
    """Offsets are from the place of the query on the map that is looked at."""
    M, N = weights.key_cells.shape[1], weights.num_positions
    inside = weights.query_cells >= 0
    of_cell = weights.query_cells[inside].cpu()
    j = torch.full((N, M), -1, device="cpu")
    j[of_cell] = weights.key_cells[:, None].expand(-1, inside.shape[1], -1)[inside].cpu()
    h = torch.zeros(len(weights.attention), weights.num_channels, N, M, dtype=torch.float64, device="cpu")
    h[:, :, of_cell] = weights.attention.double().cpu().permute(0, 2, 1, 3, 4)[:, :, inside.cpu()]
    return _relative(h, _places_looked_at(weights), j, weights.looked_at[1])


def _places_looked_at(weights: MixingWeights) -> Tensor:
    """(N, 1): the cell of the map that is looked at on which each query lies."""
    size, looked_at = (weights.height, weights.width), weights.looked_at
    cells = (same_place((i // size[1], i % size[1]), size, looked_at) for i in range(size[0] * size[1]))
    return torch.tensor([row * looked_at[1] + column for row, column in cells], device="cpu")[:, None]


def _relative(h: Tensor, i: Tensor, j: Tensor, W: int) -> WeightsByOffset:
    """From weights by position j, (B, C, N, M), to weights by offset: every pair gets the slot of its displacement."""
    rows, columns = j // W - i // W, j % W - i % W
    present = j >= 0
    width = 2 * int(columns[present].abs().max()) + 1
    height = 2 * int(rows[present].abs().max()) + 1
    slot = ((rows + height // 2) * width + columns + width // 2).masked_fill(~present, 0)
    N, D = len(i), height * width
    by_offset = h.new_zeros(*h.shape[:2], N, D)
    by_offset.scatter_add_(-1, slot.expand_as(h), h * present)
    valid = torch.zeros(N, D, dtype=torch.int64, device="cpu").scatter_add_(-1, slot, present.long()) > 0
    d = torch.arange(D, device="cpu").expand(N, D)
    return WeightsByOffset(valid, d // width - height // 2, d % width - width // 2, explicit=by_offset)
