"""Operators that move data: the labels move with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from horinsight.mixers.labels import FIRST_CELL, NONE, Labels, aligned
from horinsight.mixers.meetings import covers, met
from horinsight.mixers.operators import Operation, Outcome, Rule, tensors_in, words

# operators that do to a plane of labels what they do to the data
_SAME = words(
    "view _unsafe_view reshape _reshape_alias permute transpose t numpy_T movedim squeeze unsqueeze expand slice "
    "select split split_with_sizes unbind chunk unsafe_split unsafe_split_with_sizes unsafe_chunk unfold diagonal "
    "diag_embed narrow repeat repeat_interleave tile roll flip rot90 cat stack index gather index_select take "
    "take_along_dim im2col pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle tril triu "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "_pad_circular slice_scatter select_scatter index_put _unsafe_index _unsafe_index_put scatter index_copy "
    "masked_scatter view_copy permute_copy unfold_copy as_strided_copy"
)
# of these the values of an argument decide what moves where, so that an outcome cannot be used again
VALUE_DEPENDENT = frozenset(
    words(
        "index gather index_select take take_along_dim index_put _unsafe_index _unsafe_index_put scatter index_copy "
        "masked_scatter as_strided embedding repeat_interleave"
    )
)
# of these a single index says from where each element comes
_FETCHES = frozenset(words("gather take_along_dim"))
_VIEWS = {"view", "_unsafe_view", "_reshape_alias", "view_copy"}  # a plane of labels may need a copy for them


def _plane_of(operation: Operation, plane: int) -> Callable[[Any], Any]:
    """Replaces the tensors of an operation by one plane of their labels; integers that index stay."""

    def replaced(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(replaced(item) for item in value)
        if not isinstance(value, Tensor):
            return value
        if operation.name in VALUE_DEPENDENT and value is not operation.arguments[0] and not value.is_floating_point():
            return value  # an index or a mask
        labels = operation.labels_of(value)
        if labels is None or plane >= len(labels.planes):
            return torch.full((), NONE, device=operation.grids.device).expand(value.shape)
        return labels.planes[plane].expand(labels.shape)

    return replaced


def moved(operation: Operation) -> Outcome:
    """The operator itself, on labels."""
    num_planes = max(
        (len(labels.planes) for tensor in operation.tensors() if (labels := operation.labels_of(tensor))), default=1
    )
    results: list[list[Tensor]] = []
    for plane in range(num_planes):
        arguments = _plane_of(operation, plane)(operation.arguments)
        if operation.name in _VIEWS:
            results.append([arguments[0].reshape(operation.output.shape)])
        else:
            keywords = {key: _plane_of(operation, plane)(value) for key, value in operation.keywords.items()}
            results.append(tensors_in(operation.function(*arguments, **keywords)))
    pairs = zip(*results, strict=True) if num_planes > 1 else ((plane, None) for plane in results[0])
    moved = [Labels.of(cells, partners) for cells, partners in pairs]
    asking = _asking(operation) if operation.name in _FETCHES else None
    if asking is None or len(moved) != 1 or moved[0] is None:
        return Outcome(moved)
    home, how = met([asking, moved[0]], operation.output.shape, operation.grids)
    return Outcome([home], "sampling") if how == "cells" else Outcome(moved)


def joined(operation: Operation) -> Outcome:
    """cat: a coarser map of which each cell is repeated over the finer ones beside it stands for these."""
    several = [labels for tensor in operation.tensors() if (labels := operation.labels_of(tensor)) is not None]
    finer: dict[int, Labels] = {}
    for one in several:
        for other in several:
            if one.partners is None and other.partners is None and covers(one.cells, other.cells, operation.grids):
                finer[id(one)] = Labels(one.shape, other.cells)
    if not finer:
        return moved(operation)

    def labels_of(tensor: Tensor) -> Labels | None:
        labels = operation.labels_of(tensor)
        return finer.get(id(labels), labels)

    return moved(replace(operation, labels_of=labels_of))


def _asking(operation: Operation) -> Labels | None:
    """The positions that ask for what is fetched, where an index was computed from some."""
    indices = [tensor for tensor in operation.tensors()[1:] if not tensor.is_floating_point()]
    known = [labels for index in indices if (labels := operation.labels_of(index)) is not None and labels.has_cells()]
    fits = [labels for labels in known if len(labels.shape) <= operation.output.ndim and labels.partners is None]
    if len(fits) != 1 or fits[0].shape != operation.output.shape[: len(fits[0].shape)]:
        return None
    planes = [plane.reshape(*plane.shape, *[1] * (operation.output.ndim - plane.ndim)) for plane in fits[0].planes]
    return Labels.from_planes(planes, operation.output.shape)


def kept(operation: Operation) -> Outcome:
    """Values stay where they are: clones, conversions, softmax-free pointwise functions of one tensor."""
    return Outcome(operation.labels_of(operation.arguments[0]))


def nothing(operation: Operation) -> Outcome:
    """A new constant of a tensor's shape or type."""
    return Outcome(None)


