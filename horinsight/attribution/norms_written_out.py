"""Norms and variances of torch, written out in products, sums and roots.

Called with the same arguments as torch's; what they call has rules of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Axes = int | Sequence[int] | None


def _standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """c / sqrt(mean c² + ε), c = x - mean x."""
    c = x - x.mean(dims, keepdim=True)
    return c * ((c * c).mean(dims, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _of_channels(values: Tensor | None, ndim: int) -> Tensor | None:
    return None if values is None else values.reshape(-1, *[1] * (ndim - 2))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Over the last axes."""
    return _affine(_standardised(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean x² + ε)."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(input * ((input * input).mean(dims, keepdim=True) + eps).rsqrt(), weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Over groups of channels and all positions."""
    normed = _standardised(input.reshape(len(input), num_groups, -1), (-1,), eps).reshape(input.shape)
    return _affine(normed, _of_channels(weight, input.ndim), _of_channels(bias, input.ndim))


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    *others: Any,  # momentum, ε, whether by cuDNN
) -> Any:
    """Over positions, a channel each; with kept statistics it is linear."""
    if not use_input_stats:
        return NotImplemented
    _, eps, _ = others
    return group_norm(input, input.shape[1], weight, bias, eps)


def _axes(x: Tensor, dim: Axes) -> tuple[int, ...]:
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        return tuple(range(x.ndim))
    return (dim,) if isinstance(dim, int) else tuple(dim)


def norm(
    input: Tensor, p: Any = "fro", dim: Axes = None, keepdim: bool = False, out: None = None, dtype: Any = None
) -> Any:
    """(Σ |x|^p)^(1/p)."""
    if input.is_complex() or not (p in (None, "fro") or isinstance(p, int | float)) or p == 0:
        return NotImplemented
    x = input if dtype is None else input.to(dtype)
    dims = _axes(x, dim)
    if p in (None, "fro", 2):
        return (x * x).sum(dims, keepdim).sqrt()
    if p == math.inf:
        return x.abs().amax(dims, keepdim)
    return x.abs().sum(dims, keepdim) if p == 1 else x.abs().pow(p).sum(dims, keepdim).pow(1 / p)


def vector_norm(x: Tensor, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """(Σ |x|^p)^(1/p)."""
    return norm(x, ord, dim, keepdim, dtype=dtype)


def linalg_norm(A: Tensor, ord: Any = None, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Of vectors, and Frobenius' of matrices."""
    matrices = ord not in (None, "fro") and len(_axes(A, dim)) > 1
    return NotImplemented if matrices else norm(A, ord, dim, keepdim, dtype=dtype)


def var(
    input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """Σ c² / (n - 1), c = x - mean x."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = _axes(input, dim)
    num = math.prod(input.shape[axis] for axis in dims)
    c = input - input.mean(dims, keepdim=True)
    return (c * c).sum(dims, keepdim) / max(0.0, num - (float(unbiased) if correction is None else correction))


def std(*args: Any, **kwargs: Any) -> Tensor:
    """The root of the variance."""
    return var(*args, **kwargs).sqrt()


def _with_mean(of: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def both(
        input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
    ) -> tuple[Tensor, Tensor]:
        deviation = of(input, dim, unbiased, keepdim, correction=correction)
        return deviation, input.mean(_axes(input, None if isinstance(dim, bool) else dim), keepdim)

    return both


NORMS_WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "norm": norm,
    "linalg_vector_norm": vector_norm,
    "linalg_norm": linalg_norm,
    "var": var,
    "std": std,
    "var_mean": _with_mean(var),
    "std_mean": _with_mean(std),
}
