"""Mixing weights of mixers of any class, by running them once more on what they were called with."""

import torch
from torch import nn

from horinsight.capture import Call
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall
from horinsight.mixing.factored_weights import ConvolutionWeights
from horinsight.mixing.held_weights import held_weights_of_call
from horinsight.mixing.seen_attention import attention_of_call
from horinsight.mixing.weights import MAX_RECONSTRUCTION_ERROR, MixingWeights, full_precision, not_reproduced

MAX_ERROR_IN_FULL = 1e-3  # float32 stays below 1e-5 but where features are 100 times smaller than what they are made of


def weights_of_call(block: MixingBlock, call: Call, batch: int) -> MixingWeights:
    """Mixing weights of a mixer of any class, by what it computes.

    Args:
        block: of a network that is lent in eval mode.
        call: its captured call.
        batch: how many images there are.

    Raises:
        ValueError: it has none; says why, and names the block.
    """
    assert block.found is not None, "of a block that was found in a network"
    try:
        return reproducing_weights(block.module, call, (block.found.here, block.found.seen), batch)
    except ValueError as error:
        raise ValueError(f"{block}: {error}") from error


def reproducing_weights(
    module: nn.Module, call: Call, seen: tuple[SeenCall, tuple[str, ...]], batch: int
) -> MixingWeights:
    """Weights that were checked on the module's own output.

    Args:
        module: a mixer that is lent in eval mode.
        call: its captured call.
        seen: what was seen of that call on one image, and all ways in which positions met in it.
        batch: how many images there are.

    Raises:
        ValueError: it has none.
    """
    with full_precision(call.input):
        weights = _general_weights(module, call, seen, batch)
        if not weights.reconstruction_error < _most(call):
            raise ValueError(not_reproduced(weights.reconstruction_error))
        return weights


def _most(call: Call) -> float:
    """The largest error that rounding explains: what is affine but for a small part is not affine."""
    dtype = next((x.dtype for x in tensors_in(call.output) if x.is_floating_point()), torch.float32)
    rounded = torch.finfo(dtype).bits < 32 or torch.is_autocast_enabled(call.input.device.type)
    return MAX_RECONSTRUCTION_ERROR if rounded else MAX_ERROR_IN_FULL


def _general_weights(
    module: nn.Module, call: Call, seen: tuple[SeenCall, tuple[str, ...]], batch: int
) -> MixingWeights:
    """The matrix of an attention where there is one, else what is left with the gates held."""
    here, ways = seen
    if isinstance(module, nn.Conv2d) and _keeps_its_map(module, call):
        return _convolution_weights(module, call)
    if {"attention", "window_attention"} & set(ways):
        try:
            return attention_of_call(module, call, here, batch)
        except ValueError:
            pass
    return held_weights_of_call(module, call, here, batch)


def _convolution_weights(conv: nn.Conv2d, call: Call) -> ConvolutionWeights:
    """Of a convolution with an odd kernel and zeros around the map, which keeps it."""
    values, mixed, weight = (
        x.detach().to(torch.promote_types(x.dtype, torch.float32)) for x in (call.input, call.output, conv.weight)
    )
    bias = torch.zeros(len(weight)).to(mixed) if conv.bias is None else conv.bias.detach().to(mixed)
    return ConvolutionWeights(
        height=mixed.shape[2],
        width=mixed.shape[3],
        values=values,
        offset=bias[:, None, None].expand_as(mixed),
        mixed=mixed,
        gate=mixed.new_ones(1, 1, 1, 1).expand_as(mixed),
        kernel=weight.square().sum(1).sqrt().flatten(1),
        kernel_size=(weight.shape[2], weight.shape[3]),
        dilation=(conv.dilation[0], conv.dilation[1]),
        weight=weight,
        groups=conv.groups,
    )


def _keeps_its_map(module: nn.Module, call: Call) -> bool:
    """Whether a module is a convolution with an odd kernel between zeros that keeps the map."""
    if type(module) is not nn.Conv2d or not module.weight.is_floating_point():
        return False
    odd = all(size % 2 for size in module.kernel_size)
    whole = call.input.ndim == 4 and call.input.shape[2:] == call.output.shape[2:] and module.stride == (1, 1)
    return odd and whole and module.padding_mode == "zeros"  # of that size with an odd kernel: padded evenly
