"""Influence within one block of a network, or from the image to it, wherever its positions lie in its tensors."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from horinsight.capture import image_size_of, replaced
from horinsight.mixing.influence import influence_as_asked
from horinsight.mixing.influence_options import InfluenceOptions
from horinsight.mixing.reach_results import Influence
from horinsight.mixers.blocks import MixingBlock, enclosing_block
from horinsight.operators.block_operators import (
    BlockOperator,
    OperatingPoint,
    block_operator,
    map_size,
    operating_points,
    widened,
)
from horinsight.operators.positions import Layout

ReachScope = Literal["mixer", "block", "image"]
Cell = tuple[int, int]


def block_influences(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[MixingBlock],
    *,
    scope: ReachScope,
    cells: Callable[[Cell], Sequence[Cell] | None],
    keep: Callable[[MixingBlock, Influence], None],
    options: InfluenceOptions,
) -> None:
    """Measure influence block by block.

    Args:
        model: a network; left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared.
        blocks: of it.
        scope: from what enters the "mixer", or the residual "block", or from the "image", to the block's output.
        cells: from the size of a block's map to its queries; None for all positions.
        keep: gets each block and its influence.
        options: how.

    Raises:
        ValueError: no such scope, a block whose output has no map, and what `influence` refuses; names the block.
    """
    if scope not in get_args(ReachScope):
        raise ValueError(f"scope expects one of {', '.join(get_args(ReachScope))}, got {scope!r}.")
    size = image_size_of(images)
    operators = {block: _operator_of(model, block, scope) for block in blocks}
    if scope == "image":
        points = {block.name: OperatingPoint(_up_to(model, block), images) for block in blocks}
    else:
        points = operating_points(model, images, operators)
    for block in blocks:
        point, layout = points.pop(block.name), operators[block].layout
        try:
            operator, x = widened(point.operator, point.x)
            input_layout = None if scope == "image" else layout
            grid = _map_size(model, x, input_layout, size) if x.ndim == 3 else None

            def asked(y: Tensor, layout: Layout | None = layout) -> tuple[Sequence[Cell] | None, Cell | None]:
                out_size = _map_size(model, y, layout, size)
                return cells(out_size), out_size if y.ndim == 3 else None

            found = influence_as_asked(
                operator, x, asked, options=options, layout=input_layout, grid=grid, output_layout=layout
            )
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        keep(block, found)


def _map_size(model: nn.Module, features: Tensor, layout: Layout | None, image_size: Cell) -> Cell:
    found = map_size(model, features, layout, image_size)
    tokens = found[0]
    if features.ndim == 3 and found == (tokens, 1) and tokens > 1:
        raise ValueError(f"{tokens} tokens do not form a map whose rows and columns can be told: leave this block out.")
    return found


class _ArrivedError(Exception):
    """Stops a forward pass where the wanted output is."""


class _UpTo(nn.Module):
    """A network from its images to what a module puts out in one of its calls; what comes after is not run."""

    def __init__(self, model: nn.Module, module: nn.Module, call: int) -> None:
        super().__init__()
        self.model, self.module, self.call = model, module, call

    def forward(self, images: Tensor) -> Any:
        arrived: list[Any] = []

        def stop(output: Any, call: int) -> Any:
            if call == self.call:
                arrived.append(output)
                raise _ArrivedError
            return output

        try:
            with replaced(self.module, output=stop):
                self.model(images)
        except _ArrivedError:
            return arrived[0]
        raise ValueError(f"The forward pass does not come to call {self.call} of {type(self.module).__name__}.")


def _operator_of(model: nn.Module, block: MixingBlock, scope: ReachScope) -> BlockOperator:
    """What puts the positions out: of a mixer that lies in the network itself, with no block around it, the mixer."""
    bare = scope == "image" and enclosing_block(model, block) is model
    return block_operator(model, block, "mixer" if scope == "mixer" or bare else "block")


def _up_to(model: nn.Module, block: MixingBlock) -> nn.Module:
    """From the image to the output of the residual block around a mixer, or of the mixer where there is none."""
    outer = enclosing_block(model, block)
    return _UpTo(model, block.module if outer is model else outer, block.call)
