"""The degree order is never below the location order: random polynomials whose orders are known."""

import functools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from horinsight import interaction_spectrum

SIDE, CHANNELS, MOST = 3, 2, 4
Factors = tuple[tuple[int, int], ...]  # of a monomial: (position, channel) of each


class Polynomial(nn.Module):
    """x, and at some positions a product of numbers from anywhere."""

    def __init__(self, terms: Sequence[tuple[int, Factors]]) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        rows = list(flat.unbind(2))
        for place, factors in self.terms:
            product = functools.reduce(torch.mul, [flat[:, c, j] for j, c in factors])
            rows[place] = rows[place] + product[:, None]
        return torch.stack(rows, 2).view_as(x)


def orders(terms: Sequence[tuple[int, Factors]]) -> tuple[int, int]:
    """Location and degree, over all positions, of sums that do not cancel."""
    location = [len({j for j, _ in factors}) - 1 for place, factors in terms if place in {j for j, _ in factors}]
    return max(location, default=0), max([len(factors) - 1 for _, factors in terms], default=0)


cell = st.tuples(st.integers(0, SIDE**2 - 1), st.integers(0, CHANNELS - 1))
monomials = st.lists(
    st.tuples(st.integers(0, SIDE**2 - 1), st.lists(cell, min_size=1, max_size=MOST).map(tuple)), min_size=1, max_size=3
)


@settings(max_examples=40, deadline=None)
@given(terms=monomials, draws=st.integers(1, 3), explicit=st.booleans(), seed=st.integers(0, 99))
def test_never_below_whatever_is_drawn(terms, draws, explicit, seed):
    x = torch.randn(1, CHANNELS, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    spectrum = interaction_spectrum(
        Polynomial(terms), x, max_order=MOST + 1, num_tuples=draws, explicit=explicit, seed=seed
    )
    location, degree = orders(terms)
    assert spectrum.degree_order == degree
    assert spectrum.location_order <= min(location, spectrum.degree_order)


@settings(max_examples=15, deadline=None)
@given(terms=monomials, seed=st.integers(0, 99))
def test_both_are_found_where_every_position_is_drawn(terms, seed):
    x = torch.randn(1, CHANNELS, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    draws = 40 * SIDE**2  # chains meet the right one of 8 neighbours, and of the 7 after it, often enough
    spectrum = interaction_spectrum(Polynomial(terms), x, max_order=MOST + 1, num_tuples=draws, explicit=False)
    assert (spectrum.location_order, spectrum.degree_order) == orders(terms)


class TheSameEverywhere(nn.Module):
    """The cube of the mean is added at every position: weights that add up to 0 would not see it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean((2, 3), keepdim=True) ** 3


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (5, 5), (6, 6), (4, 6), (7, 7), (8, 8)])
def test_what_is_the_same_everywhere_has_a_degree(size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = interaction_spectrum(TheSameEverywhere(), x, max_order=3, num_tuples=4, explicit=False)
    assert (spectrum.location_order, spectrum.degree_order) == (2, 2)
