"""Where the lines lie between what is measured and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from horinsight import interaction_spectrum
from horinsight.interaction.derivative_graph import OperatorsMet
from horinsight.interaction.preconditions import (
    check_certificate,
    check_finite,
    check_points,
    check_polynomial,
    check_variation,
    missing_derivatives_explained,
    underflows,
)
from horinsight.operators.differentiable import check_gradients, check_samples
from horinsight.operators.positions import positions_of


def test_the_least_options_are_enough():
    x = torch.randn(1, 2, 1, 2, dtype=torch.float64)
    spectrum = interaction_spectrum(nn.Conv2d(2, 2, 1).double(), x, max_order=0, num_tuples=1, batch_size=1)
    assert (spectrum.num_draws, len(spectrum.effects), spectrum.at_least) == (1, 1, 0)
    for name, value in (("max_order", -1), ("num_tuples", 0), ("batch_size", 0)):
        with pytest.raises(ValueError, match=f"{name} expects a whole number of at least"):
            interaction_spectrum(nn.Identity(), x, **{"max_order": 0, name: value})


def test_a_chain_needs_as_many_positions_as_it_has_members():
    x = torch.zeros(1, 7, 3)
    check_points(x, positions_of(x, grid=(2, 2)), 3)
    with pytest.raises(ValueError, match=r"order 4 needs 5 distinct positions, got 7 tokens, the first 3 held fixed"):
        check_points(x, positions_of(x, grid=(2, 2)), 4)
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.complex64):
        with pytest.raises(ValueError, match="expects float32 or float64"):
            check_points(x.to(dtype), positions_of(x), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_near_the_smallest_one_prove_nothing(dtype):
    """A product of two factors has six digits of room above the smallest normal number."""
    smallest = float(np.finfo(str(dtype).removeprefix("torch.")).tiny)
    for value, near in ((0.9e6, True), (1.1e6, False)):
        for sign in (1, -1):
            draws = np.array([[1.0, 0.0], [sign * value * smallest, 0.0]])
            assert underflows(draws, dtype) is near
    assert underflows(np.zeros((3, 2)), dtype) is False, "nothing but zeros: nothing came near them"
    check_finite(np.array([[1.0, 0.0]]))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="NaN or infinite at x"):
            check_finite(np.array([[1.0, bad]]))


def test_points_must_vary_somewhere_and_be_finite():
    x = torch.randn(2, 3, 4)
    check_variation(x, torch.tensor([0.0, 1e-20, 0.0]))
    with pytest.raises(ValueError, match="got a constant x"):
        check_variation(x, torch.zeros(3))
    x[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in x"):
        check_variation(x, torch.ones(3))


def test_samples_may_not_see_each_other():
    x = torch.randn(3, 2, 6, dtype=torch.float64)
    for operator in (lambda z: z * z.mean(2, keepdim=True), lambda z: z**3 + 1, lambda z: 1e-9 * z):
        check_samples(operator, x, operator(x))

    def coupled(strength):
        return lambda z: z + strength * (z.mean(0, keepdim=True) - 1)

    with pytest.raises(ValueError, match="treats each sample of a batch by itself"):
        check_samples(coupled(0.1), x, coupled(0.1)(x))
    with pytest.raises(ValueError, match="treats each sample of a batch by itself"):
        check_samples(lambda z: z + 0.1 * torch.randn_like(z), x, x)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_a_polynomial_is_one_along_a_line(degree, sign):
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    coefficients = torch.randn(degree + 1, dtype=torch.float64) + 2

    def polynomial(z):
        return sign * sum(c * z**power for power, c in enumerate(coefficients)) * 1e-3

    check_polynomial(polynomial, x, degree - 1, seed=0)
    check_polynomial(polynomial, x, degree, seed=0)
    if degree > 1:
        with pytest.raises(ValueError, match=f"polynomial of degree {degree - 1}, but the operator is none"):
            check_polynomial(polynomial, x, degree - 2, seed=0)
    largest = polynomial(x).abs().max()
    with pytest.raises(ValueError, match="none along a line"):
        check_polynomial(lambda z: polynomial(z) + (z > 0) * largest, x, degree - 1, seed=0)


def test_operators_without_a_gradient_must_be_constant():
    x = torch.randn(1, 2, 4)
    check_gradients(lambda z: torch.ones_like(z), x, torch.ones_like(x))
    check_gradients(lambda z: 2 * z, x, 2 * x)
    for cut in (lambda z: z.detach() + 1, lambda z: z.sign()):
        if cut(x.clone().requires_grad_()).requires_grad:
            continue
        with pytest.raises(ValueError, match="carries no gradient"):
            check_gradients(cut, x, cut(x))


@pytest.mark.parametrize(
    ("met", "explicit", "message"),
    [
        (OperatorsMet(), True, None),
        (OperatorsMet(kinks=("relu",)), True, None),
        (OperatorsMet(kinks=("relu",)), False, r"kinks \(relu\)"),
        (OperatorsMet(custom=("Mine", "Yours")), True, r"functions \(Mine, Yours\)"),
        (OperatorsMet(custom=("Mine",)), False, r"functions \(Mine\)"),
    ],
)
def test_certificates(met, explicit, message):
    if message is None:
        check_certificate(met, explicit=explicit)
        return
    with pytest.raises(ValueError, match=message):
        check_certificate(met, explicit=explicit)


@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError])
def test_only_missing_derivatives_are_explained(kind):
    for text in ("the derivative for 'x' is not implemented\nmore", "uses once_differentiable", "no double backward"):
        message = rf"as its order asks \({text.splitlines()[0]}\)"
        with pytest.raises(ValueError, match=message) as caught, missing_derivatives_explained():
            raise kind(text)
        assert isinstance(caught.value.__cause__, kind)
    with pytest.raises(kind, match="out of memory"), missing_derivatives_explained():
        raise kind("out of memory")
