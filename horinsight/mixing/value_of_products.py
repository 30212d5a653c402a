"""Which factor of a product of features is the value that mixes, and which are the gates that are held.

Taken two by two, until one is left. The gate is, by the first of these that tells:

- the divisor; the scores of pairs of positions;
- of a product over positions, kᵀ v, the first factor;
- of a feature x times what all positions were pooled into: the latter where it is made of x, as an excitation is, or
  where x has mixed; else the feature, so that linear attention q (kᵀ v) is its implicit matrix, and a context that is
  shared out by gates is a value;
- what has mixed less so far: the value is what comes out of the mixing;
- what is made of the other factor: of x · g(x) it is g(x), as in x_t and the B_t of a selective state space;
- what comes out of an activation;
- what stays at its position where the other is gathered from several, as a kernel that each position makes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from horinsight.mixers.tensor_knowledge import Known
from horinsight.mixing.lineage import Lineage


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of a product.

    Attributes:
        tensor: itself.
        known: what is known of it.
        activated: whether it comes out of an activation.
    """

    tensor: Tensor
    known: Known
    activated: bool


def value_of_product(
    factors: Mapping[int, Factor],
    lineage: Lineage,
    *,
    over_positions: bool,
    outcome: Known | None,
    divisor: int | None,
) -> int:
    """Which factor is not held.

    Args:
        factors: two and more, by their place among the operands.
        lineage: what was made of what.
        over_positions: whether the product sums over an axis.
        outcome: what is known of the product.
        divisor: which of them divides, if one does.

    Raises:
        ValueError: it cannot be told.
    """
    left = list(factors)
    if divisor is not None:
        left.remove(divisor)
    while len(left) > 1:
        first, second = (factors[index] for index in left[:2])
        gate = _gate(first, second, lineage, over_positions=over_positions, outcome=outcome)
        left.remove(left[0] if gate is first else left[1])
    return left[0]


def is_paired(factor: Factor) -> bool:
    """Whether a factor belongs to pairs of positions."""
    return factor.known.labels.partners is not None


def _gate(first: Factor, second: Factor, lineage: Lineage, *, over_positions: bool, outcome: Known | None) -> Factor:
    if is_paired(first) or is_paired(second):
        return first if is_paired(first) else second
    cells = [_keeps_positions(factor.known) for factor in (first, second)]
    if over_positions and all(cells) and outcome is not None and not _keeps_positions(outcome):
        return first  # kᵀ v
    if cells[0] != cells[1]:
        pooled, feature = (first, second) if cells[1] else (second, first)
        mixed_here = feature.known.last > 0  # what enters a module counts as unmixed
        excites = mixed_here or lineage.is_made_of(pooled.tensor, feature.tensor)
        return pooled if excites and not over_positions else feature
    mixed = [_mixed_so_far(factor.known) for factor in (first, second)]
    if mixed[0] != mixed[1]:
        return first if mixed[0] < mixed[1] else second
    derived = [lineage.is_made_of(first.tensor, second.tensor), lineage.is_made_of(second.tensor, first.tensor)]
    if derived[0] != derived[1]:
        return first if derived[0] else second
    if first.activated != second.activated:
        return first if first.activated else second
    axes = [len(factor.known.labels.axes()) for factor in (first, second)]
    if axes[0] != axes[1]:
        return first if axes[0] < axes[1] else second
    raise ValueError(
        "it multiplies features of which neither has mixed more than the other, so which is the gate and which the "
        "value cannot be told: take influence instead (--influence)"
    )


def _keeps_positions(known: Known) -> bool:
    """Whether features are of positions, also where a linear map or a transform over all of them was last."""
    return known.labels.has_cells() or known.waits in ("linear", "fft")


def _mixed_so_far(known: Known) -> float:
    """How much has mixed in features: the number of the last event; above all others where one is still to be told."""
    return known.last if known.labels.has_cells() else float("inf")
