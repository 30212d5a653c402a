"""Where one map looks more than another, whatever the size of their values and of the maps."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class MapDifference:
    """Shares of the second map minus shares of the first; a share is h / Σ|h| of its own map.

    Attributes:
        values: (rows, columns), positive where the second looks more; NaN where neither looks.
        moved: ½ Σ |difference|: 0 where both look alike, 1 where they have nothing in common.
        resampled: whether the maps had to be brought to one size first, the smaller one.
    """

    values: np.ndarray
    moved: float
    resampled: bool


def map_difference(first: np.ndarray, second: np.ndarray) -> MapDifference:
    """The difference of two maps of h_ij, each divided by its Σ|h|.

    A map of another size is brought to the smaller number of rows and of columns: a cell hands its share on to the
    cells that it lies under, by area.

    Args:
        first: (rows, columns).
        second: (rows, columns).

    Example:
        >>> found = map_difference(np.array([[2.0, 2.0]]), np.array([[1e-9, 0.0]]))
        >>> found.values.tolist(), found.moved, found.resampled
        ([[0.5, -0.5]], 0.5, False)
    """
    size = (min(first.shape[0], second.shape[0]), min(first.shape[1], second.shape[1]))
    a, b = (_resampled(_shares(values), size) for values in (first, second))
    seen = _resampled((first != 0).astype(float), size) + _resampled((second != 0).astype(float), size) > 0
    difference = b - a
    return MapDifference(
        values=np.where(seen, difference, np.nan),
        moved=float(np.abs(difference).sum() / 2),
        resampled=first.shape != second.shape,
    )


def _shares(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    most = np.abs(wide).max()
    if not most:
        return wide
    scaled = wide / most  # so that no sum of tiny numbers is 0
    shares: np.ndarray = scaled / np.abs(scaled).sum()
    return shares


def _resampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sums over the cells of a map with fewer rows and columns, split by area."""
    rows, columns = (_overlaps(old, new) for old, new in zip(values.shape, size, strict=True))
    found: np.ndarray = rows @ values @ columns.T
    return found


def _overlaps(old: int, new: int) -> np.ndarray:
    """(new, old): which share of an old cell each new one holds, both being equal parts of one line."""
    ends = np.arange(new)[:, None] + np.array([0, 1])
    cells = np.arange(old)[:, None] + np.array([0, 1])
    lower = np.maximum(ends[:, None, 0] * old, cells[None, :, 0] * new)  # in units of 1 / (old new), whole numbers
    upper = np.minimum(ends[:, None, 1] * old, cells[None, :, 1] * new)
    overlaps: np.ndarray = np.maximum(upper - lower, 0) / new
    return overlaps
