"""What a measurement of interaction effects costs, in memory and time, before it is made."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.description import unwrapped
from horinsight.interaction.block_points import OnRefusal, block_points, left_of
from horinsight.interaction.certified import NUM_DEGREE_DRAWS
from horinsight.interaction.draw_schedule import draw_plan
from horinsight.interaction.graph_growth import GraphGrowth
from horinsight.interaction.graph_meter import COMPACT, GRAPH_BYTES, GraphMeter, highest_order, in_words, loose_factor
from horinsight.interaction.nested_draws import first_growth
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.prepared import PreparedOperator, prepared
from horinsight.interaction.spectrum_options import BlockSpectrumKeywords, SpectrumKeywords, SpectrumOptions
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.operators.positions import Layout, Operator, positions_of
from horinsight.options import made
from horinsight.results import Result, ResultSet

DRY_BYTES = 100e6  # of its graph, at which the dry run ends
DRY_SECONDS = 1.0
BESIDE = 150e6  # bytes: of the checks before, and of what libraries set aside on the way
COMPACT_TIME = 1.7  # in compact memory, in units of the time without
CLOSED_FORM_DRAWS = 64  # of the dry run in closed form, an image


@dataclass(frozen=True, eq=False, repr=False)
class MeasurementCost(Result):
    """What `interaction_spectrum` would cost, by the highest order that is asked for, k = 0..K.

    Attributes:
        memory_bytes: (K + 1,) by which the process would grow at most, where order k is the highest one: the graphs of
            the chains that are differentiated together, one chain's where not even that fits.
        seconds: (K + 1,) of one core, until D_0..D_k of all chains are there.
        chains_together: (K + 1,) chains that are differentiated together.
        num_chains: of all images; of the first round, where draws are doubled until they suffice.
        budget_bytes: that were given.
        highest_order: the largest k whose graph of one chain is within the budget; -1 where none is.
        num_orders_run: how many derivatives of one chain the dry run took; what lies above is by the law of growth.
        convention: what was computed, in words.
    """

    memory_bytes: np.ndarray
    seconds: np.ndarray
    chains_together: np.ndarray
    num_chains: int
    budget_bytes: float
    highest_order: int
    num_orders_run: int
    convention: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the order that was asked for is within the budget."""
        return self.highest_order == len(self.memory_bytes) - 1

    def __str__(self) -> str:
        top = f"{in_words(float(self.memory_bytes[-1]))}, {_said_seconds(float(self.seconds[-1]))}"
        if self.fits:
            return f"about {top}"
        return f"about {top}, of {in_words(self.budget_bytes)} that are given: order {self.highest_order} at most"


def measurement_cost(
    operator: Operator,
    x: Tensor,
    *,
    options: SpectrumOptions | None = None,
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    output_grid: tuple[int, int] | None = None,
    **given: Unpack[SpectrumKeywords],
) -> MeasurementCost:
    """Memory and time that `interaction_spectrum` would take with the same arguments, from one dry run.

    One chain is differentiated on the operator itself, until its graph is known at three orders and holds 100 MB or has
    taken a second; the orders above follow by the law by which such graphs grow (`GraphGrowth`).

    Args:
        operator: as for `interaction_spectrum`.
        x: operating points.
        options: what would be asked for; `max_order` must be said.
        layout: see `interaction_spectrum`.
        grid: likewise.
        output_grid: likewise.
        **given: fields of `SpectrumOptions` as keyword arguments.

    Raises:
        TypeError: an argument that is no option, or no `max_order`.
        ValueError: as `interaction_spectrum`, for what it checks before it draws.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> mixer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 3, padding=1))
        >>> cost = measurement_cost(mixer, torch.randn(1, 4, 7, 7), max_order=40, explicit=False, memory=0.5)
        >>> cost.num_chains, cost.fits, bool(cost.highest_order > 4)
        (32, False, True)
    """
    options = made(SpectrumOptions, options, given, caller="measurement_cost")
    if options.max_order is None:
        raise TypeError("measurement_cost expects max_order, the highest order that would be measured.")
    operator = unwrapped(operator) if isinstance(operator, nn.Module) else operator
    positions = positions_of(x, layout, grid)
    return _cost_at(OperatorPoint("", operator, x, positions, options, None, output_grid or grid))


