"""Influence within one block of a network, or from the image to it, wherever its positions lie in its tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from horinsight.cancellation import pause, portion
from horinsight.capture import replaced
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall
from horinsight.mixing.influence import influence_as_asked
from horinsight.mixing.influence_options import InfluenceOptions
from horinsight.mixing.reach_results import Influence
from horinsight.operators.block_operators import OperatingPoint, measured_calls, operating_points, widened
from horinsight.operators.map_operator import MapReading
from horinsight.operators.position_order import PositionOrder
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
    generators: Mapping[str, torch.Generator] | None = None,
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
        generators: of each block's signs, by name, where they go on from those of images before.

    Raises:
        ValueError: no such scope, a block whose output has no map, and what `influence` refuses; names the block.
    """
    if scope not in get_args(ReachScope):
        raise ValueError(f"scope expects one of {', '.join(get_args(ReachScope))}, got {scope!r}.")
    if scope == "image":
        points = {block.name: image_point(model, images, block) for block in blocks}
    else:
        points = operating_points(model, images, measured_calls(blocks, scope))
    influences_of(blocks, points, cells=cells, keep=keep, options=options, generators=generators)


def influences_of(
    blocks: Sequence[MixingBlock],
    points: dict[str, OperatingPoint],
    *,
    cells: Callable[[Cell], Sequence[Cell] | None],
    keep: Callable[[MixingBlock, Influence], None],
    options: InfluenceOptions,
    generators: Mapping[str, torch.Generator] | None = None,
) -> None:
    """Influence of operators of blocks, one after the other; a point is let go as soon as it was measured.

    Args:
        blocks: of a network.
        points: by the blocks' names; emptied.
        cells: see `block_influences`, as are the others.
        keep: gets each block and its influence.
        options: how.
        generators: see `block_influences`.

    Raises:
        ValueError: what `influence` refuses; names the block.
    """
    for number, block in enumerate(blocks):
        pause()
        point = points.pop(block.name)
        try:
            operator, x = widened(point.operator, point.x)
            reading = point.reading

            def asked(y: Tensor, reading: MapReading = reading) -> tuple[Sequence[Cell] | None, Cell | None]:
                out_size = reading.output_grid or _map_size(y, reading.output_layout)
                return cells(out_size), reading.output_grid

            with portion(number / len(blocks), (number + 1) / len(blocks)):
                found = influence_as_asked(
                    operator,
                    x,
                    asked,
                    options=options,
                    layout=reading.layout,
                    grid=reading.grid,
                    output_layout=reading.output_layout,
                    generator=None if generators is None else generators[block.name],
                )
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        keep(block, found)


def _map_size(features: Tensor, layout: Layout) -> Cell:
    rows, columns = features.shape[1:3] if layout == "channels_last" else features.shape[2:4]
    return int(rows), int(columns)


class _ArrivedError(Exception):
    """Stops a forward pass where the wanted output is."""


class _UpTo(nn.Module):
    """A network from its images to the positions that a module puts out in one call; what comes after is not run."""

    def __init__(self, model: nn.Module, seen: SeenCall) -> None:
        super().__init__()
        assert seen.output is not None
        self.model, self.path = model, seen.path  # the module by its path: a submodule once, for what walks over them
        self.call, self.output_index = seen.number, seen.output_index
        self.order = PositionOrder.of(seen.output)

    @property
    def reading(self) -> MapReading:
        """Of images, and of what is put out: a map where no position is held."""
        layout: Layout = "tokens" if self.order.num_held else "channels_first"
        return MapReading("channels_first", None, layout, self.order.size if self.order.num_held else None)

    def forward(self, images: Tensor) -> Tensor:
        arrived: list[Any] = []

        def stop(output: Any, call: int) -> Any:
            if call == self.call:
                arrived.append(output)
                raise _ArrivedError
            return output

        module = self.model.get_submodule(self.path)
        try:
            with replaced(module, output=stop):
                self.model(images)
        except _ArrivedError:
            tokens = self.order.tokens(tensors_in(arrived[0])[self.output_index])
            return tokens if self.order.num_held else tokens.transpose(1, 2).unflatten(2, self.order.size)
        raise ValueError(f"The forward pass does not come to call {self.call} of {type(module).__name__}.")


def image_point(model: nn.Module, images: Tensor, block: MixingBlock) -> OperatingPoint:
    """From the image to the output of the residual block around a mixer, or of the mixer where there is none."""
    assert block.found is not None, "of a block that was found in a network"
    around = block.found.block
    seen = block.found.here if around is None or around.path == "" or around.output is None else around
    if seen.output is None:
        raise ValueError(f"{block}: no position comes out of it, so there is no query: leave it out (--blocks).")
    network = _UpTo(model, seen)
    return OperatingPoint(network, images, network.reading)
