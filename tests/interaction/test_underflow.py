"""Zeros that are zeros, and numbers that became one because they were too small."""

import numpy as np
import pytest
import torch
from torch import nn

from horinsight import GnConv, interaction_spectrum
from horinsight.interaction.underflow import UnderflowWatch


def shrunk(module: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(factor)
    return module


@pytest.mark.parametrize("method", ["closed_form", "nested"])
def test_a_certificate_that_underflow_would_defeat(method):
    """Every order below n has biases in it and is alive; what is left of order n is 0.0 in float32."""
    x = torch.randn(1, 32, 7, 7) * 1e-3
    operator = shrunk(GnConv(32, 6), 1e-3)
    options = {"max_order": 7, "num_tuples": 2, "method": method}
    spectrum = interaction_spectrum(operator, x, **options)
    assert (spectrum.location_order, spectrum.degree_order, spectrum.convention["dtype"]) == (6, 6, "float64")
    expected = interaction_spectrum(operator.double(), x.double(), **options)
    np.testing.assert_array_equal(spectrum.exact_zero, expected.exact_zero)
    assert (spectrum.effects[:7] > 0).all()


@pytest.mark.parametrize("method", ["closed_form", "nested"])
def test_what_underflows_in_float64_is_refused(method):
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64) * 1e-60
    operator = shrunk(GnConv(8, 3).double(), 1e-60)
    with pytest.raises(
        ValueError, match=r"torch.float64 underflows and zeros prove nothing: scale x or the weights\.$"
    ):
        interaction_spectrum(operator, x, max_order=5, num_tuples=4, method=method)


class Gate(nn.Module):
    """x + b x · b mean(x): of order 1 for every b but zero."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, z):
        b = self.b.to(z.dtype)
        return z + (b * z) * (b * z.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("b", [1e-20, 1e-30])
def test_one_factor_after_the_other_vanishes(b):
    """b² is below the smallest normal number of float32, or 0.0 there; b is neither."""
    spectrum = interaction_spectrum(Gate(b), torch.randn(2, 3, 4, 4), max_order=3, num_tuples=4)
    assert (spectrum.location_order, spectrum.degree_order, spectrum.convention["dtype"]) == (1, 1, "float64")
    with pytest.raises(ValueError, match=r"torch\.float32 underflows .* give the operator and x in float64"):
        interaction_spectrum(lambda z: Gate(b)(z), torch.randn(2, 3, 4, 4), max_order=3, num_tuples=4)


def test_and_where_it_is_zero_the_order_is_zero():
    spectrum = interaction_spectrum(Gate(0.0), torch.randn(2, 3, 4, 4), max_order=3, num_tuples=4)
    assert (spectrum.location_order, spectrum.degree_order, spectrum.convention["dtype"]) == (0, 0, "float32")
    assert spectrum.exact_zero.tolist() == [False, True, True, True]


@pytest.mark.parametrize("method", ["closed_form", "nested"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_zero_give_exact_zeros(method, dtype):
    """Without g_2's weight what comes before it is a constant: f_2 f_3 f_4 is left, of degree 3."""
    operator = GnConv(16, 5).to(dtype)
    nn.init.zeros_(operator.pws[1].weight)
    options = {"max_order": 6, "num_tuples": 4, "method": method}
    spectrum = interaction_spectrum(operator, torch.randn(1, 16, 5, 5, dtype=dtype), **options)
    assert (spectrum.location_order, spectrum.degree_order) == (2, 2)
    assert spectrum.convention["dtype"] == str(dtype).removeprefix("torch."), "it is not computed again"
    assert spectrum.exact_zero.tolist() == [False] * 3 + [True] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_units_give_exact_zeros(dtype):
    dead = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)).to(dtype)
    nn.init.constant_(dead[0].bias, -100.0)
    spectrum = interaction_spectrum(dead, torch.randn(1, 4, 5, 5, dtype=dtype), max_order=2, num_tuples=4)
    assert spectrum.exact_zero.all()
    assert (spectrum.location_order, spectrum.degree_order) == (0, 0)


def test_zeros_by_location_are_believed():
    """x³ cell by cell: no neighbour acts, the degree is 3."""
    spectrum = interaction_spectrum(lambda z: z**3, torch.randn(2, 4, 4, 4), max_order=4, num_tuples=4)
    assert (spectrum.location_order, spectrum.degree_order) == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_watch(dtype):
    tiny = torch.finfo(dtype).tiny
    small, x = torch.full((2, 3), tiny**0.6, dtype=dtype), torch.randn(3, 2, dtype=dtype)
    zeros = torch.zeros(2, 3, dtype=dtype)

    def found(compute) -> bool:
        with UnderflowWatch() as watch:
            compute()
        return watch.found

    leaf = small.clone().requires_grad_()
    square = leaf * leaf * 1e3
    assert found(lambda: small * small)
    assert found(lambda: small.clone().mul_(small))
    assert found(lambda: small @ small.T)
    assert found(lambda: nn.functional.conv2d(small[None, None], small[None, None]))
    assert found(lambda: torch.einsum("ab,cb->ac", small, small))
    assert found(lambda: torch.full((2,), tiny, dtype=dtype) - tiny * 0.75), "below the smallest normal number"
    assert found(lambda: torch.autograd.grad((square * small).sum(), leaf)), "in a backward pass"
    with torch.inference_mode():
        assert found(lambda: nn.functional.linear(small, small))
    assert not found(lambda: small * 1e-3)
    assert not found(lambda: (zeros * small, zeros @ x, small.mul(0), small @ torch.zeros_like(x)))
    assert not found(lambda: torch.empty_like(small)), "which nobody has written yet"
