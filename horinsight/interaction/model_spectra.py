"""Interaction spectra of the blocks of a whole model, at what real images make of their inputs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation, image_size_of, run
from horinsight.interaction.further_inputs import as_function_of_first_tensor
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.interaction_effect import interaction_spectrum
from horinsight.interaction.module_copies import copied
from horinsight.interaction.positions import Layout
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import BlockSpectrumKeywords, Scope, SpectrumOptions
from horinsight.interaction.tangent import Declared, declared_modules
from horinsight.models.blocks import MixingBlock, check_calls, chosen_blocks, enclosing_block, token_layout
from horinsight.models.registry import model_provenance, picture_names
from horinsight.options import made
from horinsight.results import Provenance, ResultSet

ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros
FUNCTIONAL_ORDER = 3  # measured by default where softmax, GELU or a norm give every order: each costs twice the last


@dataclass(frozen=True, eq=False)
class _Operator:
    """What of a block is differentiated, and how its input is had: the input or the output of a watched module."""

    module: nn.Module
    watched: nn.Module
    layout: Layout | None
    at_output: bool = False


class _ShiftedWindowAttention(nn.Module):
    """Swin's mixer on the whole map (B, H, W, C): shift, windows, attention with its mask, and back."""

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block._attn(x)
        return mixed


def _operator_of(model: nn.Module, block: MixingBlock, scope: Scope) -> _Operator:
    outer: Any = enclosing_block(model, block)
    if block.mixer == "window_attention":
        if not isinstance(outer, SwinTransformerBlock):
            raise ValueError(f"{block}: only window attention inside timm's SwinTransformerBlock is known.")
        if scope == "block":
            return _Operator(outer, outer, "channels_last")
        return _Operator(_ShiftedWindowAttention(outer), outer.norm1, "channels_last", at_output=True)
    if scope == "block":
        return _Operator(outer, outer, None)
    layout: Layout | None = "channels_first" if block.mixer == "token_mlp" else None
    return _Operator(block.module, block.module, layout)


@dataclass(frozen=True, eq=False)
class _Point:
    """Where a block is differentiated.

    Attributes:
        operator: the mixer as a function of x, its further inputs held as they were.
        x: what enters it.
        layout: of x; by the number of dimensions when None.
    """

    operator: nn.Module
    x: Tensor
    layout: Layout | None


def _point_of(block: MixingBlock, of: _Operator) -> Callable[[nn.Module, Call], _Point | None]:
    """What to keep of the calls of a watched module: the point of the block's own one."""

    def kept(_: nn.Module, call: Call) -> _Point | None:
        if call.number != block.call:
            return None
        if of.at_output:
            return _Point(of.module, call.output.detach().clone(), of.layout)
        x = call.input
        try:
            operator = as_function_of_first_tensor(of.module, call.inputs, call.kwargs)
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        return _Point(operator, x.detach().clone(), of.layout)  # the network may go on to write into it

    return kept


def model_interaction_spectra(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    options: SpectrumOptions | None = None,
    finished: Mapping[str, InteractionSpectrum] | None = None,
    provenance: Provenance | None = None,
    on_block: Callable[[MixingBlock, InteractionSpectrum], None] | None = None,
    **given: Unpack[BlockSpectrumKeywords],
) -> ResultSet[InteractionSpectrum]:
    """Interaction effects and orders of each spatial-mixing block of a model, measured on images.

    One forward pass tells what enters each block; each block's mixer (without the norm before it and the layer scale
    after it), or the whole residual block around it, is then differentiated at that point, see `interaction_spectrum`.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared as the model expects them.
        blocks: indices of the blocks (from 1); all when None.
        options: what is asked for; the defaults when None. `max_order` None is two above the highest declared order, or
            as many neighbours as the block's map has; at most 3 for functional effects that do not end (all but those
            of a gnConv without norms). A declared non-linearity may be in some of the blocks only.
        finished: spectra of blocks that need not be measured again, by name, as from an interrupted run.
        provenance: of the result; made of the model and the images when None.
        on_block: called after each block that was measured, for progress and to keep what is finished.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`; and `model_name` and
            `image_names` for a provenance that is made here.

    Returns:
        Block name → spectrum, in the order of the network.

    Raises:
        TypeError: an argument that is no option.
        ValueError: no such block, a map with too few positions for `max_order`, an order that cannot be certified (see
            `interaction_spectrum`), or images that do not fit.

    Example:
        >>> from horinsight.models.registry import create_model
        >>> images = torch.randn(1, 3, 96, 96)
        >>> spectra = model_interaction_spectra(create_model("hornet_test_iso"), images, num_tuples=2)
        >>> {name: spectrum.location_order for name, spectrum in spectra.items()}
        {'blocks.0.gnconv': 3, 'blocks.1.gnconv': 3, 'blocks.2.gnconv': 3}
    """
    model_name, image_names = given.pop("model_name", None), given.pop("image_names", None)
    options = made(SpectrumOptions, options, given, caller="model_interaction_spectra")
    size = image_size_of(images)
    chosen = chosen_blocks(model, blocks, image_size=size)
    if provenance is None:
        names = picture_names(images) if image_names is None else image_names
        provenance = model_provenance(model, model_name=model_name, image_names=names, seed=options.seed)

    spectra = {block.name: finished[block.name] for block in chosen if finished and block.name in finished}
    waiting = [block for block in chosen if block.name not in spectra]
    points = _points(model, images, waiting, options.scope)
    grids = {block.name: _grid(model, points[block.name], size) for block in waiting}
    top = max(block.order for block in chosen) + ORDERS_BEYOND if options.max_order is None else options.max_order
    # all of them before the first is measured
    orders = {block.name: _highest(block, points[block.name], grids[block.name], top, options) for block in waiting}
    declared = _declared_somewhere(options.nonlinear, {name: point.operator for name, point in points.items()})
    for block in waiting:
        asked = replace(options, max_order=orders[block.name], nonlinear=tuple(declared[block.name]))
        spectrum = _block_spectrum(block, points.pop(block.name), grids[block.name], asked)
        spectra[block.name] = replace(spectrum, provenance=provenance)
        if on_block is not None:
            on_block(block, spectra[block.name])
    return ResultSet({block.name: spectra[block.name] for block in chosen})


