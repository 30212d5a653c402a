"""Intervals of paired differences, by repetition where the truth is known; the order that pairs support."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from horinsight.attribution.curve_areas import curve_areas, over_pictures, tiers, verdict
from horinsight.attribution.faithfulness import faithfulness
from horinsight.attribution.faithfulness_results import Faithfulness

REPETITIONS, PICTURES, CELLS = 400, 12, 9
SURE = 1e-3  # a right program fails once in a thousand seeds, and the seed is fixed


def linear_curves(worth: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a linear model whose cells are worth so much, (pictures, cells), a cell a step."""
    gone = np.take_along_axis(worth, orders, axis=1).cumsum(1)
    gone = np.concatenate([np.zeros((len(worth), 1)), gone], axis=1)
    return gone, worth.sum(1, keepdims=True) - gone  # insertion, deletion from a baseline that is worth 0


def test_paired_intervals_hold_the_truth_as_often_as_they_say():
    """A fixed order against a random one, cells of skewed worth: the mean difference is known.

    A cell at rank r counts in insertion - deletion with g(r) = 1 - (2 r + 1) / cells, on average over orders with 0.
    """
    generator = np.random.default_rng(0)
    means = np.linspace(0.5, 2, CELLS)
    truth = float((means * (1 - (2 * np.arange(CELLS) + 1) / CELLS)).sum())
    held = 0
    shares = np.arange(CELLS + 1) / CELLS
    for _ in range(REPETITIONS):
        worth = means * generator.exponential(size=(PICTURES, CELLS))
        fixed = np.broadcast_to(np.arange(CELLS), worth.shape)
        drawn = generator.permuted(fixed, axis=1)
        curves = [linear_curves(worth, orders) for orders in (fixed, drawn)]
        result = Faithfulness(
            methods=("fixed",), controls=("random",), baselines=("zero",), shares=shares,
            insertion=np.stack([part[0] for part in curves])[:, None],
            deletion=np.stack([part[1] for part in curves])[:, None],
            pictures=np.arange(PICTURES), targets=np.zeros(PICTURES, dtype=np.int64), seed=0,
        )  # fmt: skip
        low, high = result.difference("fixed", "random", "zero").interval
        held += low <= truth <= high
    assert binom.cdf(held, REPETITIONS, 0.95) > SURE, held / REPETITIONS
    assert binom.sf(held - 1, REPETITIONS, 0.95) > SURE, f"{held / REPETITIONS}: too wide"


def test_a_random_map_is_no_better_than_another():
    """In one of twenty repetitions chance looks like something: the method's draws are not the control's."""
    torch.manual_seed(0)
    groups, size = 60, 8
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 3), nn.Tanh(), nn.Linear(3, 3)).eval()
    images = 3 * torch.randn(groups * size, 3, 8, 8)
    targets = torch.randint(0, 3, (len(images),))
    random = {"drawn": lambda x, t: torch.rand(1, 4, 4)}
    found = faithfulness(model, images, targets, random, baselines=["mean"], rows=4, columns=4, steps=4)
    decided = 0
    for group in np.split(np.arange(len(images)), groups):
        part = replace(found, insertion=found.insertion[:, :, group], deletion=found.deletion[:, :, group])
        decided += part.rows[0].beats["random"] != "undecided"
    assert binom.sf(decided - 1, groups, 0.05) > SURE, decided


def test_areas_are_trapezoids():
    generator = np.random.default_rng(1)
    shares = np.array([0.0, 0.1, 0.5, 1.0])
    curves = generator.random((2, 4))
    np.testing.assert_allclose(curve_areas(curves, shares), np.trapezoid(curves, shares, axis=-1), rtol=1e-14)


def test_verdicts_and_what_is_not_a_number():
    assert verdict(over_pictures(np.array([-1.0, -1.1, -0.9]))) == "no"
    assert verdict(over_pictures(np.zeros(5))) == "undecided"
    assert verdict(over_pictures(np.array([np.nan]))) == "undecided"
    assert verdict(over_pictures(np.full(5, 1e-7)), rounding=1e-6) == "undecided"
    assert over_pictures(np.array([1.0, np.nan, 3.0])).count == 2


@pytest.mark.parametrize("seed", range(40))
def test_tiers_are_the_finest_order_in_groups(seed):
    """By trying every order in groups of four."""
    generator = np.random.default_rng(seed)
    better = np.zeros((4, 4), dtype=bool)
    for a, b in itertools.combinations(range(4), 2):
        sign = generator.choice([-1, 0, 1], p=[0.2, 0.2, 0.6])
        better[a, b], better[b, a] = sign > 0, sign < 0
    holding = []
    for levels in itertools.product(range(4), repeat=4):
        groups = [{place for place in range(4) if levels[place] == level} for level in range(4)]
        groups = [group for group in groups if group]
        pairs = [(a, b) for first, second in itertools.combinations(groups, 2) for a in first for b in second]
        if all(better[pair] for pair in pairs):
            holding.append(groups)
    finest = max(holding, key=len)
    assert [set(map(int, group)) for group in tiers("0123", better)] == finest
