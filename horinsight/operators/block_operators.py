"""The blocks of a network as operators, each at the point that images bring it to."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation, run
from horinsight.mixers.blocks import MixingBlock, check_calls
from horinsight.mixers.seen_calls import SeenCall
from horinsight.operators.map_operator import MapReading, as_map_operator
from horinsight.operators.module_copies import copied
from horinsight.operators.scope import Scope


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """Where a block is differentiated.

    Attributes:
        operator: the mixer, or the residual block around it, as a function of its positions: its further inputs are
            held as they were.
        x: what enters it.
        reading: how both are to be read.
    """

    operator: nn.Module
    x: Tensor
    reading: MapReading

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the map that enters."""
        if self.reading.grid is not None:
            return self.reading.grid
        rows, columns = self.x.shape[1:3] if self.reading.layout == "channels_last" else self.x.shape[2:4]
        return int(rows), int(columns)


def operating_points(
    model: nn.Module,
    images: Tensor,
    measured: Mapping[MixingBlock, SeenCall],
    *,
    on_refusal: Callable[[MixingBlock, ValueError], None] | None = None,
) -> dict[str, OperatingPoint]:
    """The operator of each block, and what enters it, in one forward pass.

    Args:
        model: the network; lent in eval mode.
        images: (B, 3, H, W).
        measured: blocks of it, found at this size of images, and the call that is measured of each, see
            `measured_calls`.
        on_refusal: gets blocks whose positions form no map, and why; raised when None.

    Returns:
        Name of the block → its point.

    Raises:
        ValueError: images that do not fit, a call that is not as it was on noise, positions that form no map.
    """
    with ExitStack() as stack:
        precise = torch.autocast(images.device.type, enabled=False)
        for context in (evaluation(model), torch.no_grad(), precise):
            stack.enter_context(context)
        made = []
        for block, seen in measured.items():
            keep = _point_of(block, seen, len(images))
            made.append(stack.enter_context(capture({"": model.get_submodule(seen.path)}, keep=keep))[""])
        run(model, images)
    of_mixers = {
        block: calls for (block, seen), calls in zip(measured.items(), made, strict=True) if _is_mixer(block, seen)
    }
    check_calls(list(of_mixers), [len(calls) for calls in of_mixers.values()])
    found: dict[str, OperatingPoint] = {}
    for block, calls in zip(measured, made, strict=True):
        points = [point for point in calls if point is not None]
        if not points:
            raise ValueError(f"The forward pass does not call the residual block of {block}: measure its mixer alone.")
        if isinstance(points[0], OperatingPoint):
            found[block.name] = points[0]
        elif on_refusal is None:
            raise points[0]
        else:
            on_refusal(block, points[0])
    return found


def measured_calls(
    blocks: Sequence[MixingBlock], scope: Scope, *, or_mixer: bool = False
) -> dict[MixingBlock, SeenCall]:
    """The call that is measured of each block: of the mixer, or of the residual block around it.

    Args:
        blocks: of a network.
        scope: "mixer" or "block".
        or_mixer: take the mixer where no residual block is around it.

    Raises:
        ValueError: there is no such block, or it is the whole network.
    """
    measured: dict[MixingBlock, SeenCall] = {}
    for block in blocks:
        assert block.found is not None, "of a block that was found in a network"
        around = block.found.block
        if scope == "mixer":
            measured[block] = block.found.here
        elif around is not None and around.input is not None and around.output is not None:
            measured[block] = around
        elif or_mixer:
            measured[block] = block.found.here
        else:
            raise ValueError(
                f"{block} has no residual block around it that keeps a map: measure the mixer itself (scope 'mixer')."
            )
    return measured


def _is_mixer(block: MixingBlock, seen: SeenCall) -> bool:
    return block.found is not None and block.found.here is seen


def _point_of(
    block: MixingBlock, seen: SeenCall, batch: int
) -> Callable[[nn.Module, Call], OperatingPoint | ValueError | None]:
    """What to keep of the calls of a watched module: the point of the block's own one, or why there is none."""

    def kept(module: nn.Module, call: Call) -> OperatingPoint | ValueError | None:
        if call.number != seen.number:
            return None
        try:
            return OperatingPoint(*as_map_operator(module, call, seen, batch))
        except ValueError as error:
            return ValueError(f"{block}: {error}")

    return kept


def widened(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The operator and its input in float32 at least; a copy where the model is in half precision."""
    dtypes = {parameter.dtype for parameter in module.parameters()} | {x.dtype}
    if dtypes <= {torch.float32} or dtypes <= {torch.float64}:
        return module, x
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    return copied(module, module.modules()).to(wide), x.to(wide)
