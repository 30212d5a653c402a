"""Where derivatives are taken: chances that sum to one, draws by them, and how large a gnConv's are there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import large_weights, mean_square_over_tuples
from torch import nn

from horinsight import GnConv
from horinsight.interaction.chains import Chains
from horinsight.interaction.expected_squares import expected_squares
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.locations import BY_EXPECTATION, drawn_locations, location_shares
from horinsight.operators.positions import positions_of

KINDS = {
    "window": {"kernel_size": 3},
    "pool": {"depthwise": "pool", "kernel_size": 3},
    "gf": {"depthwise": "gf", "gf_size": (6, 4)},
}


@given(
    positions=st.integers(1, 12),
    orders=st.integers(0, 3),
    spread=st.floats(0, 5),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_shares_are_chances_that_bound_the_weights(positions, orders, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    F = torch.randn(3, 2, positions, generator=generator) * torch.exp(
        spread * torch.randn(3, 1, positions, generator=generator)
    )
    expected = torch.exp(spread * torch.randn(3, positions, orders, generator=generator)).double() if orders else None
    q = location_shares(F, expected)
    torch.testing.assert_close(q.sum(1), torch.ones(3, dtype=torch.float64))
    least = 0.5 if expected is None else 0.5 * (1 - BY_EXPECTATION)
    assert (1 / (positions * q)).max() <= 1 / least + 1e-9


def test_dead_images_and_numbers_that_are_none_are_drawn_from_evenly():
    expected = torch.tensor([[[0.0], [0.0]], [[float("inf")], [1.0]], [[1.0], [3.0]]], dtype=torch.float64)
    q = location_shares(torch.zeros(3, 1, 2), expected)
    assert q[:2].tolist() == [[0.5, 0.5]] * 2
    q = location_shares(torch.zeros(1, 1, 2), expected[2:])
    np.testing.assert_allclose(q, [[0.2 + 0.6 / 4, 0.2 + 0.6 * 3 / 4]])


@pytest.mark.parametrize("num_draws", [1, 7, 40])
def test_locations_are_drawn_as_often_as_their_shares_say(num_draws):
    q = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    counts, repetitions = torch.zeros(4), 4000
    for _ in range(repetitions):
        drawn = drawn_locations(q, num_draws, generator)
        once = torch.bincount(drawn.index[0], minlength=4)
        assert (once >= torch.floor(num_draws * q[0])).all()
        assert (once <= torch.ceil(num_draws * q[0])).all()
        torch.testing.assert_close(drawn.weight, 1 / (4 * q.gather(1, drawn.index)))
        counts += once
    rest = (num_draws * q[0]) % 1  # what is left to chance
    error = (rest * (1 - rest) / repetitions).sqrt()
    assert ((counts / repetitions - num_draws * q[0]).abs() <= 4 * error + 1e-9).all()


@pytest.mark.parametrize("kind", ["window", "pool"])
def test_expected_squares_are_exact_where_channels_do_not_meet(kind):
    """g¹Conv without a mixing of channels after the product: E|D_1|² at i is (W_p² σ²) ⊙ E f'²; brute force agrees."""
    torch.manual_seed(1)
    operator = large_weights(GnConv(3, 1, **KINDS[kind]).double())
    operator.proj_out.weight.data = torch.diag(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))[..., None, None]
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    sigma = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    found = expected_squares(closed_form_of(operator, x, explicit=True), x, sigma, 3)
    assert found.shape == (2, 20, 2)
    for b in range(2):
        truth = mean_square_over_tuples(operator, x[b : b + 1], sigma, 1) * 3  # |D|² / C'
        np.testing.assert_allclose(found[b, :, 1].mean(), truth, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_squares_tell_where_derivatives_are_large(kind):
    """Up to a factor for each k, which is what the draws are for; and draws by them have the same mean."""
    torch.manual_seed(2)
    operator = large_weights(GnConv(8, 3, **KINDS[kind]).double(), std=0.6)
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64) * torch.exp(torch.randn(1, 1, 6, 6, dtype=torch.float64))
    form = closed_form_of(operator, x, explicit=True)
    positions, sigma = positions_of(x), torch.ones(8, dtype=torch.float64)
    expected = expected_squares(form, x, sigma, 5)
    assert expected.shape == (1, 36, 4)
    y, means = {}, {}
    for name, given_squares in (("evenly", None), ("expected", expected)):
        q = location_shares(torch.zeros(1, 1, 36), given_squares)
        flat = positions.flat_operator(operator)
        chains = Chains(flat, x, positions, torch.arange(36), sigma, 1.0, flat(x.flatten(2)), 0, 3, 64, q)
        drawn = chains.derivatives(form, 36 * 600, torch.Generator().manual_seed(0), dense=False)
        y[name] = np.square(drawn.values)
        if given_squares is None:
            index = drawn_locations(q, 36 * 600, torch.Generator().manual_seed(0)).index[0].numpy()
            means = np.stack([y[name][index == i].mean(0) for i in range(36)])
    error = np.sqrt(sum(part.var(0) / len(part) for part in y.values()))
    assert (np.abs(y["evenly"].mean(0) - y["expected"].mean(0)) <= 4 * error).all()
    for k in range(3):
        assert np.corrcoef(np.log(means[:, k]), np.log(expected[0, :, k].numpy()))[0, 1] > 0.75, k


def test_expected_squares_survive_small_numbers():
    """float32 squares of a high order underflow where its derivatives do not: evenly then, and never NaN."""
    torch.manual_seed(0)
    operator = GnConv(8, 4, kernel_size=3)
    for parameter in operator.parameters():
        nn.init.normal_(parameter, std=1e-9)
    x = torch.randn(1, 8, 5, 5)
    q = location_shares(
        torch.zeros(1, 1, 25), expected_squares(closed_form_of(operator, x, explicit=True), x, torch.ones(8), 4)
    )
    torch.testing.assert_close(q.sum(1), torch.ones(1, dtype=torch.float64))
