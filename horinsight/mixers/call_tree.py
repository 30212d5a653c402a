"""Which module's own forward is running: the tree of module calls of one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from horinsight.mixers.labels import Labels

# events that make no mixer: positions keep apart, or meet in a norm or in a map of another size
UNMIXED = frozenset({"norm", "resize", "patchify", "weights"})


@dataclass(frozen=True)
class Event:
    """Positions met: when (a running number) and how."""

    time: int
    what: str


@dataclass(eq=False)
class ModuleCall:
    """One call of a module.

    Attributes:
        module, path: the module and its first name in the network.
        parent: the call in whose forward it was called; None for the network itself.
        start: the number of events before it.
        inputs: the labels of the tensors that go in (None for those without).
        input, output: labels of the first labelled tensor that goes in, and of the first that comes out.
        events: what met in its own forward.
        sums: for each sum of two branches in its own forward, the latest event in either: (earlier, later).
        children: the calls in its own forward.
    """

    module: nn.Module
    path: str
    parent: ModuleCall | None
    start: int
    inputs: list[Labels | None] = field(default_factory=list)
    input: Labels | None = None
    output: Labels | None = None
    events: list[Event] = field(default_factory=list)
    sums: list[tuple[int, int]] = field(default_factory=list)
    children: list[ModuleCall] = field(default_factory=list)

    def receive(self, labels: list[Labels | None]) -> None:
        """Note the labels of tensors that go in."""
        self.inputs += labels
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


@contextmanager
def watched_calls(
    entered: Callable[[nn.Module, tuple[Any, ...]], None],
    left: Callable[[nn.Module, dict[str, Any], Any], None],
) -> Iterator[None]:
    """Tell of every module call of this thread while the context is open.

    The hooks are torch's global ones: nothing is written to any module, and calls of other threads are not told.

    Args:
        entered: called with the module and its positional arguments before its forward.
        left: called with the module, its keyword arguments and its output after it.
    """
    thread = threading.get_ident()

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            entered(module, arguments)

    def after(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if threading.get_ident() == thread:
            left(module, keywords, output)

    handles = [register_module_forward_pre_hook(before)]
    try:
        handles.append(register_module_forward_hook(after, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
