import numpy as np
import pytest

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
