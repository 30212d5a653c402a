"""The arguments of a captured call, with other tensors in the places of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from horinsight.capture import Call
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall


class _Place:
    """Stands in a call for the n-th of its tensors."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __deepcopy__(self, memo: dict[int, Any]) -> _Place:
        return self


def with_places(value: Any, places: Iterator[int]) -> Any:
    """A call's arguments without their tensors.

    Args:
        value: the arguments: lists, tuples and dictionaries are looked into.
        places: numbers for the tensors, as they come.

    Example:
        >>> import torch
        >>> call = with_places([torch.zeros(1), 2, {"mask": torch.ones(1)}], iter(range(2)))
        >>> filled(call, ["first", "second"])
        ['first', 2, {'mask': 'second'}]
    """
    if isinstance(value, Tensor):
        return _Place(next(places))
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(with_places(item, places) for item in value)
    if isinstance(value, Mapping):
        return {key: with_places(item, places) for key, item in value.items()}
    return value


def filled(value: Any, tensors: Sequence[Any]) -> Any:
    """The arguments of `with_places` with these tensors."""
    if isinstance(value, _Place):
        return tensors[value.index]
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(filled(item, tensors) for item in value)
    if isinstance(value, Mapping):
        return {key: filled(item, tensors) for key, item in value.items()}
    return value


def images_along(tensor: Tensor, index: int, seen: SeenCall, batch: int) -> int | None:
    """The axis along which a tensor of a call has entries for each image; None where it is the same for all.

    That is so many times as long as for one image; for one image alone what depends on it is taken for its own, with
    images first, or second where features are (N, B, C).

    Args:
        tensor: the index-th of the call.
        index: see above.
        seen: what was seen of the call on one image.
        batch: how many images there are.
    """
    if index >= len(seen.shapes) or tensor.ndim != len(seen.shapes[index]) or not tensor.ndim:
        return None
    if batch == 1:
        if not seen.depends[index]:
            return None
        source = seen.input
        sequence_first = source is not None and source.axes == (0,) and source.shape[1:2] == (1,)
        return int(sequence_first and tensor.ndim > 1)
    pairs = enumerate(zip(tensor.shape, seen.shapes[index], strict=True))
    longer = [axis for axis, (n, one) in pairs if n == batch * one != one]
    return longer[0] if len(longer) == 1 else None


def of_image(tensor: Tensor, axis: int | None, image: int, batch: int) -> Tensor:
    """What a tensor of a batch has of one image.

    Args:
        tensor: of the batch.
        axis: along which it has entries for each image; None where it is the same for all.
        image: which, from 0.
        batch: how many there are.
    """
    if axis is None:
        return tensor
    each = tensor.shape[axis] // batch
    return tensor.narrow(axis, image * each, each)


def arguments_by_image(call: Call, seen: SeenCall, batch: int) -> Iterator[list[Tensor]]:
    """The tensors among a call's arguments, image by image.

    Args:
        call: on a batch of images.
        seen: what was seen of that call on one image.
        batch: how many images there are.
    """
    tensors = tensors_in((call.inputs, tuple(call.kwargs.values())))
    axes = [images_along(tensor, index, seen, batch) for index, tensor in enumerate(tensors)]
    for image in range(batch):
        yield [of_image(tensor, axis, image, batch) for tensor, axis in zip(tensors, axes, strict=True)]


def kept_call(call: Call) -> Call:
    """A call with copies of its tensors: the network may go on to write into them. What was one tensor stays one."""
    whole = (call.inputs, dict(call.kwargs), call.output)
    tensors = tensors_in(whole)
    copies = {id(tensor): tensor.detach().clone() for tensor in tensors}
    inputs, kwargs, output = filled(
        with_places(whole, iter(range(len(tensors)))), [copies[id(tensor)] for tensor in tensors]
    )
    return Call(inputs, output, kwargs, call.number)
