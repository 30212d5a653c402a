import numpy as np
import pytest
from scipy import stats

from horinsight.interaction.order import (
    effect_intervals,
    effect_sizes,
    exact_zeros,
    highest_order,
    max_shares,
    resampling_unit,
)


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


def test_intervals_cover_the_truth():
    """E[D²] = 1 for standard normal draws; a 95 % interval covers it in about 95 % of the runs."""
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(200):
        low, high = effect_intervals(rng.standard_normal((200, 1)), np.zeros(200), seed=run)
        covered += low[0] <= 1 <= high[0]
    # binomial with p = 0.95 has standard deviation 3.1; the percentile bootstrap is a little narrow
    assert covered >= 190 - 4 * 3.1


@pytest.mark.parametrize("draws_per_image", [1, 3])
def test_intervals_are_the_quantiles_of_the_resampled_mean(draws_per_image):
    """The resampled mean of D² is close to normal, of known mean and variance: its ends are 2.5 and 97.5 % quantiles.

    D² is spread evenly around 1, so that the mean has no skewness and an excess kurtosis of -1.2 / n. An end is a
    quantile of R = 1000 resamples: over seeds it spreads by sqrt(q (1 - q) / R) / f(q), f the normal density.
    """
    n, num_seeds = 200, 60
    squares = np.linspace(0.5, 1.5, n)
    draws = np.sqrt(np.repeat(squares, draws_per_image))[:, None]
    image = np.repeat(np.arange(n), draws_per_image) if draws_per_image > 1 else np.zeros(n)
    ends = np.array([effect_intervals(draws, image, seed=seed) for seed in range(num_seeds)])[:, :, 0]
    in_standard_errors = (np.square(ends) - 1) / (squares.std() / np.sqrt(n))
    quantile, tail, R = stats.norm.ppf(0.975), 0.025, 1000
    spread = np.sqrt(tail * (1 - tail) / R) / stats.norm.pdf(quantile)
    bias = 1 / (R * stats.norm.pdf(quantile))  # between one order statistic and the next
    found = in_standard_errors.mean(0)
    np.testing.assert_allclose(found, [-quantile, quantile], atol=4 * spread / np.sqrt(num_seeds) + bias)
    np.testing.assert_allclose(in_standard_errors.std(0), spread, rtol=4 / np.sqrt(2 * num_seeds))


def test_images_are_resampled_whole_when_there_are_enough():
    """Draws of one image are alike, so that an interval by draw would be far too narrow."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(10), 50)
    draws = np.repeat(rng.standard_normal(10), 50)[:, None]
    low, high = effect_intervals(draws, image, seed=0)
    assert resampling_unit(image) == "image"
    assert resampling_unit(image % 7) == "draw"
    by_draw = effect_intervals(draws, image % 7, seed=0)
    assert (high - low)[0] > 3 * (by_draw[1] - by_draw[0])[0]


def test_tiny_effects_do_not_underflow():
    draws = np.full((20, 1), 1e-200)
    low, high = effect_intervals(draws, np.zeros(20), seed=0)
    np.testing.assert_allclose([low[0], high[0]], 1e-200)
    assert max_shares(draws)[0] == pytest.approx(1 / 20)
