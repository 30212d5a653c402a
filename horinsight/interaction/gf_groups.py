r"""What GF makes of directions that move many cells at once, each by a channel direction that they share.

Direction m moves cell j by s_mj u_m. With pre_norm's tangent at j, δẑ_j = (δ - mean δ - ẑ_j mean(ẑ_j δ)) / σ_j, the sum
over cells under the kernel w_{i→j} falls into two products with matrices, and no change at a cell is ever built:

    Σ_j w_{i→j} γ s_mj δẑ_j = γ (δ_m - mean δ_m) Σ_j w_{i→j} s_mj / σ_j - γ Σ_j w_{i→j} ẑ_j (s_mj / σ_j) mean(ẑ_j δ_m)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from horinsight.models.depthwise_kinds import GlobalLocal

CHAINS_TOGETHER = 32  # whose features on the whole map are held at once, fewer where there are more of
CELLS_TOGETHER = 2**18  # cells of their maps


def gf_group_responses(
    f: GlobalLocal, i: Tensor, share: Tensor, dq: Tensor, hat: Tensor, sigma: Tensor, image: Tensor
) -> Tensor:
    """Change of the interleaved halves at i, before post_norm: (N, M, Σ C_k).

    Args:
        f: GF.
        i: (N,) cells.
        share: (N, M, H, W) s, by how much each direction moves each cell.
        dq: (N, M, Σ C_k) what each channel direction is to q.
        hat: (B, H·W, Σ C_k) normalised q of each image.
        sigma: (B, H·W, 1) its σ in pre_norm.
        image: (N,) which image each cell belongs to.
    """
    H, W = share.shape[2:]
    half = f.local.num_channels
    under, taps = local_window(f, (H, W), i.device)
    kinds = (taps, slice(half)), (kernel_by_offset(f, (H, W)), slice(half, None))
    together = max(1, min(CHAINS_TOGETHER, CELLS_TOGETHER // (H * W)))
    gamma, du = f.pre_norm.weight, torch.empty_like(dq)
    for b in image.unique().tolist():
        for part in (image == b).nonzero().flatten().split(together):
            delta = dq[part]
            weight = share[part].flatten(2) / sigma[b].T
            projected = weight * (delta @ hat[b].T) / delta.shape[2]
            centred = delta - delta.mean(2, keepdim=True)
            places = under[i[part]], cells_at_offsets((H, W), i[part])
            for parity, (cells, (weights, channels)) in enumerate(zip(places, kinds, strict=True)):
                first, second = (_at_places(amount, cells) for amount in (weight, projected))
                normalised = hat[b][:, channels][cells.clamp(min=0)].mul_(weights)
                change = centred[..., channels] * (first @ weights) - second @ normalised
                du[part, :, parity::2] = gamma[channels] * change  # interleaved
    return du


def _at_places(amount: Tensor, cells: Tensor) -> Tensor:
    """(N, M, H·W) in the order of places (N, Q) that are cells, or none (-1): (N, M, Q)."""
    index = cells.clamp(min=0)[:, None].expand(-1, amount.shape[1], -1)
    return amount.gather(2, index) * (cells >= 0)[:, None]


def kernel_by_offset(f: GlobalLocal, size: tuple[int, int]) -> Tensor:
    """The global half's kernel by how many rows down and columns right of i a cell lies: (H·W, Σ C_k / 2)."""
    H, W = size
    kernel = f.circular_kernel(H, W).T
    rows, columns = (-torch.arange(n, device=kernel.device) % n for n in size)
    return kernel[(rows[:, None] * W + columns).flatten()]


def cells_at_offsets(size: tuple[int, int], cells: Tensor) -> Tensor:
    """The cell that lies so many rows and columns from each of some, on a map whose borders touch: (N, H·W)."""
    H, W = size
    rows, columns = (torch.arange(n, device=cells.device) for n in (H, W))
    down = ((cells // W)[:, None] + rows) % H
    right = ((cells % W)[:, None] + columns) % W
    return (down[:, :, None] * W + right[:, None, :]).flatten(1)


def local_window(f: GlobalLocal, map_size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The cell under each tap around each cell, -1 outside the map, (H·W, K²), and the taps, (K², Σ C_k / 2)."""
    H, W = map_size
    cells = torch.arange(1, H * W + 1, device=device, dtype=torch.float64).view(1, 1, H, W)
    size, dilation = f.local.kernel_size, f.local.dilation
    padding = tuple(d * (s // 2) for s, d in zip(size, dilation, strict=True))
    under = F.unfold(cells, size, dilation=dilation, padding=padding)[0].T.long() - 1
    return under, f.local.taps.T
