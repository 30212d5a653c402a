"""Intervals of effects: against loops, and by repetition on draws whose mean is known."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from horinsight.interaction.effect_interval import effect_intervals, like_image_intervals, relative_half_width


@given(
    num_images=st.integers(1, 6),
    num_draws=st.integers(1, 20),
    shape=st.floats(0.2, 3.0),
    zeros=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_equals_the_formulas_by_loops(num_images, num_draws, shape, zeros, seed):
    rng = np.random.default_rng(seed)
    N, columns = num_images * num_draws, 3
    draws = rng.lognormal(0, shape, (N, columns)) * (rng.random((N, columns)) >= zeros)
    image = np.repeat(np.arange(num_images), num_draws)
    order = rng.permutation(N)  # images need not lie together
    found = effect_intervals(draws[order], image[order])
    for k in range(columns):
        expected = oracles.effect_interval(draws[:, k].tolist(), image.tolist())
        np.testing.assert_allclose([found[0][k], found[1][k]], expected, rtol=1e-9)
    assert (found[0] <= np.sqrt(np.square(draws).mean(0)) * (1 + 1e-12))[found[0] == found[0]].all()


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e150])
def test_scale_is_carried_through(factor):
    """D² of a high order underflows, or overflows, where D does not."""
    draws = np.random.default_rng(0).lognormal(0, 1, (40, 2)) * [1.0, 0.0]
    plain, scaled = (effect_intervals(d, np.zeros(40)) for d in (draws, factor * draws))
    np.testing.assert_allclose(scaled, np.array(plain) * factor, rtol=1e-9)
    assert (scaled[0][1], scaled[1][1]) == (0.0, 0.0), "an exact zero is known exactly"


def test_what_one_draw_tells():
    low, high = effect_intervals(np.array([[2.0, 0.0]]), np.zeros(1))
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == (0.0, 0.0)


def test_images_are_strata():
    """Images of very different scale, each known well: at these images the effect is known well, whatever they are."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(10), 50)
    draws = (10.0 ** rng.uniform(-2, 2, 10))[image][:, None] * rng.uniform(0.9, 1.1, (500, 1))
    at_these, like_these = (
        relative_half_width(*effect_intervals(draws, image)),
        relative_half_width(*like_image_intervals(draws, image)),
    )
    assert at_these[0] < 0.1 * like_these[0]
    assert like_image_intervals(draws[image < 7], image[image < 7]) is None, "of seven images nothing is said"


def draws_of(kind: str, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """D with E[D²] = 1."""
    if kind == "log-normal":
        tau = 1.5  # D² has a squared coefficient of variation of e^2.25 - 1 = 8.5
        return np.exp((rng.normal(0, tau, size) - tau**2 / 2) / 2)
    if kind == "gamma":
        return np.sqrt(rng.gamma(0.3, 1 / 0.3, size))
    factors = int(kind[0])  # a product of normal variables, as an interaction of that many directions
    return np.prod(rng.standard_normal((factors, *size)), axis=0)


def least_covered(repetitions: int, nominal: float) -> int:
    """So few of the repetitions are covered with a chance of 1 in 1000 if the interval covers `nominal` of them."""
    return int(stats.binom.ppf(1e-3, repetitions, nominal))


@pytest.mark.parametrize("num_images", [1, 4])
@pytest.mark.parametrize("kind", ["log-normal", "gamma", "1 normal", "2 normals", "3 normals"])
def test_intervals_cover_the_truth(kind, num_images):
    """Images of different scale, 32 draws of each: 95 % is meant, and at least 93 % asked for."""
    rng = np.random.default_rng(0)
    repetitions = 1000
    scale = np.linspace(0.5, 2, num_images)
    image = np.repeat(np.arange(num_images), 32)
    truth = np.sqrt(np.square(scale).mean())
    draws = draws_of(kind, rng, (len(image), repetitions)) * scale[image][:, None]
    low, high = effect_intervals(draws, image)
    covered = int(((low <= truth) & (truth <= high)).sum())
    assert covered >= least_covered(repetitions, 0.93)


def test_intervals_of_images_like_these():
    """B images drawn anew in each repetition: what is an interval at these is none of images like these."""
    rng = np.random.default_rng(1)
    repetitions, B = 1000, 12
    spread = 1.0  # of log E[D²] over images
    per_image = np.exp(rng.normal(0, spread, (B, repetitions)) - spread**2 / 2)
    image = np.repeat(np.arange(B), 64)
    draws = draws_of("1 normal", rng, (len(image), repetitions)) * np.sqrt(per_image)[image]

    def covered(low: np.ndarray, high: np.ndarray, truth: np.ndarray | float) -> int:
        return int(((low <= truth) & (truth <= high)).sum())

    assert covered(*like_image_intervals(draws, image), 1.0) >= least_covered(repetitions, 0.90), "approximate"
    at_these = effect_intervals(draws, image)
    assert covered(*at_these, np.sqrt(per_image.mean(0))) >= least_covered(repetitions, 0.93)
    assert covered(*at_these, 1.0) < 0.6 * repetitions


def test_half_widths():
    np.testing.assert_allclose(relative_half_width(np.array([1.0, 2.0]), np.array([np.e**2, 2.0])), [1.0, 0.0])
