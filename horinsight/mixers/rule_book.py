"""Which rule an operator follows, asked once for each operator, shapes and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, TypeVar

import torch
from torch import Tensor

from horinsight.mixers.labels import Grids, Labels
from horinsight.mixers.mixing_rules import MIXING_RULES, pointwise
from horinsight.mixers.movement_rules import MOVEMENT_RULES, VALUE_DEPENDENT
from horinsight.mixers.operators import Operation, Outcome, Rule, tensors_in
from horinsight.mixers.window_rules import WINDOW_RULES

_RULES: dict[str, Rule] = {**MOVEMENT_RULES, **MIXING_RULES, **WINDOW_RULES}

L = TypeVar("L")


class RuleBook:
    """Asks the rules, and remembers what they said: networks repeat their blocks."""

    def __init__(self, grids: Grids) -> None:
        self._grids = grids
        self._said: dict[Any, tuple[Outcome, list[Labels]]] = {}  # labels are told apart by their address: kept alive
        self._known: dict[Any, Labels] = {}

    def outcome(
        self, func: Any, name: str, arguments: Any, keywords: Any, output: Any, labels: Mapping[int, Labels]
    ) -> Outcome:
        """What an operator did with positions.

        Args:
            func: the operator.
            name: its short name, without the underscore of an operator that works in place.
            arguments: positional ones; keywords: the others.
            output: what it returned.
            labels: those of its tensors that have some, by the tensor's id.
        """

        def key_of(value: Any) -> Any:
            if isinstance(value, Tensor):
                return id(labels.get(id(value))), value.shape
            return tuple(map(key_of, value)) if isinstance(value, list | tuple) else value

        key: Any = None
        if name not in VALUE_DEPENDENT:
            key = (func, key_of(arguments), tuple((word, key_of(value)) for word, value in keywords.items()))
            try:
                said = self._said.get(key)
            except TypeError:  # an argument that cannot be a key
                key = said = None
            if said is not None:
                return said[0]
        outcome = self._asked(func, name, arguments, keywords, output, labels)
        outcome = replace(outcome, labels=self.same(outcome.labels))
        if key is not None:
            self._said[key] = outcome, list(labels.values())
        return outcome

    def same(self, labels: L) -> L:
        """Labels, or a list of them, as the very objects that were equal before: what comes after is known then."""
        if isinstance(labels, list | tuple):
            return type(labels)(map(self.same, labels))
        if not isinstance(labels, Labels):
            return labels
        planes = [(plane.shape, plane.cpu().numpy().tobytes()) for plane in labels.planes]
        key = labels.shape, tuple((shape, blake2b(content).digest()) for shape, content in planes)
        return self._known.setdefault(key, labels)  # type: ignore[return-value]

    def _asked(
        self, func: Any, name: str, arguments: Any, keywords: Any, output: Any, labels: Mapping[int, Labels]
    ) -> Outcome:
        in_place = func._schema.name.endswith("_")
        function = getattr(torch.ops.aten, name, func) if in_place else func
        operation = Operation(
            function, name, arguments, keywords, output, lambda value: labels.get(id(value)), self._grids
        )
        rule = _RULES.get(name) or (pointwise if _is_pointwise(func, name) else unknown)
        try:
            outcome = rule(operation)
        except (RuntimeError, IndexError, ValueError, TypeError):  # called in a way that its rule does not know
            outcome = unknown(operation)
        return outcome if _fits(outcome, output) else unknown(operation)


def unknown(operation: Operation) -> Outcome:
    """An operator that no rule knows, or called as no rule knows it: it counts as mixing, and is named."""
    output = tensors_in(operation.output)
    several = [labels for tensor in operation.tensors() if (labels := operation.labels_of(tensor)) is not None]
    one = next((labels for labels in several if labels.has_cells()), several[0])
    kept = [one if tensor.shape == one.shape else None for tensor in output]
    name = getattr(getattr(operation.function, "_schema", None), "name", operation.name)
    return Outcome(kept, f"unknown {name}" if one.has_cells() and output else "")


def _is_pointwise(func: Any, name: str) -> bool:
    """Torch's own tag, which operators that work in place often lack."""
    plain = getattr(torch.ops.aten, name, None)
    variants = [func] if plain is None else [func, *(getattr(plain, overload) for overload in plain.overloads())]
    return any(torch.Tag.pointwise in variant.tags for variant in variants)


def _fits(outcome: Outcome, output: Any) -> bool:
    """Whether each output has labels of its own shape."""
    outputs = tensors_in(output)
    labels = outcome.labels if isinstance(outcome.labels, list | tuple) else [outcome.labels] * len(outputs)
    return all(one is None or one.shape == tensor.shape for tensor, one in zip(outputs, labels, strict=False))
