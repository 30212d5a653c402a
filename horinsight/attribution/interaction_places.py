r"""Which neighbours take part in the k-th order at a position: interaction effects by place.

For an operator F, an output position i, k ≥ 1 and a neighbour j of its receptive field Ω_i,

    M_k(j) = E |D_k(i, j, j_2, …, j_k)|² / C',    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at 0,

over the other k - 1 neighbours, distinct and uniform over Ω_i without i and j, and over directions v_t with standard
deviation σ_c: the expected square of what j does jointly with i and k - 1 others. Its mean over j is E|D_k|²/C' at i.

Estimator. Ω_i without i is put in random order and dealt to k groups. k - 1 of them move, each as a whole
(`neighbour_groups`: unbiased, since mixed terms vanish in E_v); the gradient of what is left holds every position of
the last group at once, so that for each of its j

    Σ_c σ_c² g[c, j]²   has the mean   Σ_{c'} E D_k(…, e_j)²

for random signs over output channels: given that j is in the last group, the others are a uniform draw. One ordering is
used k times, each group last once, so that every j is asked as often as every other.
"""

from contextlib import ExitStack
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.attribution_options import PlaceKeywords, PlaceOptions
from horinsight.attribution.attribution_results import InteractionPlaces
from horinsight.capture import evaluation
from horinsight.description import unwrapped
from horinsight.interaction.neighbour_groups import neighbour_groups
from horinsight.interaction.nested_derivative import nested_derivatives, receptive_field
from horinsight.operators.differentiable import check_differentiable
from horinsight.operators.positions import Layout, Operator, Positions, positions_of
from horinsight.operators.tangent import explicit_operators
from horinsight.options import made


def interaction_places(
    operator: Operator,
    x: Tensor,
    query: tuple[int, ...],
    *,
    sigma: Tensor | None = None,
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    options: PlaceOptions | None = None,
    **given: Unpack[PlaceKeywords],
) -> InteractionPlaces:
    """M_k(j) at one output position, for all neighbours j.

    Args:
        operator: maps (B, C, H, W) to (B, C', H, W), channels-last maps or tokens likewise, sample by sample. A module
            is lent in eval mode with frozen parameters.
        x: operating points, float32 or float64.
        query: i, (row, column) on a map, (number,) of a token without a grid.
        sigma: (C,) standard deviation of each input channel; over images and positions of x when None.
        layout: of x; by the number of dimensions when None.
        grid: for tokens, (rows, columns) of the map that the last of them form, in and out; those before are held.
        options: order, orderings, explicit or not, seed; the defaults when None.
        **given: fields of `PlaceOptions` in place of those of `options`.

    Returns:
        M_k(j) with standard errors. Where fewer than k neighbours are there, 0.

    Raises:
        ValueError: an order or number below 1, a query that is not on the map, or an operator that is not
            differentiable or changes the map.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> x = torch.randn(1, 8, 5, 5)
        >>> places = interaction_places(GnConv(8, 2, kernel_size=3), x, (2, 2), order=2, num_orderings=2)
        >>> places.squares.shape, places.squares[0, 0].tolist()
        ((1, 5, 5), [0.0, 0.0, 0.0, 0.0, 0.0])
    """
    options = made(PlaceOptions, options, given, caller="interaction_places")
    operator = unwrapped(operator) if isinstance(operator, nn.Module) else operator
    check_differentiable(operator)
    positions = positions_of(x, layout, grid)
    cell = _checked_cell(query, positions)
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.enable_grad(), x.device):
            stack.enter_context(context)
        stack.enter_context(torch.autocast(x.device.type, enabled=False))
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
        points = positions.flat(x.detach().clone())
        with torch.no_grad():
            positions.shape_of(operator(positions.native(points[:1]).clone()))
        if options.explicit:
            stack.enter_context(explicit_operators(operator))
        spread = _spread(points[..., positions.num_prefix :]) if sigma is None else sigma.to(points)
        samples = _Samples(operator, positions, points, cell, spread, options.order)
        generator = torch.Generator().manual_seed(options.seed)
        squares = torch.stack([samples.of_ordering(generator) for _ in range(options.num_orderings)])
    n = options.num_orderings
    error = squares.std(0) / n**0.5 if n > 1 else torch.full_like(squares[0], float("nan"))
    mean, error = (values.unflatten(1, grid or positions.shape).numpy() for values in (squares.mean(0), error))
    return InteractionPlaces(
        squares=mean,
        standard_errors=error,
        query=tuple(query),
        order=options.order,
        num_orderings=n,
        seed=options.seed,
        convention=_convention(x, explicit=options.explicit),
    )