def model_measurement_costs(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    options: SpectrumOptions | None = None,
    on_refusal: OnRefusal | None = None,
    **given: Unpack[BlockSpectrumKeywords],
) -> ResultSet[MeasurementCost]:
    """What `model_interaction_spectra` would cost with the same arguments, block by block.

    Args:
        model: a network with blocks.
        images: (B, 3, H, W), prepared.
        blocks: indices; all when None.
        options: what would be asked for.
        on_refusal: called with each block that cannot be measured, and why; raised when None.
        **given: fields of `SpectrumOptions` as keyword arguments.

    Returns:
        Block name → cost, in the order of the network.

    Raises:
        TypeError, ValueError: as `model_interaction_spectra`, for what it checks before it draws.
    """
    options = made(SpectrumOptions, options, given, caller="model_measurement_costs")
    chosen = chosen_blocks(model, blocks, image_size=image_size_of(images))
    points = block_points(model, images, chosen, options, on_refusal=on_refusal)

    def cost_of(block: MixingBlock) -> MeasurementCost:
        return _cost_at(points.pop(block.name))

    with_points = [block for block in chosen if block.name in points]
    found = left_of(with_points, cost_of, on_refusal)
    return ResultSet({block.name: cost for block, cost in found.items()})


def _cost_at(point: OperatorPoint) -> MeasurementCost:
    options = replace(point.options, scope="mixer")  # the operator is what the scope says
    with prepared(point.operator, point.x, point.positions, options, point.output_grid) as ready:
        chains = ready.chains
        plan = draw_plan(
            options,
            closed_form=ready.form is not None,
            num_images=len(chains.x),
            num_channels=len(chains.sigma),
        )
        num_chains = plan.start * len(chains.x)
        if ready.form is not None:
            return _closed_form_cost(ready, num_chains)
        growth, degree = first_growth(chains, DRY_BYTES, DRY_SECONDS, seed=options.seed)
    return _nested_cost(ready, growth, degree, num_chains)


def _nested_cost(ready: PreparedOperator, growth: GraphGrowth, degree: float, num_chains: int) -> MeasurementCost:
    chains = ready.chains
    K, budget = chains.max_order, chains.budget or float("inf")
    dense = min(NUM_DEGREE_DRAWS, num_chains // len(chains.x)) * len(chains.x)
    together, memory, seconds = [], [], []
    for k in range(K + 1):
        one = growth.graph_bytes(k, degree=degree)
        n = int(max(1, min(chains.batch_size, GRAPH_BYTES // one, budget // (COMPACT * one), num_chains)))
        loose = loose_factor(min(k, int(min(degree, K))))
        compact = GraphMeter(k, budget, min(chains.batch_size, num_chains)).needs_compact_memory(one)
        slower = COMPACT_TIME if compact else 1.0
        memory.append(BESIDE + (COMPACT if compact else loose) * one * n)
        seconds.append(growth.chain_seconds(k, degree=degree) * (num_chains + dense) * slower)
        together.append(n)
    return MeasurementCost(
        memory_bytes=np.array(memory),
        seconds=np.array(seconds),
        chains_together=np.array(together),
        num_chains=num_chains,
        budget_bytes=budget,
        highest_order=highest_order(growth, budget, degree, K),
        num_orders_run=growth.num_orders,
        convention={
            "estimator": "nested reverse mode",
            "memory": "resident, beyond what the process holds before; graphs of the chains differentiated together",
            "seconds": "of one core, as fast as in the dry run",
            "growth": "what an order adds to a graph is 2.2 to 2.3 times what the order below added",
        },
    )


def _closed_form_cost(ready: PreparedOperator, num_chains: int) -> MeasurementCost:
    """In closed form the highest order hardly matters, and what is kept are directions."""
    chains = ready.chains
    K, C, x = chains.max_order, len(chains.sigma), chains.x
    few = min(CLOSED_FORM_DRAWS, num_chains // len(x))
    start = time.thread_time()
    chains.derivatives(ready.form, few, torch.Generator("cpu").manual_seed(0), dense=False)
    seconds = (time.thread_time() - start) * num_chains / (few * len(x))
    dense = min(chains.batch_size, NUM_DEGREE_DRAWS * len(x)) * (K + 1) * x[0].numel()
    vectors = 256 * (3 * K + 1) * C
    ones = np.ones(K + 1)
    return MeasurementCost(
        memory_bytes=ones * (BESIDE + 3 * x.element_size() * (dense + vectors)),
        seconds=ones * seconds,
        chains_together=np.full(K + 1, min(256, num_chains)),
        num_chains=num_chains,
        budget_bytes=chains.budget or float("inf"),
        highest_order=K,
        num_orders_run=K + 1,
        convention={
            "estimator": "closed form",
            "memory": "resident, beyond what the process holds before; directions",
            "seconds": "of one core, as fast as in the dry run",
        },
    )


def _said_seconds(seconds: float) -> str:
    """A time for people.

    Example:
        >>> _said_seconds(4.2), _said_seconds(500), _said_seconds(1e5)
        ('4 s', '8 min', '28 h')
    """
    for unit, size in (("days", 2 * 86400), ("h", 2 * 3600), ("min", 120)):
        if seconds >= size:
            length = {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
