"""What each function of a network hands back of a difference between inputs and baselines: DeepLIFT's rules.

A rule replaces the derivative of y = f(a, b, ...) by a linear map L with L(a - a', b - b', ...) = y - y', exactly.
a' is a at the baseline. Here a is a whole batch, inputs and baselines, and a' the same batch with the two exchanged
(`Pairs.partner`), so that a rule serves both. The value stays that of f.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from horinsight.torch_private import tree_map_only

Function = Callable[..., Any]


class Pairs(Protocol):
    """Knows which elements of a tensor belong to inputs, and which to their baselines."""

    def partner(self, x: Tensor) -> Tensor:
        """x with inputs and baselines exchanged, without gradient."""


Rule = Callable[[Pairs, Function, tuple[Any, ...], dict[str, Any]], Any]  # NotImplemented where it does not apply


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]


def given(value: Tensor, surrogate: Tensor) -> Tensor:
    """A tensor with this value and the other one's derivative.

    Example:
        >>> z = torch.tensor(2.0, requires_grad=True)
        >>> y = given(torch.tensor(5.0), 3 * z)
        >>> y.item(), torch.autograd.grad(y, z)[0].item()
        (5.0, 3.0)
    """
    assert value.shape == surrogate.shape, (value.shape, surrogate.shape)
    result: Tensor = _Given.apply(value, surrogate)
    return result


def activations(values: Any) -> list[Tensor]:
    """The tensors among nested arguments that carry a gradient, in order."""
    found: list[Tensor] = []
    tree_map_only(Tensor, lambda z: found.append(z) if z.requires_grad else None, values)
    return found


def at(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], points: Sequence[Tensor]) -> Any:
    """The function with other tensors in place of the activations among its arguments."""
    waiting = iter(points)
    args, kwargs = tree_map_only(Tensor, lambda z: next(waiting) if z.requires_grad else z, (args, kwargs))
    return function(*args, **kwargs)


def nodes(num_factors: int) -> Iterator[tuple[float, float]]:
    """Points of [0, 1] and weights, whose sums integrate what m factors leave of a product when one is taken away.

    Shapley's value of a product of m factors, each at its baseline or its input, is the integral along the straight
    line of the product of the others, a polynomial of degree m - 1; of two factors, the other's mean.

    Example:
        >>> list(nodes(2))
        [(0.5, 1.0)]
    """
    points, weights = np.polynomial.legendre.leggauss((num_factors + 1) // 2)
    for point, weight in zip(points, weights, strict=True):
        yield float(point + 1) / 2, float(weight) / 2


def multilinear(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Δ(ab) = (b + b')/2 Δa + (a + a')/2 Δb; of more factors, each its Shapley value (`nodes`)."""
    factors = activations((args, kwargs))
    if len(factors) < 2:
        return NotImplemented
    ends = [(z.detach(), pairs.partner(z)) for z in factors]
    with torch.no_grad():
        y = at(function, args, kwargs, [z for z, _ in ends])
    terms = []
    for t, weight in nodes(len(factors)):
        means = [z_0 + t * (z - z_0) for z, z_0 in ends]
        for k, z in enumerate(factors):
            terms.append(weight * at(function, args, kwargs, [*means[:k], z, *means[k + 1 :]]))
    return given(y, torch.stack(terms).sum(0))


