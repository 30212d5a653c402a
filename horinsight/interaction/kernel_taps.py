"""Where the taps of a kernel lie on a map, whose cells are numbered row * W + column."""

from functools import lru_cache

import torch
from torch import Tensor

Reach = tuple[tuple[int, int], tuple[int, int]]  # (radius, dilation) of a kernel along rows, and along columns


def _tap_offsets(reach: Reach, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows down and columns right of the centre at which each tap of a kernel lies, (K²,) each."""
    axes = (torch.arange(-radius, radius + 1, device=device) * dilation for radius, dilation in reach)
    down, right = torch.meshgrid(*axes, indexing="ij")
    return down.flatten(), right.flatten()


@lru_cache(maxsize=32)
def cells_under_taps(map_size: tuple[int, int], reach: Reach, device: torch.device) -> Tensor:
    """The cell under each tap of a kernel centred at each cell of a map, (H·W, K²); -1 where it is not on the map."""
    H, W = map_size
    down, right = _tap_offsets(reach, device)
    cells = torch.arange(H * W, device=device)[:, None]
    row, column = cells // W + down, cells % W + right
    return torch.where((row >= 0) & (row < H) & (column >= 0) & (column < W), row * W + column, -1)


@lru_cache(maxsize=32)
def taps_between(map_size: tuple[int, int], reach: Reach, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which tap of a kernel centred at cell i lies on cell j: `tap_at[place[j] - place[i]]`, K² where none does.

    A place is a cell's number on a map so wide that a difference of two places tells how far both rows and columns are
    apart. Negative differences count from the end of `tap_at`.
    """
    H, W = map_size
    wide = 2 * W - 1
    cells = torch.arange(H * W, device=device)
    down, right = _tap_offsets(reach, device)
    taps = torch.arange(len(down), device=device)
    near = (down.abs() < H) & (right.abs() < W)
    tap_at = torch.full(((2 * H - 1) * wide,), len(taps), device=device)
    tap_at[(down * wide + right)[near]] = taps[near]
    return cells // W * wide + cells % W, tap_at
