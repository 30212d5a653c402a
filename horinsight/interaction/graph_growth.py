r"""How large the graphs of nested derivatives become, from what they hold at the first orders.

To differentiate once more, reverse mode goes through the whole graph of the derivative before and keeps about one new
tensor for each of its nodes: what order k adds, Δ_k = S_k - S_{k-1}, is about twice what order k - 1 added, whatever
the operator, once the first two derivatives have shown which of its parts have any. The nodes themselves become two to
three times as many, since that of a product has two products as its derivative.

    S_K ≈ S_k + Δ_k (ρ + ρ² + … + ρ^{K-k}),    ρ between 2.2 and 2.3 for bytes, as the last orders say.

Measured on DeiT-S, Swin-T, ConvNeXt-T and HorNet-T: experiments/measurement_cost.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BYTES_RATE = (2.2, 2.3)  # bounds of ρ of what is kept, which is read off the last orders
NODES_RATE = (2.0, 3.0)  # likewise of how many tensors are kept
SECONDS_RATE = 2.3  # of the time for one order more
NODE_BYTES = 1000  # of a node of the graph, for each tensor that it keeps


@dataclass(frozen=True)
class GraphGrowth:
    """What the graph of one chain held when the derivatives 0, 1, 2, … had been taken, as far as they were.

    Attributes:
        tensor_bytes: of the tensors that it kept, each piece of memory once.
        num_tensors: how often it kept one.
        seconds: of a core, that had been spent.
        ended: whether no further derivative makes it larger.
    """

    tensor_bytes: tuple[float, ...] = ()
    num_tensors: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    ended: bool = False

    @property
    def num_orders(self) -> int:
        """How many derivatives were taken."""
        return len(self.tensor_bytes)

    def graph_bytes(self, order: int, *, degree: float = float("inf")) -> float:
        """Bytes of the graph from which D_order of one chain is taken; its own derivative needs no graph.

        Args:
            order: k.
            degree: of the operator as a polynomial: at and beyond it no graph grows.
        """
        needed = max(0, int(min(order, degree, 10_000)) - 1)
        nodes = self._continued(self.num_tensors, needed, rate(self.num_tensors, NODES_RATE))
        return self._continued(self.tensor_bytes, needed, rate(self.tensor_bytes, BYTES_RATE)) + NODE_BYTES * nodes

    def chain_seconds(self, order: int, *, degree: float = float("inf")) -> float:
        """Seconds of a core that D_0..D_order of one chain take."""
        return self._continued(self.seconds, int(min(order, degree, 10_000)), SECONDS_RATE)

    def _continued(self, seen: Sequence[float], index: int, rate: float) -> float:
        return seen[-1] if self.ended and index >= len(seen) else continued(seen, index, rate)


def continued(seen: Sequence[float], index: int, rate: float) -> float:
    """The index-th number of a sequence whose increments go on growing by a rate.

    Args:
        seen: its first numbers, at least one.
        index: from 0.
        rate: ρ.

    Example:
        >>> continued([1.0, 2.0, 4.0], 1, 2.0), continued([1.0, 2.0, 4.0], 5, 2.0)
        (2.0, 32.0)
    """
    if index < len(seen):
        return seen[index]
    step = seen[-1] - seen[-2] if len(seen) > 1 else seen[-1]
    further = index - len(seen) + 1
    try:
        return seen[-1] + step * rate * (rate**further - 1) / (rate - 1)
    except OverflowError:
        return float("inf")


def rate(seen: Sequence[float], bounds: tuple[float, float]) -> float:
    """ρ of the last increments, within bounds; the lower one where there are no two.

    Example:
        >>> rate([1.0, 2.0, 4.25], BYTES_RATE), rate([1.0, 2.0, 3.0], BYTES_RATE), rate([1.0, 2.0], BYTES_RATE)
        (2.25, 2.2, 2.2)
    """
    low, high = bounds
    if len(seen) < 3 or seen[-2] <= seen[-3]:
        return low
    return min(max((seen[-1] - seen[-2]) / (seen[-2] - seen[-3]), low), high)
