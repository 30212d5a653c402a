"""Which module's own forward is running: the tree of module calls of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from horinsight.mixers.labels import Labels

# events that make no mixer: positions keep apart, or meet in a norm or in a map of another size
UNMIXED = frozenset({"norm", "resize", "patchify", "weights"})


@dataclass(frozen=True)
class Event:
    """Positions met: when (a running number) and how."""

    time: int
    what: str


class ModuleCall:
    """One call of a module, to which its events are added as they come.

    Attributes:
        module, path: the module and its first name in the network.
        parent: the call in whose forward it was called; None for the network itself.
        start: the number of events before it.
        inputs: the labels of the tensors that go in (None for those without).
        shapes: of these tensors.
        input, output: labels of the first tensor with positions that goes in, and of the first labelled one that comes
            out.
        output_index: which of the tensors that come out that is.
        events: what met in its own forward.
        sums: for each sum of two branches in its own forward, the latest event in either: (earlier, later).
        children: the calls in its own forward.
    """

    def __init__(self, module: nn.Module, path: str, parent: ModuleCall | None, start: int) -> None:
        self.module, self.path, self.parent, self.start = module, path, parent, start
        self.inputs: list[Labels | None] = []
        self.shapes: list[tuple[int, ...]] = []
        self.input: Labels | None = None
        self.output: Labels | None = None
        self.output_index = 0
        self.events: list[Event] = []
        self.sums: list[tuple[int, int]] = []
        self.children: list[ModuleCall] = []

    def receive(self, labels: list[Labels | None], shapes: list[tuple[int, ...]]) -> None:
        """Note the labels of tensors that go in, and their shapes."""
        self.inputs += labels
        self.shapes += shapes
        self.input = next((one for one in self.inputs if one is not None and one.has_cells()), None)

    def walk(self) -> Iterator[ModuleCall]:
        """This call and all inside it, in the order in which they began."""
        yield self
        for child in self.children:
            yield from child.walk()

    def inside(self) -> list[Event]:
        """All events in this call and inside it."""
        return [event for call in self.walk() for event in call.events]

    def is_residual(self) -> bool:
        """Whether its own forward adds what a mixer that it called made to what was before it."""
        times = [event.time for child in self.children for event in child.inside() if event.what not in UNMIXED]
        return any(low < time <= high for low, high in self.sums for time in times)

    def ancestors(self) -> Iterator[ModuleCall]:
        """The calls around it, the innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent
