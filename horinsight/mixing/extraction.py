"""Mixing weights of one mixer, or of every block of a model in one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import isfinite, isqrt
from typing import Any, TypeVar, overload

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation, image_size_of, misfits_explained, run
from horinsight.description import unwrapped
from horinsight.mixers.blocks import MixingBlock, check_calls, chosen_blocks, enclosing_block
from horinsight.mixers.found import seen_alone
from horinsight.mixers.seen_calls import SeenCall
from horinsight.mixing.attention_weights import attention_watched, attention_weights, unfused_attention, window_weights
from horinsight.mixing.factored_weights import ConvolutionWeights
from horinsight.mixing.gnconv_weights import depthwise_weights, gnconv_watched, gnconv_weights
from horinsight.mixing.held_weights import held_weights_of_call
from horinsight.mixing.seen_attention import attention_of_call
from horinsight.mixing.weights import MixingWeights, full_precision
from horinsight.models.depthwise_kinds import DepthwiseConv
from horinsight.models.gnconv_parts import GnConvParts
from horinsight.operators.call_arguments import kept_call
from horinsight.operators.map_operator import plain_layout

MAX_RECONSTRUCTION_ERROR = 0.05  # bfloat16 forward passes stay below; another formula does not

_NOT_REPRODUCED = (
    "Mixing weights do not reproduce what the module computes (off by {error:.0e} of it): it is shaped like a known "
    "mixer but does something else, for instance an activation in between."
)

Kept = TypeVar("Kept")
OnRefusal = Callable[[MixingBlock, ValueError], None]
Extract = Callable[[Call, dict[str, Call]], MixingWeights]


def mixing_weights(module: nn.Module, x: Tensor, *, step: int | None = None) -> MixingWeights:
    """h_ij^c of one mixer at one input (HorNet Eq. 3.8): exact, factored, as cheap as a forward pass.

    Args:
        module: a gnConv (anything with `proj_in, dwconv, pws` or `projs, proj_out`), a `SwinTransformerBlock` (the
            block, because it knows the shift), or any other mixer, see `model_mixing_weights`. Lent in eval mode.
        x: its input: (B, C, H, W), or tokens (B, N, C) with N = H·W a square without prefix tokens; for the Swin block
            (B, H, W, C). What lies otherwise is measured in its network.
        step: recursion step k of a gnConv, from 0; the last, the paper's, when None.

    Returns:
        The weights with `reconstruction_error`, the identity Σ_j h v + b = p_n checked on this very input.

    Raises:
        ValueError: wrong shapes or numbers, no such step, or a mixer of another kind.
        TypeError: x is no tensor.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> _ = torch.manual_seed(0)
        >>> weights = mixing_weights(GnConv(8, order=3).double(), torch.randn(1, 8, 6, 6, dtype=torch.float64))
        >>> weights.at(2, 3).shape, weights.channel_mean().shape, weights.reconstruction_error < 1e-14
        (torch.Size([1, 8, 6, 6]), torch.Size([1, 36, 36]), True)

    Source: Rao et al. 2022 (arXiv 2207.14284), Eq. 3.7 and 3.8.
    """
    module = unwrapped(module)
    _check_input(module, x)
    if not _is_read_while_it_runs(module):
        return _alone(module, x, step)
    trigger, watched, extract = _recipe(module, module, step, None)
    found: list[MixingWeights] = []
    with evaluation(module), torch.no_grad(), unfused_attention(module), capture(watched) as calls:

        def finish(_: nn.Module, call: Call) -> None:
            found.append(_checked(extract, call, calls))

        with capture({"": trigger}, keep=finish), misfits_explained(module, x):
            module(x.clone())  # which a module may change in place
    return found[0]


@overload
def model_mixing_weights(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    keep: None = None,
    on_refusal: OnRefusal | None = None,
) -> dict[str, MixingWeights]: ...


@overload
def model_mixing_weights(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    keep: Callable[[MixingWeights], Kept],
    on_refusal: OnRefusal | None = None,
) -> dict[str, Kept]: ...


def model_mixing_weights(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    keep: Callable[[MixingWeights], Any] | None = None,
    on_refusal: OnRefusal | None = None,
) -> dict[str, Any]:
    """Mixing weights of the blocks of a model, all in one forward pass.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. Of gnConvs, plain convolutions, ViT and Swin the
            weights are read while it runs; of any other attention its scores, and of other mixers what is left of them
            with their gates held, by running the mixer again by itself, image by image.
        images: (B, 3, H, W), prepared as the model expects them.
        blocks: indices from 1; all when None.
        step: recursion step of gnConvs, from 0; the last when None.
        keep: what to keep of each block, e.g. `lambda weights: weights.channel_mean()`; applied as soon as the block
            has run, so that nothing else of it stays in memory. The factored weights themselves when None: about as
            large as the block's activations.
        on_refusal: called with each block that has no mixing weights, and why; raised when None.

    Returns:
        Block name → weights (or what `keep` made of them), in the order of the network; without those refused.

    Raises:
        ValueError: no such block, one without mixing weights, or images that do not fit.

    Example:
        >>> import timm
        >>> model = timm.create_model("hornet_test_iso")
        >>> weights = model_mixing_weights(model, torch.randn(1, 3, 96, 96), blocks=[1, 2])
        >>> {name: tuple(w.channel_mean().shape) for name, w in weights.items()}
        {'blocks.0.gnconv': (1, 36, 36), 'blocks.1.gnconv': (1, 36, 36)}
    """
    results: dict[str, Any] = {}
    size = image_size_of(images)
    chosen = chosen_blocks(model, blocks, image_size=size)
    with ExitStack() as stack:
        for context in (evaluation(model), torch.no_grad(), unfused_attention(model)):
            stack.enter_context(context)
        made = {}
        seen: dict[str, Call] = {}
        for path in dict.fromkeys(block.path for block in chosen):
            of_call = {block.call: block for block in chosen if block.path == path}
            block = next(iter(of_call.values()))
            if has_recipe(block, _outer(model, block)):
                trigger, watched, extract = _recipe(_outer(model, block), block.module, step, _tokens(block))
                calls = stack.enter_context(capture(watched))
                finish = _finisher(of_call, extract, calls, results, keep)
            else:
                check_step(step, block.module)
                trigger, finish = block.module, _keeper(of_call, seen)
            made[path] = stack.enter_context(capture({path: trigger}, keep=finish))[path]
        run(model, images)
        check_calls(chosen, [len(made[block.path]) for block in chosen])
        for block in chosen:  # which are run once more, by themselves
            if block.name not in seen:
                continue
            try:
                results[block.name] = _kept(weights_of_call(block, seen.pop(block.name), len(images)), keep)
            except ValueError as error:
                if on_refusal is None:
                    raise
                on_refusal(block, error)
    return {block.name: results[block.name] for block in chosen if block.name in results}


def _finisher(
    of_call: Mapping[int, MixingBlock],
    extract: Extract,
    calls: dict[str, list[Call]],
    results: dict[str, Any],
    keep: Callable[[MixingWeights], Any] | None,
) -> Callable[[nn.Module, Call], None]:
    """What to do after each call of a mixer: take the weights of those that are asked for, and forget the others."""

    def finish(_: nn.Module, call: Call) -> None:
        block = of_call.get(call.number)
        if block is None:
            for made in calls.values():
                made.clear()
            return
        try:
            weights = _checked(extract, call, calls)
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        results[block.name] = _kept(weights, keep)

    return finish


def _keeper(of_call: Mapping[int, MixingBlock], seen: dict[str, Call]) -> Callable[[nn.Module, Call], None]:
    """Keeps those calls of a mixer that are asked for."""

    def keep(_: nn.Module, call: Call) -> None:
        if call.number in of_call:
            seen[of_call[call.number].name] = kept_call(call)

    return keep


def _kept(weights: MixingWeights, keep: Callable[[MixingWeights], Any] | None) -> Any:
    with full_precision(weights.offset):
        return weights if keep is None else keep(weights)


def _checked(extract: Extract, call: Call, calls: dict[str, list[Call]]) -> MixingWeights:
    with full_precision(call.input):
        weights = extract(call, _last(calls))
        _check_identity(weights, least=torch.finfo(call.output.dtype).tiny)
    return weights


def _check_identity(weights: MixingWeights, *, least: float) -> None:
    """Σ_j h v + b = p at one position, always; `reconstruction_error` checks them all when it is read.

    Args:
        weights: of one mixer.
        least: below it the precision that the module computes in has no digits left.

    Raises:
        ValueError: the module computes something else than its shape promises, or its numbers are not finite.
    """
    found, expected = weights.at_middle()
    largest, error = torch.stack([expected.abs().amax(), (found - expected).abs().amax()]).tolist()
    if not isfinite(largest):
        raise ValueError("The features are NaN or infinite: are the weights whole, and in a wide enough precision?")
    if error > MAX_RECONSTRUCTION_ERROR * largest + least:
        raise ValueError(_NOT_REPRODUCED.format(error=error / max(largest, 1e-300)))


def _last(calls: dict[str, list[Call]]) -> dict[str, Call]:
    """The last call of each part; the records are emptied, so that nothing stays in memory."""
    idle = [name for name, made in calls.items() if not made]
    if idle:
        raise ValueError(f"The mixer does not call its {', '.join(idle)} as modules, so its weights cannot be read.")
    last = {name: made[-1] for name, made in calls.items()}
    for made in calls.values():
        made.clear()
    return last


def _outer(model: nn.Module, block: MixingBlock) -> nn.Module:
    """The module around the mixer, which knows how Swin shifts; the mixer itself for the others."""
    return enclosing_block(model, block) if block.mixer == "window_attention" else block.module


def has_recipe(block: MixingBlock, outer: nn.Module) -> bool:
    """Whether the weights of a mixer are read while its network runs: gnConv, ViT and Swin, plain convolutions."""
    module = block.module
    if isinstance(module, nn.Conv2d):
        return DepthwiseConv.of(module) is not None
    lies = None if block.found is None else block.found.input
    whole_map = lies is None or (lies.layout == "tokens" and plain_layout(lies) is not None)
    swin = isinstance(outer, SwinTransformerBlock)
    return GnConvParts.of(module) is not None or swin or (isinstance(module, Attention) and whole_map)


def _tokens(block: MixingBlock) -> tuple[int, tuple[int, int]] | None:
    """How many tokens come before the map of a block, and the size of that map; None where that is not known."""
    lies = None if block.found is None else block.found.input
    return None if lies is None or lies.size is None else (lies.prefix_tokens, lies.size)


def check_step(step: int | None, module: nn.Module) -> None:
    """Refuse a recursion step of what has none.

    Raises:
        ValueError: there is one.
    """
    if step is not None:
        raise ValueError(f"step applies to gnConvs only, got step={step} for {type(module).__name__}.")


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
        return _reproducing(block.module, call, (block.found.here, block.found.seen), batch)
    except ValueError as error:
        raise ValueError(f"{block}: {error}") from error


def _is_read_while_it_runs(module: nn.Module) -> bool:
    plain = isinstance(module, nn.Conv2d) and DepthwiseConv.of(module) is not None
    return plain or GnConvParts.of(module) is not None or isinstance(module, Attention | SwinTransformerBlock)


def _alone(module: nn.Module, x: Tensor, step: int | None) -> MixingWeights:
    """`weights_of_call` of a mixer that is in no network."""
    check_step(step, module)
    with evaluation(module), torch.no_grad():
        seen = seen_alone(module, x[:1])
        with capture({"": module}, keep=lambda _, call: kept_call(call)) as calls, misfits_explained(module, x):
            module(x.clone())
        return _reproducing(module, calls[""][0], seen, len(x))


def _reproducing(module: nn.Module, call: Call, seen: tuple[SeenCall, tuple[str, ...]], batch: int) -> MixingWeights:
    """Weights that were checked on the module's own output."""
    with full_precision(call.input):
        weights = _general_weights(module, call, seen, batch)
        if not weights.reconstruction_error < MAX_RECONSTRUCTION_ERROR:
            raise ValueError(_NOT_REPRODUCED.format(error=weights.reconstruction_error))
        return weights


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


def _recipe(
    outer: nn.Module, module: nn.Module, step: int | None, tokens: tuple[int, tuple[int, int]] | None
) -> tuple[nn.Module, dict[str, nn.Module], Extract]:
    """When to extract (after the call of which module), what to watch until then, and how.

    Args:
        outer: the block around Swin's attention, which knows the shift; the mixer itself for the others.
        module: the mixer.
        step: of gnConvs.
        tokens: of attention: how many come before the map, and its size; a square map alone when None.
    """
    parts = GnConvParts.of(module)
    if parts is not None:
        return module, gnconv_watched(parts, step=step), lambda call, calls: gnconv_weights(parts, calls, step=step)
    check_step(step, module)
    if isinstance(module, nn.Conv2d):
        conv = DepthwiseConv.of(module)
        if conv is None:
            raise ValueError(
                "Mixing weights need a depthwise convolution that keeps the map, with an odd kernel and zeros around "
                f"it, got {module}."
            )
        return module, {}, lambda call, calls: _conv_weights(conv, call)
    if isinstance(outer, SwinTransformerBlock):

        def windows(call: Call, calls: dict[str, Call]) -> MixingWeights:
            return window_weights(outer, calls, map_size=tuple(call.input.shape[1:3]))  # type: ignore[arg-type]

        return outer, attention_watched(outer.attn), windows
    if isinstance(module, Attention):

        def whole(call: Call, calls: dict[str, Call]) -> MixingWeights:
            prefix, size = tokens or (0, (isqrt(call.input.shape[1]),) * 2)  # a map whose cells are the tokens
            return attention_weights(module, calls, map_size=size, num_prefix_tokens=prefix)

        return module, attention_watched(module), whole
    raise ValueError(
        f"No mixing weights are defined for {type(module).__name__}: expected a gnConv (proj_in, dwconv, pws or projs, "
        "proj_out), a depthwise convolution, timm's Attention or a SwinTransformerBlock."
    )


def _conv_weights(conv: DepthwiseConv, call: Call) -> MixingWeights:
    values, mixed = (
        x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True)  # the network may write into both
        for x in (call.input, call.output)
    )
    return depthwise_weights(conv, values, values.new_ones(1, 1, 1, 1), mixed)


def _check_input(module: nn.Module, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"mixing_weights expects x as one tensor, got {type(x).__name__}.")
    parts = GnConvParts.of(module)
    channels = None if parts is None else getattr(parts.proj_in, "in_channels", None)
    if channels is not None and (x.ndim != 4 or x.shape[1] != channels):
        hint = ": add a batch dimension" if x.ndim == 3 and x.shape[0] == channels else ""
        raise ValueError(
            f"mixing_weights expects x of shape (B, {channels}, H, W) for this gnConv, got {tuple(x.shape)}{hint}."
        )