def pointwise(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Δf = (Δf / Δx) Δx, the rescale rule; where f' in the middle gives Δf as well as rounding lets one tell, f'.

    The quotient is wrong by rounding over Δx, the middle by f''' Δx²/24.
    """
    found = activations((args, kwargs))
    if len(found) != 1 or found[0].is_complex():
        return NotImplemented
    (x,) = found
    with torch.no_grad():
        y = at(function, args, kwargs, [x.clone()])
    if y.is_complex():
        return NotImplemented
    x = x if x.shape == y.shape else x.expand(y.shape)
    x_1, x_0, y_0 = x.detach(), pairs.partner(x), pairs.partner(y)
    with torch.enable_grad():
        middle = ((x_1 + x_0) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(at(function, args, kwargs, [middle]).sum(), middle)
    dx, dy = _difference(x_1, x_0), _difference(y, y_0)
    return given(y, _rescaled(slope, dx, dy, y.abs() + y_0.abs()) * x)


def _rescaled(slope: Tensor, dx: Tensor, dy: Tensor, size: Tensor) -> Tensor:
    """A slope where it gives dy from dx up to the rounding of numbers of this size, dy / dx elsewhere."""
    exact = (slope * dx - dy).abs() <= 8 * torch.finfo(dy.dtype).eps * size
    slope = torch.where(exact | (dx == 0), slope, dy / torch.where(dx == 0, 1, dx))
    return torch.where((dx == 0) & ~slope.isfinite(), 0, slope)  # the root at 0


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a == b, 0, a - b)  # also of equal infinities, which masks are


def _log_mean(a: Tensor, b: Tensor) -> Tensor:
    """log of (e^a - e^b) / (a - b), the logarithmic mean of e^a and e^b, without overflow."""
    d = _difference(a, b).abs()
    return torch.maximum(a, b) + torch.where(d == 0, 0, (-torch.expm1(-d) / torch.where(d == 0, 1, d)).log())


def _log_partition(pairs: Pairs, x: Tensor, dim: Any) -> tuple[Tensor, Tensor]:
    """log Σ exp x as a value, and with the derivative w: Δ log Σ exp x = Σ w Δx.

    w is the rescale rule for exp over that for log; a shift of all x by one number, another one for input and baseline,
    adds exactly that, whatever its size. A quotient of exp by its sum would instead give contributions of the size of
    exp of that shift, which cancel.
    """
    z = x.detach()
    z_0 = pairs.partner(x)
    total, total_0 = (torch.logsumexp(end, dim, keepdim=True) for end in (z, z_0))
    weight = (_log_mean(z, z_0) - _log_mean(total, total_0)).exp()
    dx = _difference(z, z_0)
    amiss = total - total_0 - (weight * dx).sum(dim, keepdim=True)  # the rounding of large exponents
    square = (weight * dx * dx).sum(dim, keepdim=True)
    weight = weight * (1 + dx * torch.where(square == 0, 0, amiss / torch.where(square == 0, 1, square)))
    return total, (weight * x).sum(dim, keepdim=True)


def log_sum_exp(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """log Σ exp x."""

    def surrogate(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
        result = _log_partition(pairs, input, dim)[1]
        return result if keepdim else result.squeeze(dim)

    with torch.no_grad():
        y = function(*args, **kwargs)
    return given(y, surrogate(*args, **kwargs))


def log_softmax(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x - log Σ exp x."""
    with torch.no_grad():
        y = function(*args, **kwargs)
    x, dim = _softmax_arguments(*args, **kwargs)
    return given(y, x - _log_partition(pairs, x, dim)[1])


def softmax(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """exp(x - log Σ exp x): the rescale rule for exp, the rule of `_log_partition` for what is inside."""
    with torch.no_grad():
        y = function(*args, **kwargs)
    x, dim = _softmax_arguments(*args, **kwargs)
    total, surrogate = _log_partition(pairs, x, dim)
    z, y_0 = x.detach() - total, pairs.partner(y)
    z_0 = pairs.partner(z)
    slope = _rescaled(_log_mean(z, z_0).exp(), _difference(z, z_0), y - y_0, y + y_0)
    return given(y, slope * (x - surrogate))


def _softmax_arguments(
    input: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> tuple[Tensor, int]:
    return (input if dtype is None else input.to(dtype)), dim


def selected(pairs: Pairs, x: Tensor, index: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest of several elements, as captum's rule for pooling has it.

    With i where the largest is now and i' where it is at the baseline: an increase is handed to i, a decrease to i'.
    x_i - x'_i is at least the increase, x'_i' - x_i' at least the decrease, so that no multiplier leaves [0, 1].

    Args:
        pairs: who is whose baseline.
        x: the elements.
        index: i.
        pick: `pick(x, index)` gives the elements at these places.
    """
    z, z_0, index_0 = x.detach(), pairs.partner(x), pairs.partner(index)
    now, before = pick(z, index) - pick(z_0, index), pick(z, index_0) - pick(z_0, index_0)
    dy = pick(z, index) - pick(z_0, index_0)
    rise = torch.where(now == 0, (index == index_0).to(now.dtype), dy.clamp(min=0) / torch.where(now == 0, 1, now))
    fall = torch.where(before == 0, 0, dy.clamp(max=0) / torch.where(before == 0, 1, before))
    return given(pick(z, index), rise * pick(x, index) + fall * pick(x, index_0))
