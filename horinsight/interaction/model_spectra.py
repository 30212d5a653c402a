"""Interaction spectra of the blocks of a whole model, at what real images make of their inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, Unpack

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.interaction_effect import interaction_spectrum
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import BlockSpectrumKeywords, SpectrumOptions
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.operators.block_operators import OperatingPoint, measured_calls, operating_points, widened
from horinsight.operators.declared import Declared, declared_modules
from horinsight.options import made
from horinsight.results import Provenance, ResultSet

OPEN_ORDER = 2  # taken for that of a mixer whose design order is open
ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros
FUNCTIONAL_ORDER = 3  # measured by default where softmax, GELU or a norm give every order: each costs twice the last

M = TypeVar("M")


def model_interaction_spectra(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    options: SpectrumOptions | None = None,
    finished: Mapping[str, InteractionSpectrum] | None = None,
    provenance: Provenance | None = None,
    on_block: Callable[[MixingBlock, InteractionSpectrum], None] | None = None,
    on_refusal: Callable[[MixingBlock, ValueError], None] | None = None,
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
        on_refusal: called with each block that cannot be measured, and why; the others are measured. Raised when None.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`; and `model_name` and
            `image_names` for a provenance that is made here.

    Returns:
        Block name → spectrum, in the order of the network; without those that were refused.

    Raises:
        TypeError: an argument that is no option.
        ValueError: no such block, a map with too few positions for `max_order`, an order that cannot be certified (see
            `interaction_spectrum`), or images that do not fit.

    Example:
        >>> import torch
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
    refused = _Refusals(on_refusal)
    measured = refused.left_of(waiting, lambda block: measured_calls([block], options.scope)[block])
    points = operating_points(model, images, measured, on_refusal=on_refusal)
    top = _top(chosen) if options.max_order is None else options.max_order
    # all of them before the first is measured
    with_points = [block for block in waiting if block.name in points]
    orders = refused.left_of(with_points, lambda block: _highest(block, points[block.name], top, options))
    declared = _declared_somewhere(options.nonlinear, {name: point.operator for name, point in points.items()})

    def spectrum_of(block: MixingBlock) -> InteractionSpectrum:
        asked = replace(options, max_order=orders[block], nonlinear=tuple(declared[block.name]))
        return replace(_block_spectrum(block, points.pop(block.name), asked), provenance=provenance)

    for block in orders:
        for spectrum in refused.left_of([block], spectrum_of).values():
            spectra[block.name] = spectrum
            if on_block is not None:
                on_block(block, spectrum)
    return ResultSet({block.name: spectra[block.name] for block in chosen if block.name in spectra})


@dataclass(frozen=True)
class _Refusals:
    """What to do with blocks that cannot be measured."""

    on_refusal: Callable[[MixingBlock, ValueError], None] | None

    def left_of(self, blocks: Sequence[MixingBlock], made: Callable[[MixingBlock], M]) -> dict[MixingBlock, M]:
        """What is made of the blocks that can be measured."""
        found: dict[MixingBlock, M] = {}
        for block in blocks:
            try:
                found[block] = made(block)
            except ValueError as error:
                if self.on_refusal is None:
                    raise
                self.on_refusal(block, error)
        return found


def _top(blocks: Sequence[MixingBlock]) -> int:
    """The highest order that is measured of some blocks when nobody says: two above the highest declared one."""
    return max(OPEN_ORDER if block.order is None else block.order for block in blocks) + ORDERS_BEYOND


def _highest(block: MixingBlock, point: OperatingPoint, top: int, options: SpectrumOptions) -> int:
    """The highest order that is measured of a block.

    Raises:
        ValueError: its map has too few positions.
    """
    rows, columns = point.map_size
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


def _block_spectrum(block: MixingBlock, point: OperatingPoint, options: SpectrumOptions) -> InteractionSpectrum:
    operator, x = widened(point.operator, point.x)
    reading = point.reading
    alone = replace(options, scope="mixer")  # the operator is what the scope says
    try:
        spectrum = interaction_spectrum(
            operator, x, options=alone, layout=reading.layout, grid=reading.grid, output_grid=reading.output_grid
        )
    except ValueError as error:
        raise ValueError(f"{block}: {error}") from error
    convention = {**spectrum.convention, "scope": options.scope}
    return replace(spectrum, convention=convention, options=options.recorded())


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
