"""Weights that are read while a network runs: of gnConvs, plain depthwise convolutions, timm's ViT and Swin."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight.capture import Call, capture
from horinsight.mixers.blocks import MixingBlock, enclosing_block
from horinsight.mixing.attention_weights import attention_watched, attention_weights, window_weights
from horinsight.mixing.gnconv_weights import depthwise_weights, gnconv_unread, gnconv_watched, gnconv_weights
from horinsight.mixing.weights import MixingWeights
from horinsight.models.depthwise_kinds import DepthwiseConv
from horinsight.models.gnconv_parts import GnConvParts
from horinsight.operators.map_operator import plain_layout

Extract = Callable[[Call, dict[str, Call]], MixingWeights]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How the weights of a mixer are read while its network runs.

    Attributes:
        trigger: after the call of which module.
        watched: its parts whose calls are read then.
        extract: from the trigger's call and those of the parts to the weights.
        unread: of which parts nobody reads what enters.
        reads_input: whether the numbers that enter the trigger are read.
    """

    trigger: nn.Module
    watched: dict[str, nn.Module]
    extract: Extract
    unread: frozenset[str] = frozenset()
    reads_input: bool = False

    def parts_captured(self) -> AbstractContextManager[dict[str, list[Any]]]:
        """Captures the parts."""
        return capture(self.watched, unread=self.unread)

    def mixer_captured(
        self, name: str, finish: Callable[[nn.Module, Call], None]
    ) -> AbstractContextManager[dict[str, list[Any]]]:
        """Captures the trigger under a name; what is to be done after each of its calls is done then."""
        return capture({name: self.trigger}, keep=finish, unread=() if self.reads_input else (name,))


def has_recipe(model: nn.Module, block: MixingBlock) -> bool:
    """Whether the weights of a mixer are read while its network runs: gnConv, ViT and Swin, plain convolutions."""
    module, outer = block.module, _outer(model, block)
    if isinstance(module, nn.Conv2d):
        return DepthwiseConv.of(module) is not None
    lies = None if block.found is None else block.found.input
    whole_map = lies is None or (lies.layout == "tokens" and plain_layout(lies) is not None)
    swin = isinstance(outer, SwinTransformerBlock)
    return GnConvParts.of(module) is not None or swin or (isinstance(module, Attention) and whole_map)


def is_read_while_it_runs(module: nn.Module) -> bool:
    """Whether `recipe_of` knows a mixer that is in no network."""
    plain = isinstance(module, nn.Conv2d) and DepthwiseConv.of(module) is not None
    return plain or GnConvParts.of(module) is not None or isinstance(module, Attention | SwinTransformerBlock)


def recipe_of(
    outer: nn.Module, module: nn.Module, step: int | None, tokens: tuple[int, tuple[int, int]] | None
) -> Recipe:
    """When to extract, what to watch until then, and how.

    Args:
        outer: the block around Swin's attention, which knows the shift; the mixer itself for the others.
        module: the mixer.
        step: of gnConvs.
        tokens: of attention: how many come before the map, and its size; a square map alone when None.
    """
    parts = GnConvParts.of(module)
    if parts is not None:
        watched, unread = gnconv_watched(parts, step=step), gnconv_unread(parts, step=step)
        return Recipe(module, watched, lambda call, calls: gnconv_weights(parts, calls, step=step), unread)
    check_step(step, module)
    if isinstance(module, nn.Conv2d):
        conv = DepthwiseConv.of(module)
        if conv is None:
            raise ValueError(
                "Mixing weights need a depthwise convolution that keeps the map, with an odd kernel and zeros around "
                f"it, got {module}."
            )
        return Recipe(module, {}, lambda call, calls: _conv_weights(conv, call), reads_input=True)
    if isinstance(outer, SwinTransformerBlock):

        def windows(call: Call, calls: dict[str, Call]) -> MixingWeights:
            return window_weights(outer, calls, map_size=tuple(call.input.shape[1:3]))  # type: ignore[arg-type]

        return Recipe(outer, attention_watched(outer.attn), windows, frozenset({"qkv"}))
    if isinstance(module, Attention):

        def whole(call: Call, calls: dict[str, Call]) -> MixingWeights:
            prefix, size = tokens or (0, (isqrt(call.input.shape[1]),) * 2)  # a map whose cells are the tokens
            return attention_weights(module, calls, map_size=size, num_prefix_tokens=prefix)

        return Recipe(module, attention_watched(module), whole, frozenset({"qkv"}))
    raise ValueError(
        f"No mixing weights are defined for {type(module).__name__}: expected a gnConv (proj_in, dwconv, pws or projs, "
        "proj_out), a depthwise convolution, timm's Attention or a SwinTransformerBlock."
    )


def recipe_of_block(model: nn.Module, block: MixingBlock, step: int | None) -> Recipe:
    """`recipe_of` the mixer of a block."""
    return recipe_of(_outer(model, block), block.module, step, _tokens(block))


def _tokens(block: MixingBlock) -> tuple[int, tuple[int, int]] | None:
    """How many tokens come before the map of a block, and the size of that map; None where that is not known."""
    lies = None if block.found is None else block.found.input
    return None if lies is None or lies.size is None else (lies.prefix_tokens, lies.size)


def _outer(model: nn.Module, block: MixingBlock) -> nn.Module:
    """The module around the mixer, which knows how Swin shifts; the mixer itself for the others."""
    return enclosing_block(model, block) if block.mixer == "window_attention" else block.module


def check_step(step: int | None, module: nn.Module) -> None:
    """Refuse a recursion step of what has none.

    Raises:
        ValueError: there is one.
    """
    if step is not None:
        raise ValueError(f"step applies to gnConvs only, got step={step} for {type(module).__name__}.")


def _conv_weights(conv: DepthwiseConv, call: Call) -> MixingWeights:
    values, mixed = (
        x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True)  # the network may write into both
        for x in (call.input, call.output)
    )
    return depthwise_weights(conv, values, values.new_ones(1, 1, 1, 1), mixed)
