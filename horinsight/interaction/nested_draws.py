"""Derivatives along drawn chains by nested reverse mode: as many chains at a time as memory holds."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.interaction.derivative_graph import polynomial_degree
from horinsight.interaction.graph_growth import GraphGrowth
from horinsight.interaction.graph_meter import SETTLED, GraphMeter
from horinsight.interaction.neighbour_groups import GroupChains
from horinsight.interaction.nested_derivative import NestedDerivatives, along_everything, nested_derivatives

if TYPE_CHECKING:
    from horinsight.interaction.chains import Chains


def nested_draws(
    chains: "Chains", image: Tensor, outputs: Tensor, generator: torch.Generator, *, dense: bool
) -> tuple[Tensor, int, int]:
    """(N, K + 1): u·D_k / (sqrt(C') std(F)); how many are no structural zeros; elements that a chain's graph kept.

    u are random signs; normal numbers where a degree is asked for, so that equal channels do not cancel. Draws are made
    one after the other, so that they do not depend on how many are differentiated together.

    Args:
        chains: where they are drawn.
        image: (N,) of which image each is.
        outputs: (N,) at which output position.
        generator: of the draws.
        dense: move all positions at once instead of one by one.

    Raises:
        ValueError: not even one chain is within the budget.
        Cancelled: or what else a watcher raises (`pause`).
    """
    cotangents = _cotangents(chains, len(image), generator, dense=dense)
    most = min(chains.batch_size, len(image))
    meter = GraphMeter(chains.max_order, chains.budget, most, partial(_degree, chains))
    found: list[Tensor] = []
    num_alive, start, num_together = 0, 0, 1
    while start < len(image):
        pause(start / len(image))
        part = torch.arange(start, min(start + num_together, len(image)), device=chains.x.device)
        metered: AbstractContextManager[None] = meter.chunk(len(part)) if start else meter.metered()
        with metered:
            nested = _along_drawn(
                chains,
                image[part],
                outputs[part],
                cotangents[part],
                generator,
                dense=dense,
                after=None if start else meter.after,
            )
        found.append(nested.values)
        num_alive = max(num_alive, nested.num_connected)
        if start == 0:  # the first chain alone, to see how many can be afforded
            num_together = meter.num_together()
        start += len(part)
    return torch.cat(found), num_alive, meter.num_elements


class _EnoughError(Exception):
    """The dry run has seen what it needs."""


def first_growth(chains: "Chains", num_bytes: float, seconds: float, *, seed: int) -> tuple[GraphGrowth, float]:
    """How the graph of a first chain grows, by the orders that are cheap, and the operator's degree as a polynomial.

    Args:
        chains: where they would be drawn.
        num_bytes: of the graph at which the dry run ends, from `SETTLED` derivatives on.
        seconds: likewise.
        seed: of the chain.
    """
    meter = GraphMeter(chains.max_order, None, chains.batch_size, partial(_degree, chains))

    def noted(k: int) -> None:
        meter.after(k)
        enough = meter.storage_bytes > num_bytes or meter.growth.seconds[-1] > seconds
        if enough and (k + 1 >= SETTLED or meter.storage_bytes > 4 * num_bytes):
            raise _EnoughError

    generator = torch.Generator("cpu").manual_seed(seed)
    image = torch.zeros(1, dtype=torch.long, device=chains.x.device)
    at = chains.location_shares()[0].argmax().view(1) + chains.num_held
    cotangents = _cotangents(chains, 1, generator, dense=False)
    further = replace(chains, max_order=chains.max_order + 1)  # whose last derivative needs no graph
    ended = False
    with meter.metered(), suppress(_EnoughError):
        nested = _along_drawn(further, image, at, cotangents, generator, dense=False, after=noted)
        ended = nested.num_connected <= chains.max_order + 1
    return replace(meter.growth, ended=ended), meter.degree


def _degree(chains: "Chains") -> float:
    x = chains.positions.flat(chains.x[:1]).clone().requires_grad_()
    return polynomial_degree(chains.operator(x), x)


def _cotangents(chains: "Chains", num: int, generator: torch.Generator, *, dense: bool) -> Tensor:
    size = (num, chains.num_channels)
    if dense:
        u = chains.normal(size, generator)
    else:
        u = (torch.randint(0, 2, size, generator=generator, device="cpu") * 2 - 1).to(chains.x)
    scaled: Tensor = u / (chains.spread * chains.num_channels**0.5)
    return scaled


def _along_drawn(
    chains: "Chains",
    image: Tensor,
    at: Tensor,
    cotangents: Tensor,
    generator: torch.Generator,
    *,
    dense: bool,
    after: Callable[[int], None] | None = None,
) -> NestedDerivatives:
    """Draw a chain for each of the outputs, and differentiate along all of them together."""
    C, P = chains.sigma.numel(), chains.positions.num_total
    shape = (chains.max_order + 1, C, P) if dense else (C, P)
    drawn = [(chains.normal(shape, generator), torch.rand(P, generator=generator, device="cpu")) for _ in at]
    directions = torch.stack([v for v, _ in drawn]) * chains.sigma[:, None]
    directions[..., : chains.positions.num_prefix] = 0  # what is held does not move, not even with all positions
    points = chains.positions.flat(chains.x[image])
    num_derivatives = chains.max_order + 1
    if dense:
        summed, first, along = partial(_summed, chains), torch.zeros_like(at), along_everything(directions)
        return nested_derivatives(summed, points, first, cotangents, along, num_derivatives, after=after)
    groups = GroupChains(
        chains.homes[at],
        torch.stack([key for _, key in drawn]).to(chains.x.device),
        directions,
        chains.sigma,
        num_groups=chains.max_order,
        num_prefix=chains.positions.num_prefix,
    )
    return nested_derivatives(
        chains.operator, points, at, cotangents, groups.along, num_derivatives, exactly=groups.exactly, after=after
    )


def _summed(chains: "Chains", x: Tensor) -> Tensor:
    """(N, C', 1): the operator's outputs at all positions that are locations, added up with random normal weights.

    A degree is that of all positions: what multiplies at one place alone is not missed. What is the same at all of them
    does not cancel, as it may with signs.
    """
    output = chains.operator(x)
    generator = torch.Generator("cpu").manual_seed(0)
    weights = torch.randn(output.shape[2:], generator=generator, dtype=torch.float64, device="cpu")
    weights[: chains.num_held] = 0
    summed: Tensor = (output * weights.to(output)).sum(2, keepdim=True)
    return summed
