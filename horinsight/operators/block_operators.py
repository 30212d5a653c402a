"""The blocks of a network as operators, each at the point that images bring it to."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation, run
from horinsight.mixers.blocks import MixingBlock, check_calls, enclosing_block, token_layout
from horinsight.operators.further_inputs import as_function_of_first_tensor
from horinsight.operators.module_copies import copied
from horinsight.operators.positions import Layout
from horinsight.operators.scope import Scope


@dataclass(frozen=True, eq=False)
class BlockOperator:
    """What of a block is differentiated, and how its input is had: the input or the output of a watched module.

    Attributes:
        module: the operator.
        watched: the module.
        layout: of the operator's input; by the number of its dimensions when None.
        at_output: whether the input is what the watched module puts out.
    """

    module: nn.Module
    watched: nn.Module
    layout: Layout | None
    at_output: bool = False


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """Where a block is differentiated.

    Attributes:
        operator: the mixer as a function of x, its further inputs held as they were.
        x: what enters it.
    """

    operator: nn.Module
    x: Tensor


class _ShiftedWindowAttention(nn.Module):
    """Swin's mixer on the whole map (B, H, W, C): shift, windows, attention with its mask, and back."""

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block._attn(x)
        return mixed


def block_operator(model: nn.Module, block: MixingBlock, scope: Scope) -> BlockOperator:
    """The mixer of a block ("mixer"), or the residual block around it ("block").

    Raises:
        ValueError: window attention of a kind whose windows are not known.
    """
    outer: Any = enclosing_block(model, block)
    if block.mixer == "window_attention":
        if not isinstance(outer, SwinTransformerBlock):
            raise ValueError(f"{block}: only window attention inside timm's SwinTransformerBlock is known.")
        if scope == "block":
            return BlockOperator(outer, outer, "channels_last")
        return BlockOperator(_ShiftedWindowAttention(outer), outer.norm1, "channels_last", at_output=True)
    if scope == "block":
        return BlockOperator(outer, outer, None)
    layout: Layout | None = "channels_first" if block.mixer == "token_mlp" else None
    return BlockOperator(block.module, block.module, layout)


def operating_points(
    model: nn.Module, images: Tensor, operators: Mapping[MixingBlock, BlockOperator]
) -> dict[str, OperatingPoint]:
    """What enters each block, in one forward pass.

    Args:
        model: the network; lent in eval mode.
        images: (B, 3, H, W).
        operators: of the blocks that are asked for.

    Returns:
        Name of the block → its point.

    Raises:
        ValueError: images that do not fit, or a call that is not as it was on shapes alone.
    """
    with ExitStack() as stack:
        precise = torch.autocast(images.device.type, enabled=False)
        for context in (evaluation(model), torch.no_grad(), precise):
            stack.enter_context(context)
        made = []
        for block, of in operators.items():
            made.append(stack.enter_context(capture({"": of.watched}, keep=_point_of(block, of)))[""])
        run(model, images)
    check_calls(list(operators), [len(calls) for calls in made])
    return {block.name: calls[block.call - 1] for block, calls in zip(operators, made, strict=True)}


def _point_of(block: MixingBlock, of: BlockOperator) -> Callable[[nn.Module, Call], OperatingPoint | None]:
    """What to keep of the calls of a watched module: the point of the block's own one."""

    def kept(_: nn.Module, call: Call) -> OperatingPoint | None:
        if call.number != block.call:
            return None
        if of.at_output:
            return OperatingPoint(of.module, call.output.detach().clone())
        x = call.input
        try:
            operator = as_function_of_first_tensor(of.module, call.inputs, call.kwargs)
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        return OperatingPoint(operator, x.detach().clone())  # the network may go on to write into it

    return kept


def map_size(model: nn.Module, x: Tensor, layout: Layout | None, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the map that features form; (tokens, 1) where they cannot be told.

    Args:
        model: the network that they are of.
        x: (B, C, H, W), (B, H, W, C), (B, N, C) or (B, C, N).
        layout: which of them; by the number of dimensions when None.
        image_size: (H, W) in pixels.
    """
    if x.ndim == 4:
        rows, columns = x.shape[1:3] if layout == "channels_last" else x.shape[2:]
        return int(rows), int(columns)
    tokens = int(x.shape[2] if layout == "channels_first" else x.shape[1])
    found = token_layout(model, tokens, image_size)
    return found[1] if found else (tokens, 1)


def widened(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The operator and its input in float32 at least; a copy where the model is in half precision."""
    dtypes = {parameter.dtype for parameter in module.parameters()} | {x.dtype}
    if dtypes <= {torch.float32} or dtypes <= {torch.float64}:
        return module, x
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    return copied(module, module.modules()).to(wide), x.to(wide)
