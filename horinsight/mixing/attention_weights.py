"""Attention through the same door (HorNet Eq. 3.7): timm's ViT/DeiT attention, and Swin's windows on the whole map."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention, window_partition
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight.capture import Call, wrapped_forward
from horinsight.mixing.matrix_weights import AttentionWeights, WindowWeights


@contextmanager
def unfused_attention(model: nn.Module) -> Iterator[None]:
    """Inside the context timm's attention modules build their matrices, in this thread, before their fused kernel runs.

    What they put out, and what enters their projection last, is as they compute it without us.

    Example:
        >>> import timm
        >>> from horinsight.capture import capture
        >>> attention = timm.create_model("test_vit").blocks[0].attn
        >>> with unfused_attention(attention), capture({"matrix": attention.attn_drop}) as calls:
        ...     _ = attention(torch.zeros(1, 4, 64))
        >>> calls["matrix"][0].input.shape
        torch.Size([1, 2, 4, 4])
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Attention | WindowAttention):
                stack.enter_context(wrapped_forward(module, partial(_also_unfused, module)))
        yield


def _also_unfused(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass, after that of a twin with the same parts: other threads read the module's own flag."""
    if not getattr(module, "fused_attn", False):
        return forward
    twin: Any = copy.copy(module)
    twin.__dict__.pop("forward", None)
    twin.fused_attn = False

    def both(*args: Any, **kwargs: Any) -> Any:
        twin.forward(*args, **kwargs)
        return forward(*args, **kwargs)

    return both


def attention_watched(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of an attention module whose calls are read, by name."""
    return {"qkv": module.qkv, "attn_drop": module.attn_drop, "proj": module.proj}  # type: ignore[dict-item]


def _heads(module: nn.Module, calls: Mapping[str, Call]) -> tuple[Tensor, Tensor, Tensor]:
    """Attention (B, heads, N, N), values (B, heads, N, d), and the tokens that enter the projection (B, N, heads·d)."""
    attention, qkv, tokens = (
        tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        for tensor in (calls["attn_drop"].input, calls["qkv"].output, calls["proj"].input)
    )
    B, heads, N, _ = attention.shape
    values = qkv.reshape(B, N, 3, heads, -1)[:, :, 2].transpose(1, 2)
    return attention, values, tokens


def attention_weights(
    module: Attention, calls: Mapping[str, Call], *, map_size: tuple[int, int], num_prefix_tokens: int
) -> AttentionWeights:
    """Mixing weights of global self-attention.

    Args:
        module: timm's `Attention`.
        calls: the calls of `attention_watched(module)`, made inside `unfused_attention`.
        map_size: rows and columns of the patch tokens.
        num_prefix_tokens: class and register tokens, which come first.

    Raises:
        ValueError: the module does more to the mixed values than the equation (a norm or a gate).
    """
    if getattr(module, "gate", None) is not None or not isinstance(getattr(module, "norm", nn.Identity()), nn.Identity):
        raise ValueError("Mixing weights of attention are defined without a norm or a gate before the projection.")
    attention, values, tokens = _heads(module, calls)
    H, W = map_size
    if attention.shape[-1] != num_prefix_tokens + H * W:
        raise ValueError(
            f"Attention over {attention.shape[-1]} tokens does not fit a {H}x{W} map with {num_prefix_tokens} prefix "
            "tokens."
        )
    return AttentionWeights(
        height=H,
        width=W,
        values=values,
        offset=torch.zeros_like(tokens),
        mixed=tokens,
        attention=attention,
        num_prefix_tokens=num_prefix_tokens,
    )


def window_weights(
    block: SwinTransformerBlock, calls: Mapping[str, Call], *, map_size: tuple[int, int]
) -> WindowWeights:
    """Mixing weights of Swin's window attention, with its shift, mask and padding, on the whole map.

    Args:
        block: the block around the attention: it knows the shift.
        calls: the calls of `attention_watched(block.attn)`.
        map_size: rows and columns of the map.
    """
    module: WindowAttention = block.attn
    H, W = map_size
    cells = _window_cells(block, H, W)
    attention, values, tokens = _heads(module, calls)
    num_windows = len(cells)
    B = len(attention) // num_windows
    attention, values, tokens = (part.unflatten(0, (B, num_windows)) for part in (attention, values, tokens))
    inside = cells >= 0

    def on_map(windows: Tensor) -> Tensor:
        whole = windows.new_zeros(B, H * W, windows.shape[-1])
        whole[:, cells[inside]] = windows[:, inside]
        return whole

    padding = ~inside[None, :, None, None, :]  # what comes from padded places is not on the map: it goes to b
    offset = on_map(((attention * padding) @ values).permute(0, 1, 3, 2, 4).flatten(3))
    return WindowWeights(
        height=H,
        width=W,
        values=values * inside[None, :, None, :, None],
        offset=offset,
        mixed=on_map(tokens),
        attention=attention,
        cells=cells,
        masked=_masked(block, H, W),
    )


def _masked(block: SwinTransformerBlock, H: int, W: int) -> Tensor | None:
    """(windows, A, A): the pairs that the block masks, by its own mask, which knows the padded map only."""
    mask = block.attn_mask
    if getattr(block, "dynamic_mask", False):
        rows, columns = block.window_size
        mask = block.get_attn_mask(torch.empty(1, H + -H % rows, W + -W % columns, 1))
    return None if mask is None else mask.cpu() != 0


def _window_cells(block: SwinTransformerBlock, H: int, W: int) -> Tensor:
    """(windows, A): the cell of the map at each place of each window, -1 for padding; the block's steps on indices."""
    rows, columns = block.window_size
    index = torch.arange(H * W).reshape(1, H, W, 1)
    index = index.roll((-block.shift_size[0], -block.shift_size[1]), dims=(1, 2))
    index = F.pad(index, (0, 0, 0, -W % columns, 0, -H % rows), value=-1)
    cells: Tensor = window_partition(index, block.window_size).reshape(-1, rows * columns)
    return cells
