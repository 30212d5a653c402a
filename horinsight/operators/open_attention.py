"""Fused attention, opened up in this thread: its kernels have no second derivative, products and a softmax have all."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from horinsight.torch_private import undispatched


def attention_around(softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """softmax(q kᵀ · scale + mask) v: two products around a softmax, called as `F.scaled_dot_product_attention` is.

    Args:
        softmax: called as `softmax(scores, dim=-1)`.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64)
        >>> torch.allclose(attention_around(torch.softmax)(q, k, v), F.scaled_dot_product_attention(q, k, v))
        True
    """

    def attention(
        query: Tensor,  # (..., N, d)
        key: Tensor,  # (..., M, d)
        value: Tensor,  # (..., M, e)
        attn_mask: Tensor | None = None,  # (..., N, M), True where a query may look, or what is added to its scores
        dropout_p: float = 0.0,
        is_causal: bool = False,  # query n looks at keys up to n only
        scale: float | None = None,  # 1 / sqrt(d)
        enable_gqa: bool = False,  # several heads of queries share a head of keys
    ) -> Tensor:
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

    return attention


class OpenAttention(TorchFunctionMode):
    """Inside the context fused attention of this thread, also in torch's MultiheadAttention, is products and a softmax.

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
            return attention_around(torch.softmax)(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            with self:  # torch turns the mode off while it is in here; what this function calls is to be seen
                return undispatched(F.multi_head_attention_forward)(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
