import pytest
import torch
import torch.nn.functional as F
from torch import nn

from horinsight import explicit_operators
from horinsight.interaction.tangent import NONLINEAR_FUNCTIONS, tangent

FUNCTIONS = {
    "softmax": lambda z: torch.softmax(z, dim=1),
    "method softmax": lambda z: z.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "tanh": lambda z: z.tanh(),
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "atan": torch.atan,
    "layer_norm": lambda z: F.layer_norm(z, (6,), torch.arange(6.0).double(), torch.ones(6).double()),
    "group_norm": lambda z: F.group_norm(z.reshape(4, 6, 1), 3).reshape(4, 6),
    "normalize": lambda z: F.normalize(z, dim=1),
    "nn.GELU": nn.GELU(),
    "nn.Softmax": nn.Softmax(dim=1),
    "nn.ReLU in place": lambda z: nn.ReLU(inplace=True)(z * 1),
}


def derivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """dy/dx, or None where y is disconnected from x: a structural zero."""
    return torch.autograd.grad(y, x, create_graph=True, allow_unused=True)[0] if y.requires_grad else None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_first_derivative_are_kept_and_all_others_vanish(name):
    function = FUNCTIONS[name]
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 6, dtype=torch.float64)
    expected = function(x)
    slope = torch.autograd.grad((expected * weights).sum(), x)[0]
    with explicit_operators():
        found = function(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad((found * weights).sum(), x, create_graph=True)
    torch.testing.assert_close(first, slope, rtol=1e-11, atol=1e-12)
    assert derivative(first.sum(), x) is None, "a structural zero"


def test_products_keep_their_degree():
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    with explicit_operators():
        y = (x * torch.sigmoid(x) * torch.tanh(x)).sum()
    orders = 0
    while True:
        gradient = derivative(y, x)
        if gradient is None:
            break
        orders += 1
        y = gradient.sum()
    assert orders == 3


def test_tangent_of_a_known_function():
    z = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = tangent(torch.exp, z)
    (slope,) = torch.autograd.grad(y, z)
    assert y.item() == pytest.approx(torch.e**2)
    assert slope.item() == pytest.approx(torch.e**2)


def test_without_gradients_nothing_is_replaced():
    x = torch.randn(5)
    with explicit_operators():
        assert torch.equal(torch.sigmoid(x), x.sigmoid())
        assert not torch.sigmoid(x).requires_grad


def test_the_context_ends_also_after_an_error():
    x = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="stop"), explicit_operators():
        raise RuntimeError("stop")
    (first,) = torch.autograd.grad(torch.sigmoid(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].abs().sum() > 0


def test_the_list_has_the_names_of_the_specification():
    for function in (torch.softmax, torch.sigmoid, F.gelu, F.relu, F.silu, torch.tanh, F.layer_norm):
        assert function in NONLINEAR_FUNCTIONS
