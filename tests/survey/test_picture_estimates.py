"""Intervals over pictures: against scipy's tests, the jackknife, and repetitions of which the truth is known."""

import numpy as np
import pytest
from scipy import stats

from horinsight.survey.picture_estimates import effect_ratio, mean_difference, mean_estimate, pooled_effect


@pytest.fixture
def numbers():
    return np.random.default_rng(0)


def test_means_and_differences_are_student_s_and_welch_s(numbers):
    a, b = numbers.normal(1, 1, 20), numbers.normal(0, 3, 12)
    known = stats.ttest_1samp(a, 0).confidence_interval()
    assert mean_estimate(np.append(a, np.nan)).interval == pytest.approx(tuple(known), rel=1e-9)
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert mean_difference(a, b, paired=False).interval == pytest.approx(tuple(welch.confidence_interval()), rel=1e-9)
    paired = stats.ttest_rel(a[:12], b).confidence_interval()
    assert mean_difference(a[:12], b, paired=True).interval == pytest.approx(tuple(paired), rel=1e-9)


def test_a_pooled_effect_varies_as_the_jackknife_says(numbers):
    a, b = numbers.gamma(3, 1, 400), numbers.gamma(2, 1, 400)
    found = pooled_effect(a, b)
    left = np.sqrt((a.sum() - a) / (b.sum() - b))
    error = np.sqrt(399 / 400 * np.square(left - left.mean()).sum())
    assert found.value == np.sqrt(a.sum() / b.sum())
    # of its logarithm: the two agree up to terms of relative size 1/n
    assert found.standard_error == pytest.approx(error, rel=5 / 400)
    logs = np.log(left)
    assert found.standard_error / found.value == pytest.approx(
        np.sqrt(399 / 400 * np.square(logs - logs.mean()).sum()), rel=1e-9
    )
    alone = pooled_effect(np.array([1.0, 0.0, 0.0]), np.ones(3))
    assert alone.standard_error == pytest.approx(alone.value / 2, rel=1e-12), (
        "the delta method's: sd (3, 0, 0) / 2 / 3^.5"
    )
    assert pooled_effect(0 * a, b).interval == (0.0, 0.0)
    assert np.isnan(pooled_effect(a[:0], b[:0]).value)


def test_common_pictures_narrow_a_ratio(numbers):
    a, b = numbers.gamma(3, 1, 200), numbers.gamma(2, 1, 200)
    c = a * numbers.uniform(0.9, 1.1, 200) / 4
    paired, apart = (effect_ratio((a, b), (c, b), paired=paired) for paired in (True, False))
    assert paired.value == apart.value == pytest.approx(np.sqrt(a.sum() / c.sum()), rel=1e-12)
    assert np.ptp(paired.interval) < np.ptp(apart.interval) / 5
    assert effect_ratio((a, b), (a, b), paired=True).interval == pytest.approx((1.0, 1.0), abs=1e-12)
    assert effect_ratio((0 * a, b), (a, b), paired=True).value == 0.0


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 1 000 repetitions 95 % ± 3.5 standard deviations, 0.7 % each, and 1 % for what n = 40 is off the limit."""
    numbers = np.random.default_rng(1)
    truth = np.sqrt(3 / 2)
    held = 0
    for _ in range(1000):
        low, high = pooled_effect(numbers.gamma(3, 1, 40), numbers.gamma(2, 1, 40)).interval
        held += low <= truth <= high
    assert abs(held / 1000 - 0.95) < 3.5 * 0.007 + 0.01
