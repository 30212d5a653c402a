"""A call of any mixer as a function of the positions of its map, everything else of the call held as it was."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from horinsight.capture import Call
from horinsight.mixers.map_layouts import MapLayout
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall
from horinsight.operators.call_arguments import filled, images_along, with_places
from horinsight.operators.position_order import PositionOrder
from horinsight.operators.positions import Layout


@dataclass(frozen=True)
class MapReading:
    """How `interaction_spectrum` and `influence` are to read an operator's input and output.

    Attributes:
        layout: of the input.
        grid: (rows, columns) of the input's tokens; None for maps.
        output_layout: of the output.
        output_grid: of the output's tokens.
    """

    layout: Layout
    grid: tuple[int, int] | None
    output_layout: Layout
    output_grid: tuple[int, int] | None


class _Packed:
    """A further tensor of a call that has entries for each image, as tokens that are held fixed."""

    def __init__(self, tensor: Tensor, batch: int, channels: int, batch_axis: int) -> None:
        self.batch_axis, self.channels, self.dtype = batch_axis, channels, tensor.dtype
        images_first = tensor.movedim(batch_axis, 0)
        self.each, self.shape = len(images_first) // batch, tuple(images_first.shape[1:])
        self.numbers = self.each * int(torch.Size(self.shape).numel())
        self.num_tokens = -(-self.numbers // channels)

    def pack(self, tensor: Tensor) -> Tensor:
        """(B, tokens, C)."""
        images_first = tensor.movedim(self.batch_axis, 0)
        flat = images_first.reshape(len(images_first) // self.each, -1)
        padded = nn.functional.pad(flat, (0, self.num_tokens * self.channels - self.numbers))
        tokens: Tensor = padded.unflatten(1, (self.num_tokens, self.channels))
        return tokens

    def unpack(self, tokens: Tensor) -> Tensor:
        images_first = tokens.flatten(1)[:, : self.numbers].reshape(-1, *self.shape)
        whole = images_first.movedim(0, self.batch_axis)
        if self.dtype == torch.bool or not self.dtype.is_floating_point:
            return whole.round().to(self.dtype)
        return whole


class MapOperator(nn.Module):
    """A module on tokens in the order of its map: (B, held + H · W, C) → (B, held' + H' · W', C').

    Held are class tokens, registers, padding, and further arguments that depend on the image, packed into tokens.
    """

    def __init__(self, module: nn.Module, call: Call, seen: SeenCall, source: PositionOrder, batch: int) -> None:
        super().__init__()
        assert seen.output is not None
        self.module = module
        self.source = source
        self.target = PositionOrder.of(seen.output, batch_axis=source.batch_axis)
        tensors = tensors_in((call.inputs, tuple(call.kwargs.values())))
        self.input_index, self.output_index = seen.input_index, seen.output_index
        counted = iter(range(len(tensors)))
        self.args = with_places(call.inputs, counted)
        self.kwargs = with_places(dict(call.kwargs), counted)
        channels = source.tokens(tensors[seen.input_index]).shape[2]
        self.same = [index for index, tensor in enumerate(tensors) if tensor is tensors[seen.input_index]]
        self.packed: dict[int, _Packed] = {}
        self.constant: dict[int, Tensor] = {}
        for index, tensor in enumerate(tensors):
            axis = images_along(tensor, index, seen, batch)
            if index not in self.same and axis is not None:
                self.packed[index] = _Packed(tensor, batch, channels, axis)
            elif index not in self.same:
                self.constant[index] = tensor.detach()
        self.num_tensors = len(tensors)

    @property
    def num_packed(self) -> int:
        """Tokens that further arguments take."""
        return sum(packed.num_tokens for packed in self.packed.values())

    def points(self, call: Call) -> Tensor:
        """The tokens of a call."""
        tensors = tensors_in((call.inputs, tuple(call.kwargs.values())))
        x = self.source.tokens(tensors[self.input_index].detach())
        packed = [one.pack(tensors[index].detach().to(x.dtype)) for index, one in self.packed.items()]
        return torch.cat([*packed, x], 1)

    def forward(self, tokens: Tensor) -> Tensor:
        tensors: list[Tensor] = [tokens] * self.num_tensors
        start = 0
        for index, one in self.packed.items():
            tensors[index] = one.unpack(tokens[:, start : start + one.num_tokens])
            start += one.num_tokens
        for index, tensor in self.constant.items():
            floats = tensor.is_floating_point()
            tensors[index] = tensor.to(tokens.dtype if floats else tensor.dtype)
        native = self.source.native(tokens[:, start:])
        for index in self.same:  # self-attention that is called with its features as query, key and value
            tensors[index] = native
        output = self.module(*filled(self.args, tensors), **filled(self.kwargs, tensors))
        return self.target.tokens(tensors_in(output)[self.output_index])


class _MapToMap(nn.Module):
    """A `MapOperator` that holds nothing, on maps (B, C, H, W)."""

    def __init__(self, operator: MapOperator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.operator(x.flatten(2).transpose(1, 2))
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, self.operator.target.size)
        return maps


def as_map_operator(module: nn.Module, call: Call, seen: SeenCall, batch: int) -> tuple[nn.Module, Tensor, MapReading]:
    """A module at one of its calls, as an operator on a map or on tokens in the map's order, with its operating points.

    Args:
        module: a mixer or a residual block.
        call: its captured call, on a batch of images.
        seen: how positions lie in that call for one image.
        batch: how many images there are.

    Returns:
        The operator (the module itself where it takes and gives one map, or tokens, as they are), its points, and how
        both are to be read. What else it was called with is held as it was, image by image.

    Raises:
        ValueError: positions that are no map, in what goes in or comes out.
    """
    if seen.input is None or seen.output is None:
        what = "takes" if seen.input is None else "gives"
        raise ValueError(f"{type(module).__name__} {what} no map of positions, so there is nothing to move one by one.")
    tensors = tensors_in((call.inputs, tuple(call.kwargs.values())))
    x = tensors[seen.input_index]
    plain = plain_layout(seen.input), plain_layout(seen.output)
    if _is_plain(module, call) and plain[0] is not None and plain[0] == plain[1] and isinstance(call.output, Tensor):
        source, target = (layout.size if len(layout.shape) == 3 else None for layout in (seen.input, seen.output))
        return module, x.detach().clone(), MapReading(plain[0], source, plain[0], target)
    batch_axis = images_along(x, seen.input_index, seen, batch)
    if batch_axis is None:
        raise ValueError(
            f"A tensor of shape {tuple(x.shape)} does not say where {batch} images lie in it, which for one is of "
            f"shape {seen.input.shape}: give one image at a time."
        )
    order = PositionOrder.of(seen.input, batch_axis=batch_axis)
    operator = MapOperator(module, call, seen, order, batch)
    points = operator.points(call)
    if not order.num_held and not operator.num_packed and not operator.target.num_held:
        maps = points.transpose(1, 2).unflatten(2, order.size)
        return _MapToMap(operator), maps, MapReading("channels_first", None, "channels_first", None)
    return operator, points, MapReading("tokens", order.size, "tokens", operator.target.size)


def _is_plain(module: nn.Module, call: Call) -> bool:
    """Whether a module was called with one tensor, its first argument, and otherwise with its defaults."""
    if len(call.inputs) == 1 and not call.kwargs:
        return isinstance(call.inputs[0], Tensor)
    signature = inspect.signature(type(module).forward)
    given = signature.bind(module, *call.inputs, **call.kwargs).arguments
    said = [name for name, value in given.items() if value is not signature.parameters[name].default][1:]
    takes_it_first = list(signature.parameters)[1:2] == said and isinstance(given[said[0]], Tensor)
    return takes_it_first and signature.parameters[said[0]].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def plain_layout(layout: MapLayout) -> Layout | None:
    """The layout of a tensor whose cells lie row by row after those places that hold none; None for another."""
    named: dict[tuple[int, tuple[int, ...]], Layout] = {
        (4, (2, 3)): "channels_first",
        (4, (1, 2)): "channels_last",
        (3, (1,)): "tokens",
        (3, (2,)): "channels_first",
    }
    found = named.get((len(layout.shape), layout.axes))
    cells = layout.cells.flatten().cpu()
    if found is None or layout.size is None or (layout.cells.ndim == 2 and tuple(layout.cells.shape) != layout.size):
        return None
    count = layout.size[0] * layout.size[1]
    held = len(cells) - count
    in_order = (
        held >= 0 and torch.equal(cells[held:], torch.arange(count, device="cpu")) and bool((cells[:held] < 0).all())
    )
    return found if in_order and (len(layout.shape) == 3 or not held) else None
