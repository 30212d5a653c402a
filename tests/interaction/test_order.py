import numpy as np
import pytest
import torch

from horinsight import interaction_spectrum
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


class MultipliesAtOnePlace(torch.nn.Module):
    """x · left · right at one cell of 36, the identity elsewhere: a drawn position hardly ever meets it."""

    def forward(self, x):
        product = x[..., 2, 2] * x[..., 2, 1] * x[..., 2, 3]
        there = torch.zeros(6, 6, dtype=x.dtype)
        there[2, 2] = 1
        return x + there * product[..., None, None]


@pytest.mark.parametrize("seed", range(8))
def test_the_degree_is_that_of_all_positions(seed):
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    spectrum = interaction_spectrum(MultipliesAtOnePlace(), x, max_order=4, num_tuples=64, seed=seed, explicit=False)
    assert spectrum.degree_order == 2
    assert spectrum.location_order in (0, 2), "by which positions were drawn"
    assert spectrum.degree_order >= spectrum.location_order


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6])
def test_what_is_the_same_everywhere_does_not_cancel_in_the_degree(side):
    x = torch.randn(1, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))

    def everywhere(z):
        return z + z[..., :1, :1] * z[..., :1, 1:2] * z[..., 1:2, :1]

    assert interaction_spectrum(everywhere, x, max_order=3, num_tuples=4, explicit=False).degree_order == 2
