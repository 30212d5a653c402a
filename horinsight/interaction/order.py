"""From draws of mixed derivatives to effects and orders."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Draws:
    """Mixed derivatives along drawn chains, or dense directions.

    Attributes:
        images: (N,) the image that each draw belongs to.
        values: (N, K + 1), D_k / (sqrt(C') std(F)).
        structural: (K + 1,) bool, whether the derivative is zero whatever the numbers.
        chain_cost: elements that the graph of one chain kept, each time one was; 0 where there is no graph.
    """

    images: np.ndarray
    values: np.ndarray
    structural: np.ndarray
    chain_cost: int = 0

    @property
    def unproven_zeros(self) -> np.ndarray:
        """(K + 1,) bool: 0.0 in every draw, and not by structure."""
        unproven: np.ndarray = exact_zeros(self.values) & ~self.structural
        return unproven


def effect_sizes(draws: np.ndarray) -> np.ndarray:
    """Root mean square over the draws: effect_k = sqrt(E[D_k²]) (SPEC: D_k already divided by std(F)).

    Args:
        draws: (num_draws, K + 1), float64.

    Returns:
        (K + 1,).

    Example:
        >>> effect_sizes(np.array([[3.0, 0.0], [4.0, 0.0]])).round(3).tolist()
        [3.536, 0.0]
    """
    sizes: np.ndarray = np.sqrt(np.square(draws).mean(axis=0))
    return sizes


def exact_zeros(draws: np.ndarray) -> np.ndarray:
    """Which columns are 0.0 in every draw, bit for bit: (K + 1,) bool. No threshold is involved."""
    zeros: np.ndarray = (draws == 0.0).all(axis=0)
    return zeros


def max_shares(draws: np.ndarray) -> np.ndarray:
    """Share of the largest draw in Σ D², (K + 1,): near 1 means that one draw decides; 0 where every draw is 0."""
    peaks = np.abs(draws).max(axis=0)
    relative = np.square(draws / np.where(peaks > 0, peaks, 1.0))  # scaled first: D² of a high order can underflow
    total = relative.sum(axis=0)
    shares: np.ndarray = np.divide(relative.max(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return shares


def highest_order(zeros: np.ndarray) -> int | None:
    """The largest k whose effect is not exactly zero; None if the last one measured is not: the order is then open.

    Args:
        zeros: (K + 1,) bool, from `exact_zeros`.

    Returns:
        The order; 0 also when nothing responds at all.

    Example:
        >>> highest_order(np.array([False, False, True, True])), highest_order(np.array([False, False]))
        (1, None)
    """
    if not zeros[-1]:
        return None
    alive = np.flatnonzero(~zeros)
    return int(alive[-1]) if alive.size else 0
