"""Explicit operators: every pointwise or normalising non-linearity replaced by its tangent at the operating point."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functions of one tensor (their first argument) that are neither linear nor products. In-place ones are left out: a
# module that uses them gets its derivatives as they are, never a wrong tangent.
ELEMENTWISE_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.logsigmoid, torch.special.expit, torch.special.erf),
        *(torch.tanh, Tensor.tanh, F.tanh, F.hardtanh, F.softsign, F.tanhshrink),
        *(F.gelu, F.silu, F.mish, F.softplus, F.elu, F.selu, F.celu, F.hardsigmoid, F.hardswish),
        *(torch.relu, Tensor.relu, F.relu, F.relu6, F.leaky_relu, torch.selu, torch.celu),
        *(torch.erf, Tensor.erf, torch.exp, Tensor.exp, torch.log, Tensor.log, torch.sqrt, Tensor.sqrt),
        *(torch.rsqrt, Tensor.rsqrt, torch.sin, Tensor.sin, torch.cos, Tensor.cos, torch.abs, Tensor.abs),
        *(torch.atan, Tensor.atan, torch.reciprocal, Tensor.reciprocal),
    }
)
NONLINEAR_FUNCTIONS: frozenset[Callable[..., Any]] = ELEMENTWISE_FUNCTIONS | {
    *(torch.softmax, torch.log_softmax, Tensor.softmax, Tensor.log_softmax, F.softmax, F.log_softmax),
    *(F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm, F.instance_norm, F.rms_norm, F.normalize),
}


def tangent(function: Callable[..., Tensor], z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The first-order Taylor expansion of `function` at the present value z* of `z`, as an affine function of `z`.

    f(z*) + J_f(z*) (z - z*): the value and the first derivative are those of f, every higher one is structurally zero.

    Args:
        function: f, called as `function(z, *args, **kwargs)`.
        z: any shape.
        *args: further arguments, held fixed.
        **kwargs: further arguments, held fixed.

    Returns:
        A tensor of the shape of f(z).

    Example:
        >>> z = torch.tensor(0.0, requires_grad=True)
        >>> slope, = torch.autograd.grad(tangent(torch.sigmoid, z), z, create_graph=True)
        >>> slope.item(), slope.requires_grad
        (0.25, False)
    """
    operating_point = z.detach().requires_grad_()
    value = function(operating_point, *args, **kwargs)
    if function in ELEMENTWISE_FUNCTIONS:  # not all of them have a second derivative
        (slope,) = torch.autograd.grad(value, operating_point, torch.ones_like(value))
        return value.detach() + slope * (z - operating_point.detach())
    # J v as the derivative of u -> J^T u along v: needs only the double backward that every torch function has
    u = torch.zeros_like(value, requires_grad=True)
    (pulled_back,) = torch.autograd.grad(value, operating_point, u, create_graph=True)
    (change,) = torch.autograd.grad(pulled_back, u, z - operating_point.detach(), create_graph=True)
    return value.detach() + change


class _TangentMode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in NONLINEAR_FUNCTIONS:
            return func(*args, **kwargs)
        if not args:  # F.softmax(input=z, dim=1)
            args = (kwargs.pop("input"),)
        z, *rest = args
        if not z.requires_grad:
            return func(z, *rest, **kwargs)
        inplace = kwargs.pop("inplace", False) or (
            func in (F.relu, F.relu6, F.silu, F.hardswish) and rest[:1] == [True]
        )
        if inplace:
            rest = []
        return tangent(func, z, *rest, **kwargs)


@contextmanager
def explicit_operators() -> Iterator[None]:
    """Inside the context every function of `NONLINEAR_FUNCTIONS` is its tangent at the operating point.

    What is left are sums and products, so operators such as gⁿConv, gating and attention become polynomials, and their
    derivatives beyond the degree vanish structurally: these are the interactions that the architecture introduces by
    itself, the paper's "explicit" ones (§3.1).

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> with explicit_operators():
        ...     y = x * torch.tanh(x)
        >>> first, = torch.autograd.grad(y, x, create_graph=True)
        >>> second, = torch.autograd.grad(first, x, create_graph=True)
        >>> second.requires_grad
        False
    """
    with _TangentMode():
        yield
