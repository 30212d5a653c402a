"""The blocks of a model, each as an operator at the point that images bring it to, with what is asked of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from horinsight.description import unwrapped
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.mixers.blocks import MixingBlock
from horinsight.operators.block_operators import OperatingPoint, measured_calls, operating_points, widened
from horinsight.operators.declared import Declared, declared_modules
from horinsight.operators.positions import positions_of

OPEN_ORDER = 2  # taken for that of a mixer whose design order is open
ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros
FUNCTIONAL_ORDER = 3  # measured by default where softmax, GELU or a norm give every order: each costs twice the last

M = TypeVar("M")
OnRefusal = Callable[[MixingBlock, ValueError], None]


def block_points(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[MixingBlock],
    options: SpectrumOptions,
    *,
    among: Sequence[MixingBlock] | None = None,
    on_refusal: OnRefusal | None = None,
) -> dict[str, OperatorPoint]:
    """Blocks where one forward pass brings them, by name, all of them checked before the first is measured.

    Args:
        model: the network.
        images: (B, 3, H, W).
        blocks: of the model.
        options: what is asked for. `max_order` None is `ORDERS_BEYOND` above the highest declared order.
        among: the blocks whose declared orders count; `blocks` when None.
        on_refusal: called with each block that cannot be measured, and why; raised when None.

    Raises:
        ValueError: a map with too few positions, or a declared non-linearity that is nowhere.
    """
    measured = left_of(blocks, lambda block: measured_calls([block], options.scope)[block], on_refusal)
    points = operating_points(model, images, measured, on_refusal=on_refusal)
    top = options.max_order
    if top is None:
        orders_declared = [OPEN_ORDER if block.order is None else block.order for block in among or blocks]
        top = max(orders_declared, default=0) + ORDERS_BEYOND
    with_points = [block for block in blocks if block.name in points]
    orders = left_of(with_points, lambda block: _highest(block, points[block.name], top, options), on_refusal)
    declared = _declared_somewhere(options.nonlinear, {name: point.operator for name, point in points.items()})
    found = {}
    for block, order in orders.items():
        name, point = block.name, points[block.name]
        operator, x = widened(point.operator, point.x)
        positions = positions_of(x, point.reading.layout, point.reading.grid)
        asked = replace(options, max_order=order, nonlinear=tuple(declared[name]))
        output_grid = point.reading.output_grid
        found[name] = OperatorPoint(name, unwrapped(operator), x, positions, asked, str(block), output_grid)
    return found


def left_of(
    blocks: Iterable[MixingBlock], made: Callable[[MixingBlock], M], on_refusal: OnRefusal | None
) -> dict[MixingBlock, M]:
    """What is made of those blocks that can be measured.

    Args:
        blocks: one after the other.
        made: raises ValueError where one cannot be measured.
        on_refusal: gets those; raised when None.
    """
    found: dict[MixingBlock, M] = {}
    for block in blocks:
        try:
            found[block] = made(block)
        except ValueError as error:
            if on_refusal is None:
                raise
            on_refusal(block, error)
    return found


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
