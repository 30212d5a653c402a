"""The block of a network whose output is explained, and what its positions are a function of."""

from dataclasses import replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from horinsight.mixers.blocks import MixingBlock, named_blocks
from horinsight.mixing.block_influence import image_point
from horinsight.operators.block_operators import OperatingPoint, measured_calls, operating_points, widened
from horinsight.operators.map_operator import MapReading
from horinsight.operators.positions import positions_of

Of = Literal["mixer_input", "block_input", "image"]
BlockName = int | str


def explained_block(model: nn.Module, block: BlockName, *, image_size: tuple[int, int]) -> MixingBlock:
    """The block with an index (from 1) or a name of `named_blocks`.

    Args:
        model: a network.
        block: index or name.
        image_size: (H, W) in pixels.

    Raises:
        ValueError: there is no such block.

    Example:
        >>> import timm
        >>> explained_block(timm.create_model("hornet_test_iso"), "blocks.1.gnconv", image_size=(96, 96)).index
        2
    """
    blocks = named_blocks(model, image_size=image_size)
    prefix = "model."  # of a model that holds its further inputs
    for one in blocks:
        if block in (one.index, one.name, one.name.removeprefix(prefix)) and not isinstance(block, bool):
            return one
    listed = f"1 to {len(blocks)} or a name such as {blocks[0].name!r}" if blocks else "none, because it has none"
    raise ValueError(f"block expects a block of {type(model).__name__}, {listed}, got {block!r}.")


def explained_point(model: nn.Module, images: Tensor, block: MixingBlock, of: Of) -> OperatingPoint:
    """A block's output as a function of what enters it, at what images make of that, or of the images.

    Args:
        model: a network; left as it was.
        images: (B, 3, H, W), prepared.
        block: of it.
        of: the "mixer_input", for the mixer alone; the "block_input", for the residual block around it; or the "image".

    Raises:
        ValueError: no such way, or positions that form no map.
    """
    if of not in get_args(Of):
        raise ValueError(f"of expects one of {', '.join(get_args(Of))}, got {of!r}.")
    if of == "image":
        return image_point(model, images, block)
    scope = "mixer" if of == "mixer_input" else "block"
    return operating_points(model, images, measured_calls([block], scope))[block.name]  # type: ignore[arg-type]


def asked_point(model: Any, x: Tensor, block: BlockName | None, of: Of) -> OperatingPoint:
    """What one of our attributions is of: a block's output in float32 at least, or an operator's own.

    Args:
        model: a network of images; without a block any operator from maps to maps.
        x: its input.
        block: index or name; None for the operator itself.
        of: see `explained_point`.

    Raises:
        ValueError: as `explained_block` and `explained_point`.
    """
    if block is None:
        layout = positions_of(x).layout
        return OperatingPoint(model, x, MapReading(layout, None, layout, None))
    chosen = explained_block(model, block, image_size=(x.shape[-2], x.shape[-1]))
    point = explained_point(model, x, chosen, of)
    operator, points = widened(point.operator, point.x)
    return replace(point, operator=operator, x=points)
