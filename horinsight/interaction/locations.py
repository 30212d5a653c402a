"""At which locations of an image an operator's output is differentiated: drawn so that few draws say much."""

from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 0.7  # of the locations: where fewer than this share hold the output's variation, they are drawn more often


@dataclass(frozen=True, eq=False)
class Locations:
    """Locations of each image, and what a draw counts for.

    Attributes:
        index: (B, m) from 0 to P' - 1.
        weight: (B, m), float64, at most 2: the mean of weight times anything is its mean over all locations.
    """

    index: Tensor
    weight: Tensor


def drawn_locations(output: Tensor, num_draws: int, generator: torch.Generator) -> Locations:
    """Locations drawn systematically from a random order of them, image by image.

    Every draw of m alone is location i with chance q_i, so that E[w_i D_i²] = Σ_i q_i D_i² / (P q_i) is the plain mean
    whatever q is. Draws at steps of 1/m along the cumulated q in a random order take no location twice unless m q_i
    exceeds 1, and every location at least floor(m q_i) times: where q is uniform none twice, and all of them from
    m = P on. q_i = 1/P, but 1/(2P) + |F_i - F̄| / (2 Σ |F - F̄|) where few locations hold what the output varies by,
    so that |F_i - F̄| has a participation (Σ|·|)² / (P Σ|·|²) below `FEW`; the weight 1/(P q_i) is then at most 2.

    Args:
        output: F at the operating points, (B, C', P).
        num_draws: m.
        generator: of the draws, on the CPU.

    Returns:
        The locations, on the CPU.

    Example:
        >>> found = drawn_locations(torch.randn(1, 8, 4), 4, torch.Generator().manual_seed(0))
        >>> sorted(found.index[0].tolist()), found.weight[0].tolist()
        ([0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])
    """
    F = output.detach().double().cpu()
    B, _, P = F.shape
    strength = (F - F.mean(2, keepdim=True)).norm(dim=1)
    total, squares = strength.sum(1, keepdim=True), strength.square().sum(1, keepdim=True)
    few = (squares > 0) & (total.square() < FEW * P * squares)
    uniform = torch.full_like(strength, 1 / P)
    q = torch.where(few, uniform / 2 + strength / (2 * total.where(few, torch.ones_like(total))), uniform)
    order = torch.rand(B, P, generator=generator, dtype=torch.float64, device="cpu").argsort(1)
    start = torch.rand(B, 1, generator=generator, dtype=torch.float64, device="cpu")
    ends = q.gather(1, order).cumsum(1)
    points = (torch.arange(num_draws, dtype=torch.float64, device="cpu") + start) / num_draws
    place = torch.searchsorted(ends, points.contiguous(), right=True).clamp_(max=P - 1)
    index = order.gather(1, place)
    return Locations(index, 1 / (P * q.gather(1, index)))