def _points(model: nn.Module, images: Tensor, blocks: Sequence[MixingBlock], scope: Scope) -> dict[str, _Point]:
    """Where each block is differentiated, by one forward pass."""
    with ExitStack() as stack:
        precise = torch.autocast(images.device.type, enabled=False)
        for context in (evaluation(model), torch.no_grad(), precise):
            stack.enter_context(context)
        calls = []
        for block in blocks:
            of = _operator_of(model, block, scope)
            calls.append(stack.enter_context(capture({"": of.watched}, keep=_point_of(block, of)))[""])
        run(model, images)
    check_calls(blocks, [len(points) for points in calls])
    return {block.name: points[block.call - 1] for block, points in zip(blocks, calls, strict=True)}


def _highest(block: MixingBlock, point: _Point, grid: tuple[int, int], top: int, options: SpectrumOptions) -> int:
    """The highest order that is measured of a block.

    Raises:
        ValueError: its map has too few positions.
    """
    rows, columns = grid
    if rows * columns == 1:
        raise ValueError(
            f"{block} works on a map of 1x1, where no position has a neighbour: use a larger image, or leave this "
            "block out (--blocks)."
        )
    if options.max_order is not None and options.max_order >= rows * columns:
        raise ValueError(
            f"{block}: a chain of order {top} needs {top + 1} distinct positions, got a map of {rows}x{columns}: use a "
            "larger image, a lower max_order (--max-order), or leave this block out."
        )
    highest = min(top, rows * columns - 1)
    endless = not options.explicit and options.max_order is None
    if endless and closed_form_of(point.operator, point.x, explicit=False) is None:
        return min(highest, FUNCTIONAL_ORDER)
    return highest


def _block_spectrum(
    block: MixingBlock, point: _Point, grid: tuple[int, int], options: SpectrumOptions
) -> InteractionSpectrum:
    operator, x = _widened(point.operator, point.x)
    tokens = grid if x.ndim == 3 else None
    alone = replace(options, scope="mixer")  # the operator is what the scope says
    try:
        spectrum = interaction_spectrum(operator, x, options=alone, layout=point.layout, grid=tokens)
    except ValueError as error:
        raise ValueError(f"{block}: {error}") from error
    convention = {**spectrum.convention, "scope": options.scope}
    return replace(spectrum, convention=convention, options=options.recorded())


def _grid(model: nn.Module, point: _Point, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the map that a block's input forms; (tokens, 1) where they cannot be told."""
    x = point.x
    if x.ndim == 4:
        rows, columns = x.shape[1:3] if point.layout == "channels_last" else x.shape[2:]
        return int(rows), int(columns)
    tokens = int(x.shape[2] if point.layout == "channels_first" else x.shape[1])
    layout = token_layout(model, tokens, image_size)
    return layout[1] if layout else (tokens, 1)


def _declared_somewhere(nonlinear: Sequence[Declared], operators: Mapping[str, nn.Module]) -> dict[str, list[Declared]]:
    """Which of the declared modules each operator holds.

    Raises:
        ValueError: one is in none of them.
    """
    held: dict[str, list[Declared]] = {name: [] for name in operators}
    for what in nonlinear:
        for name, operator in operators.items():
            try:
                declared_modules(operator, [what])
            except ValueError as error:
                problem = error
            else:
                held[name].append(what)
        if not any(what in found for found in held.values()):
            raise problem
    return held


def _widened(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The operator and its input in float32 at least; a copy where the model is in half precision."""
    dtypes = {parameter.dtype for parameter in module.parameters()} | {x.dtype}
    if dtypes <= {torch.float32} or dtypes <= {torch.float64}:
        return module, x
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    return copied(module, module.modules()).to(wide), x.to(wide)
