"""Runs a network once while every element of every tensor knows which position it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from horinsight.capture import evaluation
from horinsight.mixers.call_tree import Event, ModuleCall, watched_calls
from horinsight.mixers.labels import FIRST_CELL, POOLED, Grids, Labels
from horinsight.mixers.meetings import one_position_each
from horinsight.mixers.mixing_rules import MIXING_RULES, pointwise
from horinsight.mixers.movement_rules import MOVEMENT_RULES, VALUE_DEPENDENT
from horinsight.mixers.operators import Operation, Outcome, Rule, tensors_in, words
from horinsight.mixers.window_rules import WINDOW_RULES

_RULES: dict[str, Rule] = {**MOVEMENT_RULES, **MIXING_RULES, **WINDOW_RULES}
_MATRIX_PRODUCTS = frozenset({"mm", "bmm", "baddbmm", "addmm"})
# what makes other features of a tensor, of which a product with it is no activation
_OTHER_CHANNELS = (
    frozenset(
        words("convolution split split_with_sizes chunk unbind slice select index gather index_select roll flip glu")
    )
    | _MATRIX_PRODUCTS
)
# in place these change how a tensor is read, and nothing in its storage
_RESHAPES = frozenset(words("transpose t squeeze unsqueeze swapaxes swapdims as_strided detach"))
_PRODUCTS = _MATRIX_PRODUCTS | {"mul", "addcmul"}
_SUMS = frozenset({"add", "sub", "rsub", "lerp"})


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a tensor besides its values.

    Attributes:
        labels: which positions its elements stand for.
        last: the latest event that it depends on.
        branch: the same, but what came in by a sum with an older branch (a residual) counts as the older.
        source: tensors that are functions, position by position and without weights, of one tensor share a number.
        mover: the call that last brought several positions into one axis of channels.
        waits: how all positions were pooled, where none is met yet.
    """

    labels: Labels
    last: int
    branch: int
    source: int
    mover: ModuleCall | None = None
    waits: str = ""


# events that make no mixer: positions keep apart, or meet in a norm or in a map of another size
UNMIXED = frozenset({"norm", "resize", "patchify", "weights"})


