"""Mixing weights of one mixer, or of every block of a model in one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import isfinite
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation, image_size_of, misfits_explained, run
from horinsight.description import unwrapped
from horinsight.mixers.blocks import MixingBlock, check_calls, chosen_blocks
from horinsight.mixers.found import seen_alone
from horinsight.mixing.attention_weights import unfused_attention
from horinsight.mixing.weights import MAX_RECONSTRUCTION_ERROR, MixingWeights, full_precision, not_reproduced
from horinsight.mixing.weights_by_rerun import reproducing_weights, weights_of_call
from horinsight.mixing.weights_in_passing import (
    Extract,
    check_step,
    has_recipe,
    is_read_while_it_runs,
    recipe_of,
    recipe_of_block,
)
from horinsight.models.gnconv_parts import GnConvParts
from horinsight.operators.call_arguments import kept_call

Kept = TypeVar("Kept")
OnRefusal = Callable[[MixingBlock, ValueError], None]


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
    if not is_read_while_it_runs(module):
        return _alone(module, x, step)
    recipe = recipe_of(module, module, step, None)
    found: list[MixingWeights] = []
    with evaluation(module), torch.no_grad(), unfused_attention(module), recipe.parts_captured() as calls:

        def finish(_: nn.Module, call: Call) -> None:
            found.append(_checked(recipe.extract, call, calls))

        with recipe.mixer_captured("", finish), misfits_explained(module, x):
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
    kept = None if keep is None else lambda _, weights: keep(weights)
    return kept_by_block(model, images, kept, blocks=blocks, step=step, on_refusal=on_refusal)


def kept_by_block(
    model: nn.Module,
    images: Tensor,
    keep: Callable[[MixingBlock, MixingWeights], Any] | None,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    on_refusal: OnRefusal | None = None,
) -> dict[str, Any]:
    """`model_mixing_weights` with a `keep` that is told the block, too."""
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
            if has_recipe(model, block):
                recipe = recipe_of_block(model, block, step)
                calls = stack.enter_context(recipe.parts_captured())
                finish = _finisher(of_call, recipe.extract, calls, results, keep)
                captured = recipe.mixer_captured(path, finish)
            else:
                check_step(step, block.module)
                captured = capture({path: block.module}, keep=_keeper(of_call, seen))
            made[path] = stack.enter_context(captured)[path]
        run(model, images)
        check_calls(chosen, [len(made[block.path]) for block in chosen])
        for block in chosen:  # which are run once more, by themselves
            if block.name not in seen:
                continue
            try:
                results[block.name] = _kept(block, weights_of_call(block, seen.pop(block.name), len(images)), keep)
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
    keep: Callable[[MixingBlock, MixingWeights], Any] | None,
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
        results[block.name] = _kept(block, weights, keep)

    return finish


def _keeper(of_call: Mapping[int, MixingBlock], seen: dict[str, Call]) -> Callable[[nn.Module, Call], None]:
    """Keeps those calls of a mixer that are asked for."""

    def keep(_: nn.Module, call: Call) -> None:
        if call.number in of_call:
            seen[of_call[call.number].name] = kept_call(call)

    return keep


def _kept(block: MixingBlock, weights: MixingWeights, keep: Callable[[MixingBlock, MixingWeights], Any] | None) -> Any:
    with full_precision(weights.offset):
        return weights if keep is None else keep(block, weights)


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
        raise ValueError(not_reproduced(error / max(largest, 1e-300)))


def _last(calls: dict[str, list[Call]]) -> dict[str, Call]:
    """The last call of each part; the records are emptied, so that nothing stays in memory."""
    idle = [name for name, made in calls.items() if not made]
    if idle:
        raise ValueError(f"The mixer does not call its {', '.join(idle)} as modules, so its weights cannot be read.")
    last = {name: made[-1] for name, made in calls.items()}
    for made in calls.values():
        made.clear()
    return last


def _alone(module: nn.Module, x: Tensor, step: int | None) -> MixingWeights:
    """`weights_of_call` of a mixer that is in no network."""
    check_step(step, module)
    with evaluation(module), torch.no_grad():
        seen = seen_alone(module, x[:1])
        with capture({"": module}, keep=lambda _, call: kept_call(call)) as calls, misfits_explained(module, x):
            module(x.clone())
        return reproducing_weights(module, calls[""][0], seen, len(x))


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
