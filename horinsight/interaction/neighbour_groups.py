r"""Neighbours that move in groups: one derivative tells of many tuples of positions at once, and its mean is the same.

The J positions of a receptive field Ω_i without i are split at random into K groups G_1..G_K of nearly equal sizes
g_t. Direction t moves every position of its group, d_t = g_t^{-1/2} Σ_{j∈G_t} e_j ⊗ v_j, where E[v_j v_{j'}ᵀ] = diag σ²
for j = j' and 0 otherwise. D is linear in each direction, so that the mixed terms of D(d_0, …, d_k)² vanish in E_v:

    E_v D(d_0, …, d_k)² = Π_t g_t^{-1} · Σ_{j_1∈G_1} … Σ_{j_k∈G_k} E_v D(e_i⊗v_0, e_{j_1}⊗v_1, …, e_{j_k}⊗v_k)².

Distinct j_1, …, j_k fall into G_1, …, G_k with chance Π_t g_t / (J (J - 1) … (J - k + 1)), whatever the sizes, so that
the mean over the splits is the mean over all tuples of distinct neighbours: unbiased. For J < k a group is empty and
D = 0. The same holds if the last neighbour is not drawn from a group but averaged over all that are left, of which
there are r = J - Σ_{t<k} g_t, with r in place of g_k.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NeighbourGroups:
    """Which positions move together, for each chain.

    Attributes:
        rank: (N, P) 0 for i; 1..J for its receptive field in random order, then the rest of the map; -1 for a prefix.
        num_neighbours: (N, 1) J.
        num_groups: K.
    """

    rank: Tensor
    num_neighbours: Tensor
    num_groups: int

    @property
    def member(self) -> Tensor:
        """(N, P) which group each position belongs to, from 1; 0 for none.

        Where J < K the groups after the J-th take one position each from the rest of the map, where derivatives are
        zero to first order.
        """
        grouped = (self.rank > 0) & (self.rank <= self.num_neighbours.clamp(min=self.num_groups))
        return torch.where(grouped, (self.rank - 1) % max(self.num_groups, 1) + 1, 0)

    def left(self, k: int) -> Tensor:
        """(N, P) bool: the positions that the k-th neighbour can still be, when k - 1 groups have moved."""
        J = self.num_neighbours
        inside = (self.rank <= J) & (self.member >= k)
        return torch.where(k <= J, inside, self.rank >= k)


def neighbour_groups(field: Tensor, centres: Tensor, keys: Tensor, num_groups: int, num_prefix: int) -> NeighbourGroups:
    """The random groups of each chain.

    Args:
        field: (N, P) bool, Ω_i.
        centres: (N,) i.
        keys: (N, P) uniform random numbers, whose order is that of the neighbours.
        num_groups: K.
        num_prefix: positions, the first ones, that are never drawn.

    Example:
        >>> field = torch.tensor([[True, True, False, True]])
        >>> groups = neighbour_groups(field, torch.tensor([1]), torch.tensor([[0.5, 0.1, 0.9, 0.7]]), 2, 0)
        >>> groups.rank.tolist(), groups.member.tolist(), groups.left(2).tolist()
        ([[2, 0, 3, 1]], [[2, 0, 0, 1]], [[True, False, False, False]])
    """
    chain = torch.arange(len(centres), device=field.device)
    field = field.clone()
    field[:, :num_prefix] = False
    field[chain, centres] = False
    key = keys + field
    key[:, :num_prefix] = -1.0  # below every other
    key[chain, centres] = 3.0  # above every other: i comes first
    rank = key.argsort(dim=1, descending=True).argsort(dim=1)
    rank[:, :num_prefix] = -1
    return NeighbourGroups(rank, field.sum(1, keepdim=True), num_groups)


class GroupChains:
    """Chains whose directions are groups of neighbours, with the last of them exactly, for `nested_derivatives`.

    The gradient of the scalar before holds every position and channel, so that D_k² is had without drawing the last
    neighbour and direction: the mean over the positions j that are left of Σ_c σ_c² g[c, j]², and at k = 0 that of i.
    Ω_i is where the first gradient is not zero.

    Args:
        centres: (N,) i.
        keys: (N, P) uniform random numbers.
        directions: (N, C, P) channel directions v_j, normal, of standard deviation σ_c.
        sigma: (C,).
        num_groups: K.
        num_prefix: positions that are never drawn.
    """

    def __init__(
        self, centres: Tensor, keys: Tensor, directions: Tensor, sigma: Tensor, *, num_groups: int, num_prefix: int
    ) -> None:
        self.centres, self.keys, self.directions = centres, keys, directions
        self.sigma = sigma.double()[:, None]
        self.num_groups, self.num_prefix = num_groups, num_prefix
        self.groups: NeighbourGroups | None = None

    def exactly(self, k: int, gradient: Tensor) -> Tensor:
        """|D_k| of a gradient (N, C, P), with the mean over the k-th neighbour and direction taken: (N,), float64."""
        gradient = gradient.detach()
        if self.groups is None:
            field = (gradient != 0).any(1)
            self.groups = neighbour_groups(field, self.centres, self.keys, self.num_groups, self.num_prefix)
        chosen = self.groups.rank == 0 if k == 0 else self.groups.left(k)
        strength = gradient.double() * self.sigma * chosen[:, None]
        peak = strength.abs().amax((1, 2), keepdim=True)  # squares of what is small can underflow
        relative = strength / torch.where(peak > 0, peak, 1.0)
        norm = torch.linalg.vector_norm(relative, dim=(1, 2))
        exact: Tensor = peak[:, 0, 0] * norm / chosen.sum(1).clamp(min=1).double().sqrt()
        return exact

    def along(self, k: int, gradient: Tensor) -> Tensor:
        """The k-th direction applied to a gradient (N, C, P), after `exactly`: (N,)."""
        assert self.groups is not None
        chosen = self.groups.rank == 0 if k == 0 else self.groups.member == k
        share = chosen / chosen.sum(1, keepdim=True).clamp(min=1).to(gradient.dtype).sqrt()
        return (gradient * (self.directions * share[:, None])).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class SharedDirections:
    """Directions that move groups of places around a location, a few channel directions each.

    Attributes:
        share: (N, G, R, Q) how much the r-th channel direction of group g moves each place.
        vectors: (N, G, R, C) channel directions.
    """

    share: Tensor
    vectors: Tensor


def shared_directions(around: Tensor, uniform: Tensor, vectors: Tensor) -> SharedDirections:
    """Groups of the places around each location, whose places share R channel directions with random signs.

    v_j = ± u_r with independent signs has the E[v_j v_{j'}ᵀ] of independent v_j, and costs R products with a matrix of
    channels a group instead of g.

    Args:
        around: (N, Q) bool, the places that hold a neighbour.
        uniform: (N, 2, Q) random numbers: the order of the places, and the signs.
        vectors: (N, G, R, C) channel directions u.

    Example:
        >>> around, uniform = torch.tensor([[True, True, False]]), torch.tensor([[[0.1, 0.2, 0.9], [0.9, 0.1, 0.5]]])
        >>> shared_directions(around, uniform, torch.ones(1, 1, 1, 4)).share.tolist()
        [[[[0.7071067690849304, -0.7071067690849304, 0.0]]]]
    """
    N, G, R, _ = vectors.shape
    rank = torch.where(around, uniform[:, 0], -1.0).argsort(dim=1, descending=True).argsort(dim=1)
    group, vector = rank % G, rank // G % R
    signs = torch.where(uniform[:, 1] < 0.5, -1.0, 1.0).to(vectors.dtype) * around
    into = (group * R + vector)[:, None]
    share = vectors.new_zeros(N, G * R, around.shape[1]).scatter_(1, into, signs[:, None]).unflatten(1, (G, R))
    size = share.square().sum((2, 3), keepdim=True)
    return SharedDirections(share / size.clamp(min=1).sqrt(), vectors)
