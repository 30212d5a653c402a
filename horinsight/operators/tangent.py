"""Explicit operators: every pointwise or normalising non-linearity replaced by its tangent at the operating point.

What is left are sums and products: gⁿConv, gating and attention become polynomials, and their derivatives beyond the
degree vanish structurally. These are the interactions that the architecture introduces by itself, the paper's
"explicit" ones (§3.1).
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from horinsight.capture import wrapped_forward
from horinsight.operators.declared import Declared as Declared  # asked for here by those who measure
from horinsight.operators.declared import declared_modules as declared_modules  # likewise
from horinsight.operators.linear_map import ElementwiseJacobian, Jacobian, LinearMap
from horinsight.operators.nonlinear_functions import (
    DIVISIONS,
    DIVISIONS_IN_PLACE,
    ELEMENTWISE_FUNCTIONS,
    IN_PLACE,
    NONLINEAR_FUNCTIONS,
    POWERS,
    POWERS_IN_PLACE,
    REFLECTED_DIVISIONS,
    Function,
)
from horinsight.operators.normalisation import is_norm, may_be_norm
from horinsight.operators.open_attention import attention_around
from horinsight.torch_private import undispatched


def tangent(function: Function, *args: Any, **kwargs: Any) -> Tensor:
    """The first-order Taylor expansion of `function` at the present values of its arguments, as an affine function.

    f(z*) + J_f(z*) (z - z*): the value and the first derivative are those of f, every higher one is structurally zero.

    Args:
        function: f, called as `function(*args, **kwargs)`; gives one tensor.
        *args: tensors that carry a gradient are the z, everything else is held fixed.
        **kwargs: held fixed, except tensors that carry a gradient.

    Returns:
        A tensor of the shape of f(z).

    Raises:
        ValueError: f gives something else than one tensor.

    Example:
        >>> z = torch.tensor(0.0, requires_grad=True)
        >>> slope, = torch.autograd.grad(tangent(torch.sigmoid, z), z, create_graph=True)
        >>> slope.item(), slope.requires_grad
        (0.25, False)
    """
    z = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.requires_grad]
    if not z or not torch.is_grad_enabled():
        unchanged: Tensor = function(*args, **kwargs)
        return unchanged
    points = tuple(value.detach().requires_grad_() for value in z)
    waiting = iter(points)

    def at_point(value: Any) -> Any:
        return next(waiting) if isinstance(value, Tensor) and value.requires_grad else value

    fixed = [at_point(item) for item in args]  # first: the points wait in this order
    value = function(*fixed, **{name: at_point(item) for name, item in kwargs.items()})
    if not isinstance(value, Tensor):
        name = getattr(function, "__qualname__", type(function).__name__)
        raise ValueError(f"A non-linearity is expected to give one tensor, got {type(value).__name__} from {name}.")
    if not value.requires_grad:
        return value
    jacobian: Jacobian | ElementwiseJacobian = Jacobian(value, points)
    real = not (value.is_complex() or points[0].is_complex())
    if function in ELEMENTWISE_FUNCTIONS and real and len(points) == 1 and value.shape == points[0].shape:
        (slope,) = jacobian.pullback(torch.ones_like(value))  # not all of these have a second derivative
        jacobian = ElementwiseJacobian(slope)
    replaced: Tensor = LinearMap.apply(jacobian, value.detach(), *z)
    return replaced


class _TangentMode(TorchFunctionMode):
    """Looks at every call of a function of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = 0
        self.opened: list[Function] = []

    @contextmanager
    def pause(self) -> Iterator[None]:
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.paused or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func in NONLINEAR_FUNCTIONS:
            return _possibly_in_place(func, args, kwargs)
        if func in IN_PLACE:
            return _replaced(args[0], tangent(getattr(torch, IN_PLACE[func], None) or getattr(F, IN_PLACE[func]),
                                              _copied(args[0]), *args[1:], **kwargs))  # fmt: skip
        if func in DIVISIONS and kwargs.get("rounding_mode") is None:
            return _quotient(*args, **_without_rounding(kwargs))
        if func in REFLECTED_DIVISIONS:
            return _quotient(args[1], args[0])
        if func in DIVISIONS_IN_PLACE and kwargs.get("rounding_mode") is None:
            return args[0].mul_(_reciprocal(args[1])) if _carries(args[1]) else func(*args, **kwargs)
        if func in POWERS and not _is_product(func, *args, **kwargs):
            return tangent(func, *args, **kwargs)
        if func in POWERS_IN_PLACE and not _is_product(func, *args, **kwargs):
            return _replaced(args[0], tangent(torch.pow, _copied(args[0]), *args[1:], **kwargs))
        if func is F.scaled_dot_product_attention:
            return attention_around(partial(tangent, torch.softmax))(*args, **kwargs)
        if func is F.glu:
            return _gated(*args, **kwargs)
        if isinstance(func, FunctionType) and func.__module__ == F.__name__ and func not in self.opened:
            self.opened.append(func)
            try:
                with self:  # torch turns the mode off while it is in here; what this function calls is to be seen
                    return undispatched(func)(*args, **kwargs)
            finally:
                self.opened.pop()
        return func(*args, **kwargs)


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _copied(z: Tensor) -> Tensor:
    """z under another address: what is computed at the operating point must outlive that z is overwritten."""
    return z.clone()


