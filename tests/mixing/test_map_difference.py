"""Differences of maps, against maps that are drawn fine enough to need no areas."""

import numpy as np
import pytest

from horinsight.mixing.map_difference import map_difference


def drawn(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sums over cells of another map, by painting both on one grid whose cells belong to one cell of each."""
    rows, columns = (old * new for old, new in zip(values.shape, size, strict=True))
    fine = np.kron(values, np.ones((size[0], size[1]))) / (size[0] * size[1])
    assert fine.shape == (rows, columns)
    return fine.reshape(size[0], values.shape[0], size[1], values.shape[1]).sum((1, 3))


@pytest.mark.parametrize("sizes", [((7, 7), (7, 7)), ((14, 14), (7, 7)), ((7, 5), (6, 9)), ((3, 8), (3, 4))])
def test_shares_are_compared_on_the_smaller_map(sizes):
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=size) for size in sizes)
    small = tuple(np.minimum(*sizes))
    a, b = (drawn(values / np.abs(values).sum(), small) for values in (first, second))
    found = map_difference(first, second * 1e-14)
    np.testing.assert_allclose(found.values, b - a, atol=1e-15)  # sums of at most 196 shares, each below 1
    assert found.moved == pytest.approx(np.abs(b - a).sum() / 2, abs=1e-14)
    assert found.resampled == (sizes[0] != sizes[1])


def test_what_neither_sees_is_no_difference_and_extremes_are_0_and_1():
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    first[0, 0], second[3, 3] = 2.0, 1e-30
    found = map_difference(first, second)
    assert found.moved == 1
    assert np.isnan(found.values).sum() == 14
    assert map_difference(first, first * 7).moved == 0
    assert map_difference(np.zeros((2, 2)), first).moved == 0.5, "nothing at all against something"
