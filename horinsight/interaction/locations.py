"""At which locations of an image an operator's output is differentiated: drawn so that few draws say much."""

from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 0.7  # of the locations: where fewer than this share hold the output's variation, they are drawn more often
BY_EXPECTATION = 0.6  # of the draws, where it is known about how large derivatives are


@dataclass(frozen=True, eq=False)
class Locations:
    """Locations of each image, and what a draw counts for.

    Attributes:
        index: (B, m) from 0 to P' - 1.
        weight: (B, m), float64: the mean of weight times anything is its mean over all locations.
    """

    index: Tensor
    weight: Tensor


def location_shares(output: Tensor, expected: Tensor | None = None) -> Tensor:
    """The chance q_i of each location to be one draw's: (B, P'), float64, on the CPU.

    q_i = 1/P, but 1/(2P) + |F_i - F̄| / (2 Σ |F - F̄|) where few locations hold what the output varies by, so that
    |F_i - F̄| has a participation (Σ|·|)² / (P Σ|·|²) below `FEW`. Where expected squares of D_k are known, this is
    mixed with s_i / Σ s, s_i² = Σ_k (E_ik / mean E_k)², which is what makes the relative variances of all orders
    together least. 1/(P q_i), by which draws are weighted, is then at most 5, and 2 without.

    Args:
        output: F at the operating points, (B, C', P').
        expected: (B, P', r) squares of D_k, up to a factor for each k.

    Example:
        >>> location_shares(torch.eye(4)[None]).tolist(), location_shares(torch.zeros(1, 1, 2)).tolist()
        ([[0.25, 0.25, 0.25, 0.25]], [[0.5, 0.5]])
    """
    F = output.detach().double().cpu()
    P = F.shape[2]
    strength = (F - F.mean(2, keepdim=True)).norm(dim=1)
    total, squares = strength.sum(1, keepdim=True), strength.square().sum(1, keepdim=True)
    few = (squares > 0) & (total.square() < FEW * P * squares)
    uniform = torch.full_like(strength, 1 / P)
    q = torch.where(few, uniform / 2 + strength / (2 * total.where(few, torch.ones_like(total))), uniform)
    if expected is None:
        return q
    mean = expected.mean((0, 1))
    relative = (expected / mean.where(mean > 0, torch.ones_like(mean))).square().sum(2).sqrt().cpu()
    sums = relative.sum(1, keepdim=True)
    known = torch.isfinite(sums) & (sums > 0)
    share = torch.where(known, relative / sums, uniform)
    return (1 - BY_EXPECTATION) * q + BY_EXPECTATION * share


def drawn_locations(shares: Tensor, num_draws: int, generator: torch.Generator) -> Locations:
    """Locations drawn systematically from a random order of them, image by image.

    Every draw of m alone is location i with chance q_i, so that E[w_i D_i²] = Σ_i q_i D_i² / (P q_i) is the plain mean
    whatever q is. Draws at steps of 1/m along the cumulated q in a random order take no location twice unless m q_i
    exceeds 1, and every location at least floor(m q_i) times: where q is uniform none twice, and all of them from
    m = P on.

    Args:
        shares: q, (B, P'), on the CPU.
        num_draws: m.
        generator: of the draws, on the CPU.

    Returns:
        The locations, on the CPU.

    Example:
        >>> found = drawn_locations(torch.full((1, 4), 0.25).double(), 4, torch.Generator().manual_seed(0))
        >>> sorted(found.index[0].tolist()), found.weight[0].tolist()
        ([0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])
    """
    B, P = shares.shape
    order = torch.rand(B, P, generator=generator, dtype=torch.float64, device="cpu").argsort(1)
    start = torch.rand(B, 1, generator=generator, dtype=torch.float64, device="cpu")
    ends = shares.gather(1, order).cumsum(1)
    points = (torch.arange(num_draws, dtype=torch.float64, device="cpu") + start) / num_draws
    place = torch.searchsorted(ends, points.contiguous(), right=True).clamp_(max=P - 1)
    index = order.gather(1, place)
    return Locations(index, 1 / (P * shares.gather(1, index)))