def _checked_cell(query: tuple[int, ...], positions: Positions) -> int:
    """The number of the query's position, after a check of what is asked."""
    shape = positions.grid or positions.shape
    if len(query) != len(shape) or not all(0 <= q < n for q, n in zip(query, shape, strict=True)):
        size = "x".join(map(str, shape))
        raise ValueError(f"query expects a position on the map of {size}, counted from 0, got {tuple(query)}.")
    return int(np.ravel_multi_index(tuple(query), shape))


def _convention(x: Tensor, *, explicit: bool) -> dict[str, str]:
    return {
        "places": "M_k(j) = E|D_k(i, j, j_2..j_k)|^2 / C', the other neighbours uniform over the field of i",
        "non_linearities": "tangent at the operating point" if explicit else "as they are",
        "directions": "normal, standard deviation of each input channel",
        "estimator": "k - 1 groups of neighbours move, the k-th is read off the gradient; signs over channels",
        "dtype": str(x.dtype).removeprefix("torch."),
    }


def _spread(points: Tensor) -> Tensor:
    """σ_c over images and positions."""
    return points.movedim(1, 0).flatten(1).std(1, correction=0)


class _Samples:
    """Draws of M_k(j) for all j, one ordering of the neighbours at a time."""

    def __init__(
        self, operator: Operator, positions: Positions, points: Tensor, cell: int, sigma: Tensor, order: int
    ) -> None:
        self.flat, self.points, self.sigma, self.order = positions.flat_operator(operator), points, sigma, order
        self.num_prefix = positions.num_prefix
        self.cell = self.num_prefix + cell
        with torch.no_grad():
            self.num_channels = self.flat(points[:1]).shape[1]

    def of_ordering(self, generator: torch.Generator) -> Tensor:
        """(B, P) float64: for each j the draw in which its group was last."""
        B, C, P = self.points.shape
        k = self.order
        centres = torch.full((B,), self.cell, device=self.points.device)
        signs = self._drawn((B, self.num_channels), generator).sign()
        field = receptive_field(self.flat, self.points, centres, signs)
        keys = torch.rand((B, P), generator=generator, device="cpu").to(self.points)
        groups = neighbour_groups(field, centres, keys, k, self.num_prefix)
        inside = (groups.rank > 0) & (groups.rank <= groups.num_neighbours)
        enough = groups.num_neighbours >= k
        found = torch.zeros(B, P, dtype=torch.float64, device="cpu")
        for turn in range(k):
            member = torch.where(inside, (groups.rank - 1 + turn) % k, -1)  # group k - 1 is last
            directions = self._drawn((B, C, P), generator) * self.sigma[:, None]
            signs = self._drawn((B, self.num_channels), generator).sign()

            def along(t: int, gradient: Tensor, member: Tensor = member, v: Tensor = directions) -> Tensor:
                moved = torch.arange(P, device=v.device) == self.cell if t == 0 else member == t - 1
                share = moved / moved.expand(B, P).sum(1, keepdim=True).clamp(min=1).to(v.dtype).sqrt()
                return (gradient * v * share[:, None]).flatten(1).sum(1)

            last: list[Tensor] = []

            def read(t: int, gradient: Tensor, last: list[Tensor] = last) -> Tensor:
                if t == k:
                    last.append((gradient.detach().double() * self.sigma[:, None]).square().sum(1))
                return gradient.new_zeros(len(gradient))

            nested_derivatives(self.flat, self.points, centres, signs, along, k + 1, exactly=read)
            if last:
                asked = (member == k - 1) & enough
                found += torch.where(asked, last[0] / self.num_channels, 0.0).cpu()
        return found[:, self.num_prefix :]

    def _drawn(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Normal numbers, from the generator of the CPU, so that they are the same everywhere."""
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(self.points)
