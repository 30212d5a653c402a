"""One call of a tensor operator as the rules of labels see it, and what a rule says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from horinsight.mixers.labels import Grids, Labels


@dataclass(frozen=True)
class Operation:
    """A call of an operator.

    Attributes:
        function: the operator (`torch.ops.aten.mul.Tensor`, ...).
        name: its short name without overload ("mul").
        arguments: positional ones; keywords: the others.
        output: what it returned.
        labels_of: the labels of any of its tensors, as they were before; None where it carries none.
        grids: the maps of this run.
    """

    function: Any
    name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: Any
    labels_of: Callable[[Any], Labels | None]
    grids: Grids

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument, however it was passed."""
        if place < len(self.arguments):
            return self.arguments[place]
        return self.keywords.get(name, default)

    def tensors(self) -> list[Tensor]:
        """All tensors that go in, those in lists as well."""
        return tensors_in((self.arguments, tuple(self.keywords.values())))


@dataclass(frozen=True)
class Outcome:
    """What an operator did with positions.

    Attributes:
        labels: those of its outputs; one for all of them, or a list.
        event: what happened where positions met ("convolution", "attention", "gate", "shift", ...); "" for nothing.
        before: what happened before that, inside the operator: "weights" in fused attention, ...
        waits: where all positions were pooled and none is met yet: how ("pooling", "linear", "product", "fft").
    """

    labels: Labels | Sequence[Labels | None] | None
    event: str = ""
    waits: str = ""
    before: str = ""


Rule = Callable[[Operation], Outcome]


def words(text: str) -> list[str]:
    """The names in a text, between spaces."""
    return text.split()


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in their order.

    Example:
        >>> import torch
        >>> len(tensors_in({"a": torch.zeros(1), "b": [torch.zeros(1), (2, None)]}))
        2
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif hasattr(value, "__dataclass_fields__"):
        value = vars(value).values() if hasattr(value, "__dict__") else ()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]
