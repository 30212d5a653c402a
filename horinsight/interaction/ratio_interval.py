"""95 % intervals of the ratio of two effects, from the interval of each and how their estimates vary together."""

from dataclasses import dataclass

import numpy as np

NUM_ANGLES = 720  # around the ellipse: the largest of a sum of cosines is then missed by less than one part in 10 000


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects by order with the ends of their 95 % intervals, (K + 1,) each."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def ratio_intervals(first: Effects, second: Effects, correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""95 % interval of first / second.

    In logarithms an estimate errs by g·(upper or lower half of its interval), with g standard normal in units of 1.96;
    g and h of the two estimates have the correlation ρ. The difference of the two errors is extreme where (g, h) goes
    around the ellipse g² - 2 ρ g h + h² = 1 - ρ²: the interval reaches from its least to its largest value. For
    symmetric intervals this is Δ ∓ sqrt(a² + b² - 2 ρ a b), exact for normal estimates; for others it is the method of
    variance estimates recovery (Zou and Donner 2008) with a common part. Estimates that are the same number, ρ = 1,
    leave nothing open.

    Args:
        first: the numerator.
        second: the denominator.
        correlation: (K + 1,) ρ; 0 for estimates that have nothing in common.

    Returns:
        Lower and upper ends, (K + 1,) each: 0 where the first is an exact zero, infinite where the second is, NaN where
        both are or an interval is not known.

    Example:
        >>> one = Effects(np.array([2.0]), np.array([1.0]), np.array([4.0]))
        >>> [end.round(2).tolist() for end in ratio_intervals(one, one, np.array([0.0]))]
        [[0.38], [2.67]]
        >>> [end.round(2).tolist() for end in ratio_intervals(one, one, np.array([1.0]))]
        [[1.0], [1.0]]
    """
    rho = np.clip(correlation, -1.0, 1.0)
    evenly = np.linspace(0, 2 * np.pi, NUM_ANGLES, endpoint=False)[:, None] + np.zeros_like(rho)
    kinks = np.stack([np.full_like(rho, np.pi / 2), np.arctan2(-rho, np.sqrt(1 - rho**2))])  # where g or h turns sign
    angles = np.concatenate([evenly, kinks, kinks + np.pi])
    g, h = np.cos(angles), rho * np.cos(angles) + np.sqrt(1 - rho**2) * np.sin(angles)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = first.value / second.value
        error = _errors(first, g) - _errors(second, h)
        low, high = ratio * np.exp(error.min(axis=0)), ratio * np.exp(error.max(axis=0))
    exact = (first.value == 0) | (second.value == 0)
    return np.where(exact, ratio, low), np.where(exact, ratio, high)


def _errors(effects: Effects, g: np.ndarray) -> np.ndarray:
    """log(truth / estimate) where an estimate errs by g: (angles, K + 1)."""
    below, above = np.log(effects.value / effects.low), np.log(effects.high / effects.value)
    errors: np.ndarray = np.where(g < 0, below, above) * g
    return errors


def mean_correlations(first: np.ndarray, second: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The correlation of two means of squares whose draws were drawn together: that of the draws within images.

    Args:
        first: (N, K + 1), weighted D_k.
        second: (N, K + 1), of the same chains.
        image: (N,) which image each draw belongs to.

    Returns:
        (K + 1,), between -1 and 1; 1 for draws that are proportional, 0 where either does not vary.

    Example:
        >>> D = np.random.default_rng(0).standard_normal((1000, 1))
        >>> mean_correlations(D, 2 * D, np.zeros(1000)).round(12).tolist()
        [1.0]
    """
    _, image = np.unique(image, return_inverse=True)
    a, b = (_deviations(draws, image) for draws in (first, second))
    norms = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    correlations: np.ndarray = np.clip((a * b).sum(axis=0) / np.where(norms > 0, norms, 1.0), -1.0, 1.0)
    return correlations


def _deviations(draws: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Squares of draws minus the mean of their image, in units of the largest."""
    peak = np.abs(draws).max(axis=0)
    y = np.square(draws / np.where(peak > 0, peak, 1.0))
    sums = np.zeros((int(image.max()) + 1, y.shape[1]))
    np.add.at(sums, image, y)
    deviations: np.ndarray = y - (sums / np.bincount(image)[:, None])[image]
    return deviations
