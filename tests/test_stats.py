import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horinsight.stats import Estimate, RunningMean, jackknife

numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(numbers, max_size=6), min_size=1, max_size=6))
def test_batches_in_any_grouping_give_the_same(batches):
    everything = [x for batch in batches for x in batch]
    streamed, merged = RunningMean(), RunningMean()
    for batch in batches:
        streamed.update(batch)
        part = RunningMean()
        part.update(batch)
        merged.merge(part)
    for running in (streamed, merged):
        found = running.compute()
        if not everything:
            assert np.isnan(found.value)
            continue
        scale = np.abs(everything).max() + 1
        assert found.value == pytest.approx(np.mean(everything), abs=1e-12 * scale)
        if len(everything) > 1:
            expected = np.std(everything, ddof=1) / np.sqrt(len(everything))
            assert found.standard_error == pytest.approx(expected, rel=1e-6, abs=1e-9 * scale)
        else:
            assert np.isnan(found.standard_error)


def test_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(0).standard_normal(20)
    left_out = (values.sum() - values) / 19
    assert jackknife(left_out, values.mean()).standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    assert np.isnan(jackknife([], 1.0).standard_error)
    assert np.isnan(jackknife([1.0, np.nan, 2.0], 1.0).standard_error)


def test_estimates():
    estimate = Estimate(1.0, 0.5)
    assert estimate.interval == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-4)
    assert str(estimate) == "1 ± 0.5"
    assert Estimate(1.0, 0.5, count=3).interval == pytest.approx((1 - 2.1513, 1 + 2.1513), abs=1e-4)
    assert str(Estimate(0.123456, float("nan"))) == "0.123"


@pytest.mark.parametrize("n", [2, 3, 8])
def test_intervals_of_few_images_hold_the_truth(n):
    """Of normal numbers exactly 95 % of repetitions, whatever n; a normal interval holds .70, .81 and .91."""
    rng = np.random.default_rng(n)
    covered, repetitions = 0, 2000
    for values in rng.standard_normal((repetitions, n)):
        mean = RunningMean()
        mean.update(values)
        low, high = mean.compute().interval
        covered += low <= 0 <= high
    assert abs(covered / repetitions - 0.95) <= 4 * (0.95 * 0.05 / repetitions) ** 0.5


def share_between_images(h: np.ndarray) -> float:
    """Of numbers (B, cells): the share of all squares that comes with the image, as an input adaptivity is one."""
    of_cell = h.mean(0)
    between = np.square(h - of_cell).sum()
    return between / (between + len(h) * np.square(of_cell - of_cell.mean()).sum())


@pytest.mark.parametrize("num_images", [4, 12])
def test_jackknifed_intervals_are_of_the_value_at_so_many_images(num_images):
    """400 repetitions: .95 is meant, .9 asked for of a statistic so bent; with many images the share is 1/2."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(60)
    kernel = (kernel - kernel.mean()) / kernel.std()
    ends, values = [], []
    for _ in range(400):
        scale = np.exp(0.3 * rng.standard_normal((num_images, 1)) - 0.09)
        h = kernel + scale * rng.standard_normal((num_images, 60))
        left_out = [share_between_images(np.delete(h, b, axis=0)) for b in range(num_images)]
        estimate = jackknife(left_out, share_between_images(h))
        values.append(estimate.value)
        ends.append(estimate.interval)
    low, high = np.array(ends).T
    at_so_many = np.mean(values)
    assert ((low <= at_so_many) & (at_so_many <= high)).mean() >= 0.9 - 3 * (0.9 * 0.1 / 400) ** 0.5
    assert at_so_many < 0.5 - 0.2 / num_images, "which is why models are compared on the same number"
