"""Draws in groups of neighbours: the mean over all tuples, zeros that are told apart, and what a draw costs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import large_weights, mean_square_by_chains, mean_square_over_tuples
from torch import Tensor, nn

from horinsight import GnConv, interaction_spectrum
from horinsight.interaction.chains import Chains
from horinsight.interaction.expected_squares import expected_squares
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.locations import location_shares
from horinsight.interaction.neighbour_groups import neighbour_groups, shared_directions
from horinsight.operators.positions import positions_of


def chains_of(operator, x: Tensor, max_order: int, batch_size: int = 1000) -> Chains:
    """Where std(F) counts as 1, every cell is at home and moves as much in each channel."""
    positions = positions_of(x)
    sigma = torch.linspace(0.5, 1.5, x.shape[1], dtype=x.dtype)
    flat = positions.flat_operator(operator)
    homes = torch.arange(positions.num_total)
    return Chains(flat, x, positions, homes, sigma, 1.0, flat(x.flatten(2)), 0, max_order, batch_size)


def drawn(chains: Chains, form, num_draws: int, seed: int = 0):
    return chains.derivatives(form, num_draws, torch.Generator().manual_seed(seed), dense=False)


class ProductOfConvolutions(nn.Module):
    """x ⊙ conv(x) ⊙ conv(x) ⊙ conv(x): of order 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))

    def forward(self, x):
        product = x
        for conv in self.convs:
            product = product * conv(x)
        return product


CASES = {
    "window": lambda: GnConv(2, 2, kernel_size=3),
    "pool": lambda: GnConv(2, 2, depthwise="pool", kernel_size=3),
}


def check_mean(y: np.ndarray, expected: float) -> None:
    error = y.std() / len(y) ** 0.5
    assert error < 0.1 * expected, "else it tells nothing"
    assert abs(y.mean() - expected) <= 4 * error


@pytest.mark.parametrize("case", CASES)
def test_closed_forms_have_the_mean_over_all_tuples(case):
    """4x4 map, float64: every tuple of distinct cells, with every channel, against draws."""
    torch.manual_seed(3)
    operator = large_weights(CASES[case]().double())
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    chains = chains_of(operator, x, 2)
    y = np.square(drawn(chains, closed_form_of(operator, x, explicit=True), 30_000).values)
    for k in range(3):
        check_mean(y[:, k], mean_square_over_tuples(operator, x, chains.sigma, k))


@pytest.mark.parametrize(("order", "kind"), [(3, {"kernel_size": 3}), (2, {"depthwise": "gf", "gf_size": (4, 3)})])
def test_closed_forms_of_higher_order_and_gf_have_it_too(order, kind):
    torch.manual_seed(4)
    operator = large_weights(GnConv(4, order, **kind).double())
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    form, chains = closed_form_of(operator, x, explicit=True), chains_of(operator, x, 5)
    shares = location_shares(chains.output, expected_squares(form, x, chains.sigma, 5))
    assert shares.max() > 1.2 * shares.min(), "locations are drawn unevenly, and weighted for it"
    y = np.square(drawn(replace(chains, shares=shares), form, 100_000).values)
    fields = [list(map(int, row.nonzero())) for row in form.field(torch.arange(16), (4, 4))]
    for k in range(order + 1):
        others = [[j for j in field if j != i] for i, field in enumerate(fields)]

        def mixed(cells: Tensor, directions: Tensor, k: int = k) -> Tensor:
            return form.mixed(x, cells, directions, image=torch.zeros(len(cells), dtype=torch.long))[:, k]

        check_mean(y[:, k], mean_square_by_chains(mixed, others, chains.sigma, k))