def padded(operation: Operation) -> Outcome:
    """Constant padding: what is added stands for nothing."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    sides = list(operation.argument(1, "pad"))
    return Outcome(labels.moved(lambda plane: torch.constant_pad_nd(plane, sides, NONE)))


def strided(operation: Operation) -> Outcome:
    """A view with strides of its own choice."""
    tensor, size, stride = operation.arguments[:3]
    offset = operation.argument(3, "storage_offset")
    offset = tensor.storage_offset() if offset is None else offset

    def move(plane: Tensor) -> Tensor:
        memory = plane.new_full((tensor.untyped_storage().nbytes() // tensor.element_size(),), NONE)
        memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(plane)
        return memory.as_strided(size, stride, offset)

    labels = operation.labels_of(tensor)
    return Outcome(None if labels is None else labels.moved(move))


def folded(operation: Operation) -> Outcome:
    """col2im: overlapping windows are summed; where the same positions come together again, nothing meets."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    rest = operation.arguments[1:]

    def fold(plane: Tensor) -> Tensor:
        folded: Tensor = operation.function(plane.double(), *rest)
        return folded

    plane = labels.cells.expand(labels.shape)
    known = (plane >= FIRST_CELL).double()
    count = fold(known).clamp(min=1)
    mean = fold(plane * known) / count
    if float((fold(plane.double() ** 2 * known) / count - mean**2).abs().amax()) < 0.25 / count.max():
        return Outcome(Labels.of(mean.round().float()))
    h, w = operation.output.shape[-2:]
    return Outcome(Labels.of(operation.grids.cells(h, w).expand(operation.output.shape)), "shift")


def embedded(operation: Operation) -> Outcome:
    """A table that is read at labelled indices."""
    labels = operation.labels_of(operation.argument(1, "indices"))
    if labels is None:
        return moved(operation)
    return Outcome(labels.moved(lambda plane: plane.unsqueeze(-1).expand(operation.output.shape)))


def complex_view(operation: Operation) -> Outcome:
    """view_as_complex and view_as_real: the two parts of a number stand for the same."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    if operation.name == "view_as_complex":
        return Outcome(labels.moved(lambda plane: plane.select(-1, 0)))
    return Outcome(labels.moved(lambda plane: plane.unsqueeze(-1).expand(operation.output.shape)))


def copied(operation: Operation) -> Outcome:
    """copy_: the labels of the source, spread over the target."""
    target, source = operation.arguments[:2]
    labels = operation.labels_of(source)
    if labels is None:
        return Outcome(None)
    return Outcome(Labels(tuple(target.shape), *(aligned(plane, target.ndim) for plane in labels.planes)))


MOVEMENT_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, moved),
    **dict.fromkeys(
        words(
            "clone _to_copy contiguous detach alias lift_fresh native_dropout to _conj _resolve_conj resolve_conj "
            "real view_as positive"
        ),
        kept,
    ),
    **dict.fromkeys(
        words(
            "empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_zeros new_ones new_full "
            "new_empty_strided _local_scalar_dense item equal nonzero argwhere sym_size is_nonzero allclose "
            "size zero fill fill_diagonal normal uniform bernoulli histc unique _unique2 searchsorted "
            "bucketize"
        ),
        nothing,
    ),
    "constant_pad_nd": padded,
    "as_strided": strided,
    "col2im": folded,
    "embedding": embedded,
    "view_as_complex": complex_view,
    "view_as_real": complex_view,
    "copy": copied,
    "cat": joined,
}
