"""Interaction spectra of the blocks of a whole model, at what real images make of their inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.interaction_effect import Method, interaction_spectrum
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.models.blocks import MixingBlock, chosen_blocks
from horinsight.models.registry import model_provenance, picture_names
from horinsight.operators.block_operators import Scope, block_operator, map_size, operating_points, widened
from horinsight.operators.tangent import Declared, declared_modules
from horinsight.results import Provenance, ResultSet

ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros
FUNCTIONAL_ORDER = 3  # measured by default where softmax, GELU or a norm give every order: each costs twice the last


def model_interaction_spectra(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    max_order: int | None = None,
    num_tuples: int = 32,
    explicit: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    method: Method = "auto",
    scope: Scope = "mixer",
    nonlinear: Sequence[Declared] = (),
    finished: Mapping[str, InteractionSpectrum] | None = None,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
    provenance: Provenance | None = None,
    on_block: Callable[[MixingBlock, InteractionSpectrum], None] | None = None,
) -> ResultSet[InteractionSpectrum]:
    """Interaction effects and orders of each spatial-mixing block of a model, measured on images.

    One forward pass tells what enters each block; each block's mixer (without the norm before it and the layer scale
    after it), or the whole residual block around it, is then differentiated at that point, see `interaction_spectrum`.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared as the model expects them.
        blocks: indices of the blocks (from 1); all when None.
        max_order: K; when None two above the highest declared order, or as many neighbours as the block's map has;
            at most 3 for functional effects that do not end (all but those of a gnConv without norms).
        num_tuples: chains drawn per image and block.
        explicit: tangents for the non-linearities, see `interaction_spectrum`.
        seed: of every draw, the same for each block.
        batch_size: chains differentiated together.
        method: "auto" uses the closed form where there is one, "nested" never.
        scope: "mixer", or "block" for the residual block with its norms, feed-forward part and layer scales.
        nonlinear: further modules that each count as one non-linearity; a block without them has none.
        finished: spectra of blocks that need not be measured again, by name, as from an interrupted run.
        model_name: for the provenance; the name under which timm built it when None.
        image_names: for the provenance; those that `image_batch` wrote down when None.
        provenance: all of it, instead of the two before.
        on_block: called after each block that was measured, for progress and to keep what is finished.

    Returns:
        Block name → spectrum, in the order of the network.

    Raises:
        ValueError: no such block, a map with too few positions for `max_order`, an order that cannot be certified (see
            `interaction_spectrum`), or images that do not fit.

    Example:
        >>> from horinsight.models.registry import create_model
        >>> images = torch.randn(1, 3, 96, 96)
        >>> spectra = model_interaction_spectra(create_model("hornet_test_iso"), images, num_tuples=2)
        >>> {name: spectrum.location_order for name, spectrum in spectra.items()}
        {'blocks.0.gnconv': 3, 'blocks.1.gnconv': 3, 'blocks.2.gnconv': 3}
    """
    if scope not in get_args(Scope):
        raise ValueError(f"scope expects mixer or block, got {scope!r}.")
    size = image_size_of(images)
    chosen = chosen_blocks(model, blocks, image_size=size)
    finished = finished or {}
    top = max(block.order for block in chosen) + ORDERS_BEYOND if max_order is None else max_order
    endless = not explicit and max_order is None
    if provenance is None:
        names = picture_names(images) if image_names is None else image_names
        provenance = model_provenance(model, model_name=model_name, image_names=names, seed=seed)

    operators = {block.name: block_operator(model, block, scope) for block in chosen}
    waiting = [block for block in chosen if block.name not in finished]
    points = operating_points(model, images, {block: operators[block.name] for block in waiting})
    grids = {block.name: map_size(model, points[block.name].x, operators[block.name].layout, size) for block in waiting}
    orders = {}
    for block in waiting:  # all of them before the first is measured
        rows, columns = grids[block.name]
        if rows * columns == 1:
            raise ValueError(
                f"{block} works on a map of 1x1, where no position has a neighbour: use a larger image, or leave this "
                "block out (--blocks)."
            )
        if max_order is not None and max_order >= rows * columns:
            raise ValueError(
                f"{block}: a chain of order {max_order} needs {max_order + 1} distinct positions, got a map of "
                f"{rows}x{columns}: use a larger image, a lower max_order (--max-order), or leave this block out."
            )
        orders[block.name] = min(top, rows * columns - 1)
        point = points[block.name]
        if endless and closed_form_of(point.operator, point.x, explicit=False) is None:
            orders[block.name] = min(orders[block.name], FUNCTIONAL_ORDER)
    declared = _declared_somewhere(nonlinear, {name: point.operator for name, point in points.items()})
    spectra = {name: finished[name] for name in operators if name in finished}
    for block in waiting:
        point = points.pop(block.name)
        operator, x = widened(point.operator, point.x)
        try:
            spectrum = interaction_spectrum(
                operator,
                x,
                max_order=orders[block.name],
                num_tuples=num_tuples,
                explicit=explicit,
                seed=seed,
                batch_size=batch_size,
                method=method,
                layout=operators[block.name].layout,
                grid=grids[block.name] if x.ndim == 3 else None,
                nonlinear=declared[block.name],
            )
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        spectra[block.name] = replace(
            spectrum, provenance=provenance, convention={**spectrum.convention, "scope": scope}
        )
        if on_block is not None:
            on_block(block, spectra[block.name])
    return ResultSet({name: spectra[name] for name in operators})


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