@pytest.mark.parametrize("max_order", [3, 6])
def test_nested_draws_have_it_too(max_order):
    """And with more groups than a cell at the edge has neighbours."""
    torch.manual_seed(5)
    operator = large_weights(ProductOfConvolutions(2).double())
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    chains = chains_of(operator, x, max_order)
    y = np.square(drawn(chains, None, 8000).values)
    for k in range(4 if max_order == 3 else 3):
        check_mean(y[:, k], mean_square_over_tuples(operator, x, chains.sigma, k))


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    num_groups=st.integers(1, 6),
    prefix=st.integers(0, 2),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_groups_are_a_partition_by_sizes_that_differ_by_one(rows, columns, num_groups, prefix, seed):
    generator = torch.Generator().manual_seed(seed)
    P = prefix + rows * columns
    if P - prefix <= num_groups:
        return
    field = torch.rand(5, P, generator=generator) < 0.6
    centres = prefix + torch.randint(P - prefix, (5,), generator=generator)
    groups = neighbour_groups(field, centres, torch.rand(5, P, generator=generator), num_groups, prefix)
    for n in range(5):
        around = {int(j) for j in field[n].nonzero() if j >= prefix} - {int(centres[n])}
        members = [set(map(int, (groups.member[n] == t + 1).nonzero())) for t in range(num_groups)]
        sizes = [len(group) for group in members]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1
        assert not any(a & b for a, b in itertools.combinations(members, 2))
        moved = set().union(*members)
        assert int(centres[n]) not in moved
        assert not any(j < prefix for j in moved)
        if len(around) >= num_groups:
            assert moved == around
        else:
            assert around <= moved, "those of the field come first"
        for k in range(1, num_groups + 1):
            left = set(map(int, groups.left(k)[n].nonzero()))
            whole = around if k <= len(around) else set(range(prefix, P)) - {int(centres[n])}
            assert left == whole - set().union(*members[: k - 1])
            assert left


@given(num_groups=st.integers(1, 5), num_vectors=st.integers(1, 4), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_shared_directions_move_each_place_once(num_groups, num_vectors, seed):
    generator = torch.Generator().manual_seed(seed)
    around = torch.rand(4, 12, generator=generator) < 0.7
    vectors = torch.zeros(4, num_groups, num_vectors, 3, dtype=torch.float64)
    found = shared_directions(around, torch.rand(4, 2, 12, generator=generator), vectors)
    assert torch.equal((found.share != 0).sum((1, 2)), around.long())
    size = (found.share != 0).sum((2, 3))
    assert (size.amax(1) - size.amin(1) <= 1).all()
    torch.testing.assert_close(found.share.square().sum((2, 3)), (size > 0).double(), rtol=1e-12, atol=1e-12)


class Counted(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


def test_what_a_draw_costs(monkeypatch):
    """K + 1 backward passes and one forward pass for D_0..D_K: one of each less than drawing single neighbours took."""
    K = 4
    counted = Counted(GnConv(8, 3, kernel_size=3))
    chains = chains_of(counted, torch.randn(1, 8, 5, 5), K, batch_size=1)
    passes = 0
    grad = torch.autograd.grad

    def counting(*args, **kwargs):
        nonlocal passes
        passes += 1
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    counted.calls = 0
    drawn(chains, None, 6)
    assert passes == 6 * (K + 1), "one of them finds that the graph has ended"
    assert counted.calls == 6


class Pairs(nn.Module):
    """x_i times the product of its left and its right neighbour: three cells meet, or nothing."""

    def forward(self, x):
        left = nn.functional.pad(x, (1, 0))[..., :-1]
        right = nn.functional.pad(x, (0, 1))[..., 1:]
        return x * left * right


def test_a_draw_that_misses_is_no_structural_zero():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    draws = drawn(chains_of(Pairs(), x, 3), None, 200)
    zeros = draws.values == 0
    assert draws.structural.tolist() == [False, False, False, True]
    assert zeros[:, 2].any(), "at the edge one of the two lies outside the map"
    assert not zeros[:, 2].all()
    assert not draws.unproven_zeros.any()
    spectrum = interaction_spectrum(Pairs(), x, max_order=3)
    assert spectrum.location_order == 2


@pytest.mark.parametrize("method", ["nested", "closed_form"])
def test_where_there_is_no_neighbour(method):
    """A gnConv of 1x1 windows: of degree order 2, and nothing moves it but the cell itself; no structure says so."""
    operator = large_weights(GnConv(4, 2, kernel_size=1).double())
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    spectrum = interaction_spectrum(operator, x, max_order=4, num_tuples=4, method=method)
    assert (spectrum.location_order, spectrum.degree_order) == (0, 2)
    form = closed_form_of(operator, x, explicit=True) if method == "closed_form" else None
    draws = drawn(chains_of(operator, x, 4), form, 8)
    assert draws.structural.tolist() == [False] * 3 + [True] * 2
    assert draws.unproven_zeros.tolist() == [False, True, True, False, False]
