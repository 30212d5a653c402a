"""From draws of mixed derivatives to effects, intervals and orders."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

MIN_IMAGES_TO_RESAMPLE = 8  # with fewer, the interval resamples draws: it then says nothing about other images
NUM_RESAMPLES = 1000
CONFIDENCE = 0.95

ResamplingUnit = Literal["image", "draw"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Mixed derivatives along drawn chains, or dense directions.

    Attributes:
        images: (N,) the image that each draw belongs to.
        values: (N, K + 1), D_k / (sqrt(C') std(F)).
        structural: (K + 1,) bool, whether the derivative is zero whatever the numbers.
    """

    images: np.ndarray
    values: np.ndarray
    structural: np.ndarray

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


def resampling_unit(image_of_draw: np.ndarray) -> ResamplingUnit:
    """What the bootstrap draws again: images when there are at least 8, else single draws."""
    return "image" if len(np.unique(image_of_draw)) >= MIN_IMAGES_TO_RESAMPLE else "draw"


def effect_intervals(draws: np.ndarray, image_of_draw: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval (95 %) of `effect_sizes`, by image when there are at least 8, else by draw.

    Args:
        draws: (num_draws, K + 1).
        image_of_draw: (num_draws,) which image each draw belongs to.
        seed: of the resampling.

    Returns:
        Lower and upper ends, (K + 1,) each; both 0 where every draw is 0.

    Source: Efron 1979; resampling whole images keeps draws of one image together (cluster bootstrap).

    Example:
        >>> low, high = effect_intervals(np.ones((16, 2)), np.zeros(16), seed=0)
        >>> low.tolist(), high.tolist()
        ([1.0, 1.0], [1.0, 1.0])
    """
    units = image_of_draw if resampling_unit(image_of_draw) == "image" else np.arange(len(draws))
    _, unit_of_draw = np.unique(units, return_inverse=True)
    num_units = unit_of_draw.max() + 1
    peaks = np.abs(draws).max(axis=0)
    scale = np.where(peaks > 0, peaks, 1.0)
    sums = np.zeros((num_units, draws.shape[1]))
    np.add.at(sums, unit_of_draw, np.square(draws / scale))
    counts = np.bincount(unit_of_draw, minlength=num_units)
    times = np.random.default_rng(seed).multinomial(num_units, np.full(num_units, 1 / num_units), size=NUM_RESAMPLES)
    means = (times @ sums) / (times @ counts)[:, None]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return np.sqrt(low) * scale, np.sqrt(high) * scale


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
