import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from horinsight import GnConv, interaction_spectrum
from horinsight.interaction.order_ladder import DynamicConv, LinearAttention, ladder, rung_spectra

RUNGS = {rung.name: rung for rung in ladder()}


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_has_the_order_that_theory_gives(name):
    rung = RUNGS[name]
    explicit, functional = rung_spectra(rung, dim=64, side=7, num_images=1, num_tuples=6)
    assert (explicit.location_order, explicit.degree_order) == (rung.location_order, rung.degree_order)
    assert functional.location_order == rung.functional_order
    assert functional.at_least == (3 if rung.functional_order is None else None)
    assert explicit.unlisted == ()


def operator_and_point(rung, *, dtype, side=6):
    dim = 64 if rung.name in ("g6Conv 7x7", "g5Conv GF") else 16
    torch.manual_seed(1)
    module = rung.build(dim, side * side).eval().to(dtype)
    x = torch.randn((2, side * side, dim) if rung.tokens else (2, dim, side, side)).to(dtype)
    return module, x, (side, side) if rung.tokens else None


class Changed(nn.Module):
    """The operator with its output scaled, and the channels of input and output permuted."""

    def __init__(self, inner, factor, permutation, dim):
        super().__init__()
        self.inner, self.factor, self.permutation, self.dim = inner, factor, permutation, dim

    def forward(self, x):
        back = torch.argsort(self.permutation)
        return self.factor * self.inner(x.index_select(self.dim, self.permutation)).index_select(self.dim, back)


@pytest.mark.parametrize("name", [n for n in RUNGS if n not in ("gMLP's spatial gate",)])
def test_orders_do_not_depend_on_precision_scale_or_the_numbering_of_channels(name):
    rung = RUNGS[name]
    expected = (rung.location_order, rung.degree_order)
    options = {"max_order": rung.degree_order + 2, "num_tuples": 6}
    for dtype in (torch.float32, torch.float64):
        module, x, grid = operator_and_point(rung, dtype=dtype)
        found = interaction_spectrum(module, x, grid=grid, **options)
        assert (found.location_order, found.degree_order) == expected
        channels = x.shape[2] if rung.tokens else x.shape[1]
        for factor in (1.0, 1e-12):
            changed = Changed(module, factor, torch.randperm(channels), 2 if rung.tokens else 1)
            other = interaction_spectrum(changed, x, grid=grid, **options)
            assert (other.location_order, other.degree_order) == expected
            ratio = other.effects[: expected[0] + 1] / found.effects[: expected[0] + 1]
            assert (ratio > 1e-3).all(), "relative to std(F), so that the factor drops out"
            assert (ratio < 1e3).all()


def test_the_scale_drops_out_exactly():
    module = GnConv(8, 2, kernel_size=3).double()
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    same = torch.arange(8)
    spectra = [
        interaction_spectrum(Changed(module, factor, same, 1), x, max_order=4, num_tuples=6) for factor in (1.0, 1e-12)
    ]
    np.testing.assert_allclose(spectra[1].effects, spectra[0].effects, rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_composition_multiplies_degrees(a, b):
    """gConv(1) then gConv(2): 5 = (1 + 1)(2 + 1) - 1."""
    torch.manual_seed(a + 10 * b)
    network = nn.Sequential(GnConv(8, a, kernel_size=3), GnConv(8, b, kernel_size=3)).double()
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    expected = (a + 1) * (b + 1) - 1
    spectrum = interaction_spectrum(network, x, max_order=expected + 1, num_tuples=24)
    assert (spectrum.location_order, spectrum.degree_order) == (expected, expected)


def test_linear_layers_add_nothing_and_parallel_branches_take_the_larger_order():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = GnConv(8, 1, kernel_size=3), GnConv(8, 3, kernel_size=3)
            self.linear = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return self.first(self.linear(x)) + self.linear(self.second(x)) + x

    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    spectrum = interaction_spectrum(Parallel().double(), x, max_order=5, num_tuples=24)
    assert (spectrum.location_order, spectrum.degree_order) == (3, 3)


def test_rungs_keep_the_positions_of_what_they_are_given():
    for rung in ladder():
        module, x, _ = operator_and_point(rung, dtype=torch.float32)
        positions = 1 if rung.tokens else slice(2, 4)
        assert module(x).shape[positions] == x.shape[positions]
        assert rung.functional_order in (None, rung.location_order)


def test_softmax_free_attention_by_loops():
    attention = LinearAttention(4).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = attention.qkv(x).split(4, dim=-1)
        mixed = torch.zeros_like(v)
        for b in range(2):
            for i in range(5):
                for j in range(5):
                    mixed[b, i] += q[b, i] @ k[b, j] * v[b, j] / 5
        torch.testing.assert_close(attention(x), attention.proj(mixed), rtol=1e-12, atol=1e-12)


def test_dynamic_convolution_mixes_its_kernels_for_each_picture():
    operator = DynamicConv(8, kernel_size=5, num_kernels=3).double()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        shares = operator.attention(x.mean((2, 3))).softmax(1)
        torch.testing.assert_close(shares.sum(1), torch.ones(2, dtype=torch.float64))
        for b in range(2):
            kernel = sum(share * kernel for share, kernel in zip(shares[b], operator.kernels, strict=True))
            expected = nn.functional.conv2d(x[b], kernel[:, None], padding=2, groups=8)
            torch.testing.assert_close(operator(x)[b], expected, rtol=1e-12, atol=1e-12)


def test_a_rung_is_described():
    assert all(dataclasses.asdict(rung)["name"] for rung in ladder())
    assert len({rung.name for rung in ladder()}) == len(ladder())
