"""What a block computes at its positions, as a model whose classes are positions: `target=i` is captum's way to ask.

Inputs are maps (B, C, H, W) whatever a block's own layout is: tokens before a map, which are held, come as captum's
`additional_forward_args`, so that every method leaves them as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from horinsight.attribution.explained_block import BlockName, Of, explained_block, explained_point
from horinsight.cancellation import pause
from horinsight.capture import evaluation, image_size_of
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.output_positions import output_positions
from horinsight.models.elementwise import Product
from horinsight.operators.block_operators import widened
from horinsight.operators.map_operator import MapReading
from horinsight.operators.positions import Positions, positions_of


class PositionForward(nn.Module):
    """From maps (B, C, H, W) to one number a position of an operator's output, (B, P).

    F_c(x)_i of one channel, or Σ_c F_c(x)_i²; the square is a `Product`, for what hooks modules.

    Args:
        operator: of a block, see `explained_point`.
        source: how its input lies.
        target: how its output lies.
        channel: c; the sum of squares when None.
    """

    def __init__(self, operator: nn.Module, source: Positions, target: Positions, channel: int | None) -> None:
        super().__init__()
        self.operator, self.square = operator, Product()
        self.source, self.target, self.channel = source, target, channel

    def forward(self, maps: Tensor, held: Tensor | None = None) -> Tensor:
        pause()
        tokens = maps.flatten(2)
        if held is not None:
            tokens = torch.cat([held.transpose(1, 2), tokens], 2)
        x = self.source.native(tokens).clone()  # which an operator may write into
        y = self.target.flat(self.operator(x))[:, :, self.target.num_prefix :]
        if self.channel is not None:
            return y[:, self.channel]
        squares: Tensor = self.square(y, y)
        return squares.sum(1)


@dataclass(frozen=True, eq=False)
class PositionModel:
    """A block, or the way from the image to it, at what images make of its input.

    Attributes:
        forward: its classes are positions, row * columns + column; lend it in eval mode (`evaluation`).
        inputs: (B, C, H, W), what is explained.
        held: (B, tokens, C), to give as `additional_forward_args`; None where nothing is held.
        output_size: (rows, columns) of the positions.
        num_channels: of the output.
        block: whose output it is.
    """

    forward: PositionForward
    inputs: Tensor
    held: Tensor | None
    output_size: tuple[int, int]
    num_channels: int
    block: MixingBlock


def model_at_positions(
    model: nn.Module, images: Tensor, *, block: BlockName, of: Of = "block_input", channel: int | None = None
) -> PositionModel:
    """A network's block as a model whose classes are the positions of its map.

    Args:
        model: a network with blocks; left as it was. One in half precision is explained in float32.
        images: (B, 3, H, W), prepared.
        block: index (from 1) or name, of `named_blocks`.
        of: what is explained in: the "mixer_input" for the mixer alone, the "block_input" for the residual block around
            it, or the "image".
        channel: of the block's output; the sum of squares over all when None.

    Raises:
        ValueError: no such block, channel or way, or a block without a map.

    Example:
        >>> import timm
        >>> from captum.attr import InputXGradient
        >>> found = model_at_positions(timm.create_model("hornet_test_iso"), torch.randn(2, 3, 96, 96), block=2)
        >>> with evaluation(found.forward):
        ...     parts = InputXGradient(found.forward).attribute(found.inputs, target=[0, 35])
        >>> found.output_size, parts.shape == found.inputs.shape
        ((6, 6), True)
    """
    chosen = explained_block(model, block, image_size=image_size_of(images))
    point = explained_point(model, images, chosen, of)
    operator, x = widened(point.operator, point.x)
    return _position_model(operator, x, point.reading, chosen, channel)


def _position_model(
    operator: nn.Module, x: Tensor, reading: MapReading, block: MixingBlock, channel: int | None
) -> PositionModel:
    source = positions_of(x, reading.layout, reading.grid)
    with evaluation(operator), torch.no_grad():
        y = operator(x[:1].clone())
    if not isinstance(y, Tensor):
        raise ValueError(f"{block} gives {type(y).__name__}, not one tensor with a map: explain another block.")
    target, size = output_positions(y, source, x.ndim, reading.grid, reading.output_layout, reading.output_grid)
    if len(size) != 2 or (source.grid is None and len(source.shape) != 2):
        raise ValueError(f"{block} has positions that form no map: explain another block.")
    num_channels = target.flat(y).shape[1]
    if channel is not None and not (type(channel) is int and 0 <= channel < num_channels):
        raise ValueError(f"channel expects a number from 0 to {num_channels - 1}, got {channel!r}.")
    flat = source.flat(x)
    rows, columns = source.grid or source.shape
    prefix = source.num_prefix
    return PositionModel(
        forward=PositionForward(operator, source, target, channel),
        inputs=flat[:, :, prefix:].unflatten(2, (rows, columns)).contiguous(),
        held=flat[:, :, :prefix].transpose(1, 2).contiguous() if prefix else None,
        output_size=(size[0], size[1]),
        num_channels=num_channels,
        block=block,
    )
