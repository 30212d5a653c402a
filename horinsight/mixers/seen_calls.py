"""What is kept of one call of a module after its network was watched: no module, no feature of the network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import overload

from horinsight.mixers.call_tree import ModuleCall
from horinsight.mixers.labels import Grids, Labels
from horinsight.mixers.map_layouts import MapLayout, layout_of


@dataclass(frozen=True, eq=False)
class SeenCall:
    """One call of a module, and how positions lie in it.

    Attributes:
        path: of the module in the network.
        number: which call of the module it is, from 1.
        start: how many calls of modules began before it.
        input: how the positions of its argument lie; None where it has none.
        output: the same of its result.
        depends: which of the tensors among its arguments depend on the image; positional ones first, then those by
            keyword in the order of its signature, those in lists as well.
        shapes: of these tensors, for one image.
        labels: of these tensors: which position each of their elements stands for.
        grids: the maps that labels are of.
        input_index: which of these tensors `input` is about, the first that has positions.
        output_index: which of the tensors of its result `output` is about.
    """

    path: str
    number: int
    start: int
    input: MapLayout | None
    output: MapLayout | None
    depends: tuple[bool, ...]
    shapes: tuple[tuple[int, ...], ...]
    labels: tuple[Labels | None, ...]
    grids: Grids
    input_index: int
    output_index: int


class _SeenCalls:
    def __init__(self, root: ModuleCall, grids: Grids) -> None:
        self._grids = grids
        counts: Counter[str] = Counter()
        self._numbers: dict[ModuleCall, tuple[int, int]] = {}
        for start, call in enumerate(root.walk()):
            counts[call.path] += 1
            self._numbers[call] = counts[call.path], start

    @overload
    def __call__(self, call: ModuleCall) -> SeenCall: ...

    @overload
    def __call__(self, call: ModuleCall | None) -> SeenCall | None: ...

    def __call__(self, call: ModuleCall | None) -> SeenCall | None:
        if call is None:
            return None
        number, start = self._numbers[call]
        with_positions = [index for index, labels in enumerate(call.inputs) if labels is call.input]
        return SeenCall(
            path=call.path,
            number=number,
            start=start,
            input=layout_of(call.input, self._grids),
            output=layout_of(call.output, self._grids),
            depends=tuple(labels is not None for labels in call.inputs),
            shapes=tuple(call.shapes),
            labels=tuple(call.inputs),
            grids=self._grids,
            input_index=with_positions[0] if call.input is not None else 0,
            output_index=call.output_index,
        )


def seen_calls(root: ModuleCall, grids: Grids) -> _SeenCalls:
    """From a call of a watched network (or None) to what is kept of it (or None)."""
    return _SeenCalls(root, grids)