class _PlainPaths(TorchFunctionMode):
    """Does nothing: while such a mode is on, torch's transformers leave their fused fast path, in this thread only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


class _Watch(TorchDispatchMode):
    """Keeps labels beside tensors, and a tree of module calls with their events."""

    def __init__(self, model: nn.Module, grids: Grids) -> None:
        super().__init__()
        self.grids = grids
        self.paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        self.root: ModuleCall | None = None
        self.current: ModuleCall | None = None
        self.time = 0
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._outcomes: dict[Any, Outcome] = {}
        self._memories: dict[int, tuple[Tensor, list[Tensor], Known]] = {}  # storages of which a part was overwritten
        self._crowded: dict[int, tuple[Labels, bool]] = {}
        self._sources = itertools.count()

    # what is known of tensors

    def known(self, tensor: Tensor) -> Known | None:
        """What is known of a tensor; None for one that depends on no position."""
        if self._memories:
            memory = self._memories.get(tensor.untyped_storage()._cdata)
            if memory is not None:
                planes = [
                    plane.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()) for plane in memory[1]
                ]
                labels = Labels.from_planes(planes)
                return None if labels is None else replace(memory[2], labels=labels)
        return self._known.get(tensor)

    def label(self, tensor: Tensor, known: Known | None) -> None:
        """Write down what is known of a new tensor."""
        if known is not None:
            self._known[tensor] = known
        elif tensor in self._known:
            del self._known[tensor]

    def overwrite(self, tensor: Tensor, known: Known | None, before: Known | None) -> None:
        """Write down what is known of a tensor that was changed in place: its storage may have other views."""
        labels = None if known is None else known.labels
        if before is not None and labels is not None and labels.same_as(before.labels):
            if not self._memories:
                self.label(tensor, known)
            return
        base = tensor._base if tensor._base is not None else tensor
        if base is tensor and tensor.untyped_storage()._cdata not in self._memories and before is None:
            self.label(tensor, known)
            return
        key = tensor.untyped_storage()._cdata
        old = self._memories.get(key)
        count = max(1 if labels is None else len(labels.planes), 1 if old is None else len(old[1]))
        planes = [] if old is None else list(old[1])
        if old is None:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            planes = [torch.zeros(size, device=tensor.device)]
            whole = self._known.get(base)
            if whole is not None:
                view = planes[0].as_strided(base.shape, base.stride(), base.storage_offset())
                view.copy_(whole.labels.cells.expand(whole.labels.shape))
        while len(planes) < count:
            planes.append(torch.zeros_like(planes[0]))
        for i, plane in enumerate(planes):
            view = plane.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            if labels is None or i >= len(labels.planes):
                view.zero_()
            else:
                view.copy_(labels.planes[i].expand(labels.shape))
        kept = known or before or (old[2] if old else None)
        if kept is not None:
            self._memories[key] = (tensor, planes, kept)

    # operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_in((args, tuple(kwargs.values()))) if kwargs else tensors_in(args)
        several = {id(tensor): known for tensor in tensors if (known := self.known(tensor)) is not None}
        name = func._schema.name.split("::")[-1]
        in_place = name.endswith("_") and not name.endswith("__")
        output = func(*args, **kwargs)
        if not several or self.current is None:
            return output
        outcome = self._outcome(func, name, args, kwargs, output, several)
        short = name.rstrip("_") if in_place else name
        if short in ("addcmul", "addcdiv") and not all(id(factor) in several for factor in args[1:3]):
            short = "add"  # one factor is a parameter
        self._note(short, outcome, output, list(several.values()), args[0] if in_place else None)
        return output

    def _outcome(self, func: Any, name: str, args: Any, kwargs: Any, output: Any, several: dict[int, Known]) -> Outcome:
        """What the rules say; said once for each operator, shapes and labels."""
        short = name.rstrip("_") if name.endswith("_") else name

        def key_of(value: Any) -> Any:
            if isinstance(value, Tensor):
                known = several.get(id(value))
                return (0 if known is None else id(known.labels), value.shape)
            if isinstance(value, list | tuple):
                return tuple(map(key_of, value))
            return value

        key: Any = None
        if short not in VALUE_DEPENDENT:
            key = (func, key_of(args), tuple((word, key_of(value)) for word, value in kwargs.items()))
            try:
                if key in self._outcomes:
                    return self._outcomes[key]
            except TypeError:  # an argument that cannot be a key
                key = None

        def labels_of(value: Any) -> Labels | None:
            known = several.get(id(value))
            return None if known is None else known.labels

        function = getattr(torch.ops.aten, short, func) if short != name else func
        operation = Operation(function, short, args, kwargs, output, labels_of, self.grids)
        rule = _RULES.get(short)
        if rule is None:
            rule = pointwise if self._is_pointwise(func, short) else _unknown
        try:
            outcome = rule(operation)
        except (RuntimeError, IndexError, ValueError, TypeError):  # called in a way that its rule does not know
            outcome = _unknown(operation)
        if not _fitting(outcome, output):
            outcome = _unknown(operation)
        if key is not None:
            self._outcomes[key] = outcome
            self._outcomes.setdefault("alive", []).append([known.labels for known in several.values()])  # type: ignore
        return outcome

    @staticmethod
    def _is_pointwise(func: Any, short: str) -> bool:
        """Torch's own tag, which operators that work in place often lack."""
        plain = getattr(torch.ops.aten, short, None)
        variants = [func] if plain is None else [func, *(getattr(plain, name) for name in plain.overloads())]
        return any(torch.Tag.pointwise in variant.tags for variant in variants)

    def _note(self, name: str, outcome: Outcome, output: Any, several: list[Known], changed: Tensor | None) -> None:
        """Write down the labels of what came out, and the event."""
        assert self.current is not None
        call = self._caller(self.current, several, outcome.event)
        last = max(known.last for known in several)
        branch = max(known.branch for known in several)
        first = several[0]
        mover = next((known.mover for known in reversed(several) if known.mover is not None), None)
        event = outcome.event
        if event == "gate" and name in _MATRIX_PRODUCTS and any(known.waits == "product" for known in several):
            event = "linear_attention"
        if not event and len(several) > 1:
            low, high = min(known.last for known in several), last
            if name in _SUMS and low != high and high > call.start:
                call.sums.append((low, high))
                branch = min(known.branch for known in several)
            elif name in _PRODUCTS and not _paired(outcome.labels) and self._gates(call, several):
                event = "gated"
        if outcome.weighted:
            self.time += 1
            call.events.append(Event(self.time, "weights"))
        if event:
            self.time += 1
            owner = mover if event == "merge" and mover is not None else call
            owner.events.append(Event(self.time, event))
            if event not in UNMIXED:
                last = branch = self.time
            if event == "merge" and owner.input is not None:
                outcome = replace(outcome, labels=_returned(owner.input, outcome.labels))
        waits = outcome.waits or next((known.waits for known in several if known.waits), "")
        if name == "mul" and len({known.source for known in several if known.waits}) > 1:
            waits = "product"  # a gate among what was pooled
        unary = len(several) == 1 and not event and name not in _OTHER_CHANNELS
        outputs = tensors_in(output) if changed is None else [changed]
        labels = outcome.labels if isinstance(outcome.labels, list | tuple) else [outcome.labels] * len(outputs)
        for tensor, one in zip(outputs, labels, strict=False):
            moved = call if name in _GATHERS and self._crowds(first.labels, one) else mover
            source = first.source if unary else next(self._sources)
            new = None if one is None else Known(one, last, branch, source, moved, waits)
            if changed is None or name in _RESHAPES:
                self.label(tensor, new)
            else:
                self.overwrite(tensor, new, self.known(tensor))

    def _crowds(self, before: Labels, after: Labels | None) -> bool:
        """Whether data that moved brought several positions into an axis of channels."""
        if after is None or after is before:
            return False
        return self._is_crowded(after) and not self._is_crowded(before)

    def _is_crowded(self, labels: Labels) -> bool:
        """Whether some axis holds positions beside something else."""
        if id(labels) not in self._crowded:
            crowded = not all(one_position_each(labels, axis) for axis in labels.axes())
            self._crowded[id(labels)] = (labels, crowded)
        return self._crowded[id(labels)][1]

    def _caller(self, call: ModuleCall, several: list[Known], event: str) -> ModuleCall:
        """Whose forward an operator belongs to: a module without parameters that joins its inputs is a function."""
        while call.parent is not None and call.start == self.time and not call.children:
            joins = len(several) > 1 and sum(labels is not None for labels in call.inputs) > 1
            if not (joins or event == "softmax") or any(True for _ in call.module.parameters()):
                break
            call = call.parent
        return call

    @staticmethod
    def _gates(call: ModuleCall, several: list[Known]) -> bool:
        """Whether a product in a module's own forward is of what a mixer inside it made: a gate.

        A function of a single position times another function of the same tensor is an activation.
        """
        if len({known.source for known in several}) == 1 or not all(known.labels.has_cells() for known in several):
            return False
        inside = [known.last > call.start for known in several]
        return any(inside) and (not all(inside) or any(known.branch > call.start for known in several))

    # modules

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A module's forward begins."""
        call = ModuleCall(module, self.paths.get(id(module), ""), self.current, self.time)
        if self.current is None:
            self.root = call
        else:
            self.current.children.append(call)
        call.inputs = [
            None if (known := self.known(tensor)) is None else known.labels for tensor in tensors_in(arguments)
        ]
        call.input = next((labels for labels in call.inputs if labels is not None and labels.has_cells()), None)
        self.current = call

    def leave(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        """A module's forward ends: what pooled all positions and has its input's shape again mixed them."""
        call = self.current
        while call is not None and call.module is not module:  # a call that ended by an exception somebody caught
            call = call.parent
        if call is None:
            return
        more = tensors_in(tuple(keywords.values()))
        call.inputs += [None if (known := self.known(tensor)) is None else known.labels for tensor in more]
        call.input = next((labels for labels in call.inputs if labels is not None and labels.has_cells()), None)
        for tensor in tensors_in(output):
            known = self.known(tensor)
            if known is None:
                continue
            if call.input is not None:
                known = self._closed(call, known)
                if self.known(tensor) is not known:
                    self.overwrite(tensor, known, None)
            if call.output is None:
                call.output = known.labels
        call.end = self.time
        self.current = call.parent

    def _closed(self, call: ModuleCall, known: Known) -> Known:
        """What is known of an output, as the rest of the network is to see it."""
        before, after = call.input, known.labels
        assert before is not None
        axes = before.axes()
        fits = len(before.shape) == len(after.shape) and all(before.shape[i] == after.shape[i] for i in axes)
        if not fits or before.partners is not None or before.cells is after.cells or self._is_crowded(before):
            return known
        pooled = (before.cells >= FIRST_CELL) & (after.cells == POOLED)
        if bool(pooled.any()):
            self.time += 1
            call.events.append(Event(self.time, f"all {known.waits or 'pooling'}"))
            known = replace(known, last=self.time, branch=self.time, waits="")
        elif self.time == call.start or after.same_as(replace(before, shape=after.shape)):
            return known
        elif _one_to_one(before.cells, after):
            if all(event.what in UNMIXED for event in call.events):
                return known  # what is inside moved them
        elif not any(event.what not in UNMIXED for inner in call.walk() for event in inner.events):
            self.time += 1  # patches that went into channels came back as a map
            call.events.append(Event(self.time, "merge"))
            known = replace(known, last=self.time, branch=self.time)
        prefix = torch.maximum(before.cells, (after.cells == POOLED) * POOLED)
        labels = Labels.of(torch.where(before.cells >= FIRST_CELL, before.cells, prefix), shape=after.shape)
        return known if labels is None else replace(known, labels=labels)


_GATHERS = frozenset(
    words(
        "cat stack roll index gather index_select im2col unfold view _unsafe_view permute as_strided pixel_unshuffle "
        "slice_scatter copy index_put"
    )
)


def _fitting(outcome: Outcome, output: Any) -> bool:
    """Whether each output has labels of its own shape."""
    outputs = tensors_in(output)
    labels = outcome.labels if isinstance(outcome.labels, list | tuple) else [outcome.labels] * len(outputs)
    return all(one is None or one.shape == tensor.shape for tensor, one in zip(outputs, labels, strict=False))


def _paired(labels: Any) -> bool:
    """Whether a product made scores of pairs, which are no gate yet."""
    return isinstance(labels, Labels) and labels.partners is not None


def _returned(before: Labels, after: Any) -> Any:
    """The labels of what reads moved positions: those that the module that moved them was given, where they fit."""
    if not isinstance(after, Labels) or len(before.shape) != len(after.shape) or before.partners is not None:
        return after
    if any(before.shape[axis] != after.shape[axis] for axis in before.axes()):
        return after
    return Labels.of(before.cells, shape=after.shape)


def _one_to_one(before: Tensor, after: Labels) -> bool:
    """Whether the cells are the same, at other places."""
    if after.partners is not None:
        return False
    a, b = before[before >= FIRST_CELL], after.cells[after.cells >= FIRST_CELL]
    return a.shape == b.shape and torch.equal(a.sort().values, b.sort().values)


def _unknown(operation: Operation) -> Outcome:
    """An operator that no rule knows, or called as no rule knows it: it counts as mixing, and is named."""
    output = tensors_in(operation.output)
    several = [labels for tensor in operation.tensors() if (labels := operation.labels_of(tensor)) is not None]
    one = next((labels for labels in several if labels.has_cells()), None)
    if one is None or not output:
        return Outcome(several[0] if several and output and several[0].shape == tuple(output[0].shape) else None)
    fits = [labels if tuple(tensor.shape) == labels.shape else None for tensor in output for labels in [one]]
    return Outcome(
        fits, f"unknown {operation.function._schema.name if hasattr(operation.function, '_schema') else operation.name}"
    )


def watched(model: nn.Module, images: Tensor) -> tuple[ModuleCall, Grids]:
    """The tree of module calls of one forward pass, with what met in each, and the maps of the pass.

    Args:
        model: any network; lent in eval mode and given back as it was.
        images: (1, C, H, W).

    Returns:
        The network's own call, and the maps.
    """
    grids = Grids(images.device)
    with torch.no_grad(), evaluation(model), _PlainPaths():
        watch = _Watch(model, grids)
        cells = Labels.of(grids.cells(*images.shape[-2:]), shape=images.shape)
        assert cells is not None
        watch.label(images, Known(cells, 0, 0, 0))
        with watched_calls(watch.enter, watch.leave), watch:
            model(images)
    assert watch.root is not None
    return watch.root, grids
