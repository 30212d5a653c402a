"""Fused attention, opened up in this thread: its kernels have no second derivative, products and a softmax have all."""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def open_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    softmax: Callable[..., Tensor] = torch.softmax,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v, as `F.scaled_dot_product_attention` has it: two products around a softmax.

    Args:
        query: (..., N, d).
        key: (..., M, d).
        value: (..., M, e).
        attn_mask: (..., N, M), True where a query may look, or what is added to its scores.
        dropout_p: probability of dropout.
        is_causal: whether query n looks at keys up to n only.
        scale: 1 / sqrt(d) when None.
        enable_gqa: whether several heads of queries share a head of keys.
        softmax: called as `softmax(scores, dim=-1)`.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64)
        >>> torch.allclose(open_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
        True
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if allowed else scores + attn_mask
    return F.dropout(softmax(scores, dim=-1), dropout_p) @ value


def undispatched(func: FunctionType) -> Callable[..., Any]:
    """A function of torch.nn.functional without its first lines, which would hand the call to a mode again."""

    def never(*_: Any) -> bool:
        return False

    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    copy = FunctionType(
        func.__code__,
        {**func.__globals__, **dict.fromkeys(checks, never)},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


class OpenAttention(TorchFunctionMode):
    """Inside the context this thread's fused attention, also that of torch's MultiheadAttention, is `open_attention`.

    torch's own switch for the kernels (`torch.nn.attention.sdpa_kernel`) is one for all threads.

    Example:
        >>> q = torch.randn(1, 1, 3, 2, requires_grad=True)
        >>> with OpenAttention():
        ...     y = F.scaled_dot_product_attention(q, q, q)
        >>> (first,) = torch.autograd.grad(y.sum(), q, create_graph=True)
        >>> torch.autograd.grad(first.square().sum(), q)[0].shape
        torch.Size([1, 1, 3, 2])
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return open_attention(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            with self:  # torch turns the mode off while it is in here; what this function calls is to be seen
                return undispatched(F.multi_head_attention_forward)(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
