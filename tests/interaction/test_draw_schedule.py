"""Draws that double, on normal variables with a clock that is turned by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest

from horinsight.interaction.draw_schedule import (
    CHEAP_PRECISION,
    MOST_CHEAP_ELEMENTS,
    MOST_DRAWS,
    DrawPlan,
    draw_plan,
    scheduled_draws,
)
from horinsight.interaction.effect_interval import effect_intervals
from horinsight.interaction.order import Draws, effect_sizes
from horinsight.interaction.spectrum_options import SpectrumOptions


class Source:
    """Draws of two images, each costing a second, for three orders: a normal one, a zero, a product of two."""

    def __init__(self, seed: int = 0) -> None:
        self.now, self.rounds, self.seed = 0.0, [], seed

    def __call__(self, num_draws: int) -> Draws:
        rng = np.random.default_rng([self.seed, len(self.rounds)])
        v = rng.standard_normal((2, 2 * num_draws))
        self.now += 2 * num_draws
        self.rounds.append(num_draws)
        values = np.stack([v[0], np.zeros(2 * num_draws), v[0] * v[1]], axis=1)
        return Draws(np.repeat([0, 1], num_draws), values, np.array([False, True, False]))


def test_draws_double_until_they_are_enough():
    source = Source()
    found = scheduled_draws(source, DrawPlan(32, precision=0.1), clock=lambda: source.now)
    assert source.rounds[:3] == [32, 32, 64]
    assert found.num_draws == sum(source.rounds) == len(found.draws.values) / 2
    assert (found.half_widths <= 0.1).all()
    assert found.half_widths[1] == 0.0, "an exact zero needs no draws"
    assert found.draws.structural.tolist() == [False, True, False]
    fewer = Source()
    scheduled = scheduled_draws(fewer, DrawPlan(32, precision=0.2), clock=lambda: fewer.now)
    assert scheduled.num_draws < found.num_draws
    np.testing.assert_array_equal(scheduled.draws.values, found.draws.values[: len(scheduled.draws.values)])
    assert found.shortfalls(0.1) == []


def test_time_runs_out_before():
    source = Source()
    found = scheduled_draws(source, DrawPlan(32, precision=1e-3, seconds=300), clock=lambda: source.now)
    assert source.now <= 300 < 2 * source.now
    assert [re.search(r"effect_(\d)", line)[1] for line in found.shortfalls(1e-3)] == ["0", "2"]
    width = found.half_widths[2]
    (line,) = found.shortfalls((found.half_widths[0] + width) / 2)
    assert f"within a factor of {np.exp(width):.3g}; --tuples" in line
    more = int(re.search(r"--tuples (\d+)", line)[1])
    assert more > found.num_draws
    rest = scheduled_draws(Source(), DrawPlan(more))
    np.testing.assert_allclose(float(line.split()[-1]), np.exp(rest.half_widths[2]), rtol=0.05)


def test_a_precision_that_is_out_of_reach_ends():
    found = scheduled_draws(Source(), DrawPlan(32, precision=1e-9))
    assert found.num_draws == MOST_DRAWS


@pytest.mark.parametrize(("most_elements", "num_draws"), [(12_800, 64), (12_799, 32), (0, 32), (1e9, 4096)])
def test_doubling_ends_where_graphs_would_keep_too_much(most_elements, num_draws):
    source = Source()
    plan = DrawPlan(32, precision=0.05, most_elements=most_elements)  # of two images, a hundred elements a chain
    found = scheduled_draws(lambda num: replace(source(num), chain_cost=100), plan)
    assert found.num_draws == num_draws


def test_as_many_more_halve_what_stopping_takes_from_an_effect():
    """The mean square of a product of two normal variables is 1: draws that stop by their width find less."""
    once, twice = (
        [scheduled_draws(Source(seed), DrawPlan(32, precision=0.2, again=again)) for seed in range(200)]
        for again in (False, True)
    )
    assert [found.num_draws for found in twice] == [2 * found.num_draws for found in once]
    low, less = (1 - np.mean([effect_sizes(one.draws.values)[2] for one in found]) for found in (once, twice))
    assert 0.01 < low < 0.1
    assert abs(less) < 0.75 * low


def test_one_round_where_nothing_is_asked_for():
    source = Source()
    assert scheduled_draws(source, DrawPlan(7), clock=lambda: source.now).num_draws == 7


@pytest.mark.parametrize(
    ("num_images", "num_channels", "start", "most"),
    [(1, 16, 4096, 16384), (3, 64, 1024, 8192), (16, 16, 256, 2048), (1, 384, 128, 1024), (8, 384, 128, 128)],
)
def test_as_many_as_are_cheap_where_nobody_says(num_images, num_channels, start, most):
    plan = draw_plan(SpectrumOptions(), closed_form=True, num_images=num_images, num_channels=num_channels)
    assert plan == DrawPlan(start, CHEAP_PRECISION, None, most)
    nested = draw_plan(SpectrumOptions(), closed_form=False, num_images=num_images, num_channels=num_channels)
    assert nested == DrawPlan(32, CHEAP_PRECISION, most_elements=MOST_CHEAP_ELEMENTS, again=True)


def test_what_is_asked_for_is_drawn():
    kind = {"closed_form": True, "num_images": 1, "num_channels": 16}
    assert draw_plan(SpectrumOptions(num_tuples=5), **kind) == DrawPlan(5)
    assert draw_plan(SpectrumOptions(precision=0.1), **kind) == DrawPlan(4096, 0.1)
    assert draw_plan(SpectrumOptions(num_tuples=5, seconds=2.0), **kind) == DrawPlan(5, None, 2.0)


def test_one_draw_tells_nothing():
    found = scheduled_draws(lambda num: Draws(np.zeros(1), np.ones((1, 1)), np.zeros(1, bool)), DrawPlan(1))
    assert found.shortfalls() == [
        "not enough draws: 1 do not tell how well effects are known; --tuples 32 would",
        "not enough draws: nothing is known of effect_0 but that it is not 0",
    ]


@pytest.mark.parametrize("wrong", [{"start": 0}, {"start": 8, "precision": 0}, {"start": 8, "seconds": -1.0}])
def test_numbers_that_are_none(wrong):
    with pytest.raises(ValueError, match="expects a number above 0"):
        scheduled_draws(Source(), DrawPlan(**wrong))


def test_stopping_by_the_width_keeps_the_promise():
    """300 runs that stop when they find themselves good enough; .92 fails with a chance of 1 in 1000."""
    covered = np.zeros(2)
    for seed in range(300):
        draws = scheduled_draws(Source(seed), DrawPlan(32, precision=0.2)).draws
        low, high = effect_intervals(draws.values, draws.images)
        covered += (low[[0, 2]] <= 1) & (high[[0, 2]] >= 1)
    assert (covered >= 260).all()
