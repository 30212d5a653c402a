import numpy as np
import pytest

from horinsight.interaction.order import effect_sizes, exact_zeros, highest_order, max_shares


def test_effects_zeros_and_shares():
    draws = np.array([[3.0, 0.0, 1e-30], [4.0, 0.0, 0.0]])
    np.testing.assert_allclose(effect_sizes(draws), [np.sqrt(12.5), 0, 1e-30 / np.sqrt(2)])
    assert exact_zeros(draws).tolist() == [False, True, False], "1e-30 is not zero: there is no threshold"
    np.testing.assert_allclose(max_shares(draws), [16 / 25, 0, 1])


@pytest.mark.parametrize(
    ("zeros", "order"), [([0, 0, 1, 1], 1), ([0, 1, 0, 1], 2), ([1, 1], 0), ([0, 1], 0), ([0, 0], None), ([1, 0], None)]
)
def test_highest_order(zeros, order):
    assert highest_order(np.array(zeros, bool)) == order


def test_tiny_draws_do_not_underflow():
    assert max_shares(np.full((20, 1), 1e-200))[0] == pytest.approx(1 / 20)
