"""What is known of each tensor of a forward pass besides its values, views and writes in place included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from horinsight.mixers.call_tree import ModuleCall
from horinsight.mixers.labels import Labels


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a tensor that depends on the image.

    Attributes:
        labels: which positions its elements stand for.
        last: the latest event that it depends on in which positions mixed.
        branch: the same, but what came in by a sum with an older branch (a residual) counts as the older.
        source: tensors that are functions, position by position and without weights, of one tensor share a number.
        mover: the call that last brought several positions into one axis of channels.
        waits: how all positions were pooled, where none is met yet.
        steps: how many times in a row a few positions met the next few, as in a loop over them.
        touched: the latest event of any kind that it depends on.
    """

    labels: Labels
    last: int = 0
    branch: int = 0
    source: int = 0
    mover: ModuleCall | None = None
    waits: str = ""
    steps: int = 0
    touched: int = 0


class TensorKnowledge:
    """A dictionary from tensors to what is known of them, which keeps no tensor alive.

    A tensor of which a part is overwritten with other labels shares its storage with views: from then on the labels of
    that storage are kept element by element, and read with the strides of whoever asks.
    """

    def __init__(self) -> None:
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._storages: dict[int, tuple[Tensor, list[Tensor], Known]] = {}

    def of(self, tensor: Tensor) -> Known | None:
        """What is known of a tensor; None for one that depends on no position."""
        written = self._written(tensor)
        if written is None:
            known: Known | None = self._known.get(tensor)
            return known
        _, planes, beside = written
        labels = Labels.from_planes([_as(tensor, plane).clone() for plane in planes])  # the planes change
        return None if labels is None else replace(beside, labels=labels)

    def labels_of(self, tensors: Iterable[Tensor]) -> list[Labels | None]:
        """The labels of several tensors."""
        return [None if (known := self.of(tensor)) is None else known.labels for tensor in tensors]

    def learn(self, tensor: Tensor, known: Known | None) -> None:
        """Write down what is known of a tensor as a whole."""
        if self._written(tensor) is not None:
            self._write(tensor, known)
        elif known is not None:
            self._known[tensor] = known
        elif tensor in self._known:
            del self._known[tensor]

    def overwrite(self, tensor: Tensor, known: Known | None) -> None:
        """Write down what is known of a tensor whose values were changed in place."""
        before = self.of(tensor)
        if known is None and before is None:
            return
        if known is not None and before is not None and known.labels.same_as(before.labels):
            if self._written(tensor) is None:
                self._known[tensor] = known
            return
        self._write(tensor, known)

    def _written(self, tensor: Tensor) -> tuple[Tensor, list[Tensor], Known] | None:
        return self._storages.get(tensor.untyped_storage()._cdata) if self._storages else None

    def _write(self, tensor: Tensor, known: Known | None) -> None:
        labels = None if known is None else known.labels
        base = tensor if tensor._base is None else tensor._base
        written = self._written(tensor)
        whole: Any = self._known.get(base)
        planes = [] if written is None else list(written[1])
        near = next((one.cells for one in (labels, whole and whole.labels, written and written[2].labels) if one), None)
        if near is None:
            return
        for i in range(max(1, len(planes), 0 if labels is None else len(labels.planes))):
            if i == len(planes):
                planes.append(near.new_zeros(_length(tensor)))
                if written is None and whole is not None and i < len(whole.labels.planes):
                    _as(base, planes[i]).copy_(whole.labels.planes[i].expand(whole.labels.shape))
            target = _once(_as(tensor, planes[i]))
            if labels is None or i >= len(labels.planes):
                target.zero_()
            else:
                source = labels.planes[i].expand(labels.shape)
                target.copy_(source[tuple(slice(length) for length in target.shape)])
        kept = known or (whole if written is None else written[2])
        if kept is not None:
            self._storages[tensor.untyped_storage()._cdata] = (tensor, planes, kept)


def _length(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _as(tensor: Tensor, plane: Tensor) -> Tensor:
    """A plane of the length of a tensor's storage, read as the tensor is."""
    return plane.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _once(view: Tensor) -> Tensor:
    """A view without the repetitions along the axes that were expanded: no element of memory comes twice."""
    for axis in range(view.ndim):
        if view.stride(axis) == 0 and view.shape[axis] > 1:
            view = view.narrow(axis, 0, 1)
    return view