def _replaced(z: Tensor, value: Tensor) -> Tensor:
    return z.copy_(value)


def _possibly_in_place(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(func, FunctionType):
        signature = inspect.signature(func)
        if "inplace" in signature.parameters:
            bound = signature.bind(*args, **kwargs)
            if bound.arguments.pop("inplace", False):
                z = bound.arguments.pop("input")
                return _replaced(z, tangent(func, _copied(z), **bound.arguments))
    return tangent(func, *args, **kwargs)


def _without_rounding(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "rounding_mode"}


def _reciprocal(divisor: Tensor) -> Tensor:
    return tangent(torch.reciprocal, divisor)


def _quotient(input: Any, other: Any, *, out: None = None) -> Tensor:
    """a / b as a product with the tangent of 1 / b."""
    return input * _reciprocal(other) if _carries(other) else torch.true_divide(input, other)


def _is_product(func: Function, base: Any = None, exponent: Any = None, **kwargs: Any) -> bool:
    """Whether a power is a product: an exponent that is a whole number, fixed and not negative."""
    base, exponent = kwargs.get("input", kwargs.get("self", base)), kwargs.get("exponent", exponent)
    if func is Tensor.__rpow__ or _carries(exponent):
        return False
    value = exponent.item() if isinstance(exponent, Tensor) and exponent.ndim == 0 else exponent
    return isinstance(value, int | float) and value >= 0 and float(value).is_integer()


def _gated(input: Tensor, dim: int = -1) -> Tensor:
    """GLU: a ⊙ σ(b), a product with the tangent of a sigmoid."""
    a, b = input.chunk(2, dim)
    return a * tangent(torch.sigmoid, b)


@contextmanager
def explicit_operators(operator: object = None, *, nonlinear: Iterable[Declared] = ()) -> Iterator[set[str]]:
    """Inside the context every non-linearity is its tangent at the operating point.

    Non-linearities are the functions of `NONLINEAR_FUNCTIONS` (also in place, also when a module calls them), division
    by a feature (a product with the tangent of the reciprocal), powers that are not whole numbers, and the softmax and
    sigmoid inside fused attention and GLU, which are opened up. Products, sums and whole-number powers stay.

    Args:
        operator: a module that will be called; its norms each count as one non-linearity even where they are written
            out by hand: what is a norm is told by what it computes (`is_norm`), not by its name.
        nonlinear: further submodules of it that do: classes, modules, or names of classes.

    Yields:
        Names of the classes that count as one non-linearity; those of norms written by hand come when they are called.

    Raises:
        ValueError: a declared module is not in the operator.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> with explicit_operators():
        ...     y = x * torch.tanh(x)
        >>> first, = torch.autograd.grad(y, x, create_graph=True)
        >>> second, = torch.autograd.grad(first, x, create_graph=True)
        >>> second.requires_grad
        False
    """
    mode = _TangentMode()
    declared = declared_modules(operator, nonlinear)
    names = {type(module).__name__ for module in declared.values()}

    def as_tangent(module: nn.Module, known: bool | None) -> Callable[[Function], Function]:
        def wrap(forward: Function) -> Function:
            norm = known

            def one_tangent(*args: Any, **kwargs: Any) -> Any:
                nonlocal norm
                if mode.paused or not torch.is_grad_enabled():
                    return forward(*args, **kwargs)
                if norm is None:
                    with mode.pause():
                        norm = is_norm(module, args, kwargs)
                    names.update({type(module).__name__} if norm else ())
                if not norm:
                    return forward(*args, **kwargs)
                with mode.pause():
                    return tangent(forward, *args, **kwargs)

            return one_tangent

        return wrap

    with ExitStack() as stack:
        for module in declared.values():
            stack.enter_context(wrapped_forward(module, as_tangent(module, True)))
        if isinstance(operator, nn.Module):
            inside = {part for module in declared.values() for part in module.modules()}
            for module in operator.modules():
                if module not in inside and may_be_norm(module):
                    stack.enter_context(wrapped_forward(module, as_tangent(module, None)))
        stack.enter_context(mode)
        yield names
