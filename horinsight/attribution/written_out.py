"""Divisions, attention and other functions of torch, written out in products, sums and pointwise functions.

Called with the same arguments as torch's; what they call has rules of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from horinsight.attribution.norms_written_out import NORMS_WRITTEN_OUT
from horinsight.operators.open_attention import attention_around


def _carries(*values: Any) -> bool:
    return all(isinstance(value, Tensor) and value.requires_grad for value in values)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """a times 1 / b."""
    return input * other.reciprocal() if rounding_mode is None and _carries(other) else NotImplemented


def rdiv(input: Tensor, other: Any) -> Any:
    """b / a."""
    return div(other, input)


def power(input: Any, exponent: Any) -> Any:
    """exp(b log a)."""
    return (exponent * torch.as_tensor(input).log()).exp()


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Any:
    """c + v a b."""
    return input + value * (tensor1 * tensor2) if _carries(tensor1, tensor2) else NotImplemented


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Any:
    """c + v a / b."""
    return input + value * (tensor1 * tensor2.reciprocal()) if _carries(tensor2) else NotImplemented


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """β c + α a b, of matrices or batches of them."""
    return beta * input + alpha * (mat1 @ mat2) if _carries(mat1, mat2) else NotImplemented


def lerp(input: Tensor, end: Tensor, weight: Any) -> Any:
    """a + w (b - a)."""
    return input + weight * (end - input) if _carries(weight) else NotImplemented


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a σ(b)."""
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """a · b / (|a| |b|)."""
    first, second = ((x * x).sum(dim).sqrt().clamp(min=eps).reciprocal() for x in (x1, x2))
    return (x1 * x2).sum(dim) * first * second


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """One factor after the other."""
    if dim is None:
        return NotImplemented
    first, *others = input.unbind(dim)
    for factor in others:
        first = first * factor
    return first.unsqueeze(dim) if keepdim else first


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """With bounds that depend on the picture."""
    input = input if min is None else torch.maximum(input, torch.as_tensor(min).to(input))
    return input if max is None else torch.minimum(input, torch.as_tensor(max).to(input))


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger one."""
    return torch.stack(torch.broadcast_tensors(input, other)).amax(0)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller one."""
    return -torch.stack(torch.broadcast_tensors(-input, -other)).amax(0)


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """max(a, b) and min(a, b), which are also names of maxima over axes."""

    def larger(input: Tensor, other: Any = None, *rest: Any) -> Any:
        return function(input, other) if isinstance(other, Tensor) else NotImplemented

    return larger


WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    **NORMS_WRITTEN_OUT,
    **dict.fromkeys(("div", "divide", "true_divide", "truediv"), div),
    **dict.fromkeys(("rdiv", "rtruediv"), rdiv),
    **dict.fromkeys(("pow", "float_power"), power),
    "rpow": lambda input, other: power(other, input),
    "addcmul": addcmul,
    "addcdiv": addcdiv,
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), addmm),
    "lerp": lerp,
    "glu": glu,
    "cosine_similarity": cosine_similarity,
    "prod": prod,
    **dict.fromkeys(("clamp", "clip"), clamp),
    **dict.fromkeys(("maximum", "fmax"), maximum),
    **dict.fromkeys(("minimum", "fmin"), minimum),
    "max": _of_two(maximum),
    "min": _of_two(minimum),
    "scaled_dot_product_attention": attention_around(torch.softmax),
}
