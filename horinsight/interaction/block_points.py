"""The blocks of a model, each as an operator at the point that images bring it to, with what is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.description import unwrapped
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.models.blocks import MixingBlock
from horinsight.operators.block_operators import OperatingPoint, block_operator, map_size, operating_points, widened
from horinsight.operators.declared import Declared, declared_modules
from horinsight.operators.positions import positions_of

ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros
FUNCTIONAL_ORDER = 3  # measured by default where softmax, GELU or a norm give every order: each costs twice the last


def block_points(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[MixingBlock],
    options: SpectrumOptions,
    *,
    among: Sequence[MixingBlock] | None = None,
) -> dict[str, OperatorPoint]:
    """Blocks where one forward pass brings them, by name, all of them checked before the first is measured.

    Args:
        model: the network.
        images: (B, 3, H, W).
        blocks: of the model.
        options: what is asked for. `max_order` None is `ORDERS_BEYOND` above the highest declared order.
        among: the blocks whose declared orders count; `blocks` when None.

    Raises:
        ValueError: a map with too few positions, or a declared non-linearity that is nowhere.
    """
    size = image_size_of(images)
    operators = {block.name: block_operator(model, block, options.scope) for block in blocks}
    points = operating_points(model, images, {block: operators[block.name] for block in blocks})
    layouts = {name: of.layout for name, of in operators.items()}
    grids = {name: map_size(model, point.x, layouts[name], size) for name, point in points.items()}
    top = options.max_order
    if top is None:
        top = max((block.order for block in among or blocks), default=0) + ORDERS_BEYOND
    orders = {block.name: _highest(block, points[block.name], grids[block.name], top, options) for block in blocks}
    declared = _declared_somewhere(options.nonlinear, {name: point.operator for name, point in points.items()})
    found = {}
    for block in blocks:
        name, point = block.name, points[block.name]
        operator, x = widened(point.operator, point.x)
        positions = positions_of(x, layouts[name], grids[name] if x.ndim == 3 else None)
        asked = replace(options, max_order=orders[name], nonlinear=tuple(declared[name]))
        found[name] = OperatorPoint(name, unwrapped(operator), x, positions, asked, called=str(block))
    return found


def _highest(
    block: MixingBlock, point: OperatingPoint, grid: tuple[int, int], top: int, options: SpectrumOptions
) -> int:
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
