"""Runs a network once while every element of every tensor knows which position it stands for."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from horinsight.capture import evaluation
from horinsight.hooks import watched_calls
from horinsight.mixers.call_tree import UNMIXED, Event, ModuleCall
from horinsight.mixers.exits import exit_labels, returned
from horinsight.mixers.known_values import is_a_spectrum, is_a_value, is_gated
from horinsight.mixers.labels import Grids, Labels
from horinsight.mixers.meetings import one_position_each
from horinsight.mixers.operators import Outcome, tensors_in, words
from horinsight.mixers.rule_book import RuleBook
from horinsight.mixers.tensor_knowledge import Known, TensorKnowledge
from horinsight.mixers.unrolled import is_recurrence, steps_of_a_loop
from horinsight.torch_private import DispatchMode, without_torch_function

_MATRIX_PRODUCTS = frozenset({"mm", "bmm", "baddbmm", "addmm"})
# what makes other features of a tensor, of which a product with it is no activation
_OTHER_CHANNELS = (
    frozenset(
        words("convolution split split_with_sizes chunk unbind slice select index gather index_select roll flip glu")
    )
    | _MATRIX_PRODUCTS
)
# what can bring several positions into one axis
_GATHERS = frozenset(
    words(
        "cat stack roll index gather index_select im2col unfold view _unsafe_view permute as_strided pixel_unshuffle "
        "slice_scatter copy index_put"
    )
)
# in place these change how a tensor is read, and nothing in its storage
_RESHAPES = frozenset(words("transpose t squeeze unsqueeze swapaxes swapdims as_strided detach"))
_PRODUCTS = _MATRIX_PRODUCTS | {"mul", "addcmul"}
_SUMS = frozenset({"add", "sub", "rsub", "lerp"})


@dataclass(frozen=True, eq=False)
class SeenOperator:
    """An operator in which positions met.

    Attributes:
        number: which of all calls of this operator it is, from 1.
        name: its short name ("bmm").
        arguments: the positional ones.
        output: what it returned.
        labels: of its tensors, by their ids, as they were before.
        event: how positions met.
    """

    number: int
    name: str
    arguments: tuple[Any, ...]
    output: Any
    labels: Mapping[int, Labels]
    event: str


Listener = Callable[[SeenOperator], None]


class _PlainPaths(TorchFunctionMode):
    """Does nothing: while such a mode is on, torch's transformers leave their fused fast path, in this thread only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


class _Watch(DispatchMode):
    """Keeps labels beside tensors, and a tree of module calls with their events."""

    def __init__(
        self,
        model: nn.Module,
        grids: Grids,
        known: Sequence[tuple[Tensor, Labels | None]],
        listener: Listener | None = None,
    ) -> None:
        super().__init__()
        self._listener = listener
        self._num_called: Counter[str] = Counter()
        self.root: ModuleCall | None = None
        self._paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        self._current: ModuleCall | None = None
        self._time = 0
        self._knowledge = TensorKnowledge()
        for tensor, labels in known:
            self._knowledge.learn(tensor, None if labels is None else Known(labels))
        self._grids = grids
        self._rules = RuleBook(grids)
        self._crowded: dict[int, tuple[Labels, bool]] = {}
        self._sources = itertools.count(1)

    # operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._num_called[func._schema.name] += 1
        tensors = tensors_in((args, tuple(kwargs.values()))) if kwargs else tensors_in(args)
        several = {id(tensor): known for tensor in tensors if (known := self._knowledge.of(tensor)) is not None}
        output = func(*args, **kwargs)
        if not several or self._current is None:
            return output
        name = func._schema.name.split("::")[-1]
        in_place = name.endswith("_") and not name.endswith("__")
        name = name.rstrip("_") if in_place else name
        labels = {tensor: known.labels for tensor, known in several.items()}
        outcome = self._rules.outcome(func, name, args, kwargs, output, labels)
        if name in ("addcmul", "addcdiv") and not all(id(factor) in several for factor in args[1:3]):
            name = "add"  # one factor is a parameter
        self._note(name, outcome, output, list(several.values()), args[0] if in_place else None)
        if self._listener is not None and outcome.event:
            self._listener(SeenOperator(self._num_called[func._schema.name], name, args, output, labels, outcome.event))
        return output

    def _note(self, name: str, outcome: Outcome, output: Any, several: list[Known], changed: Tensor | None) -> None:
        """Write down the event, and what is known of what came out."""
        assert self._current is not None
        call = self._caller(self._current, several, outcome.event)
        mover = next((known.mover for known in reversed(several) if known.mover is not None), None)
        branch = max(known.branch for known in several)
        outputs = tensors_in(output) if changed is None else [changed]
        event = self._event(name, outcome, several, call) if any(map(is_a_value, outputs)) else ""
        if not event and name in _SUMS and self._joins_branches(several, call):
            branch = min(known.branch for known in several)
        if outcome.before:
            self._happened(call, outcome.before)
        steps = max(known.steps for known in several)
        if event in ("gate", "shift") and name not in _MATRIX_PRODUCTS:
            placed = [known.labels for known in several if known.labels.has_cells()]
            steps = steps_of_a_loop([known.steps for known in several], placed, outcome.labels)
            event = "recurrence" if is_recurrence(steps, outcome.labels, self._grids) else event
        if event in ("gate", "gated", "bias") and any(map(is_a_spectrum, several)):
            self._happened(call, "all fft")
        if event:
            owner = mover if event == "merge" and mover is not None else call
            self._happened(owner, event)
            if event == "merge" and owner.input is not None:
                outcome = replace(outcome, labels=returned(owner.input, outcome.labels))
        mixed = bool(event) and event not in UNMIXED
        last = self._time if mixed else max(known.last for known in several)
        branch = self._time if mixed else branch
        touched = self._time if event or outcome.before else max(known.touched for known in several)
        waits = outcome.waits or next((known.waits for known in several if known.waits), "")
        if name == "mul" and len({known.source for known in several if known.waits}) > 1:
            waits = "product"  # a gate among what was pooled
        unary = len(several) == 1 and not event and name not in _OTHER_CHANNELS
        labels = outcome.labels if isinstance(outcome.labels, list | tuple) else [outcome.labels] * len(outputs)
        for tensor, one in zip(outputs, labels, strict=False):
            source = several[0].source if unary else next(self._sources)
            moved = call if name in _GATHERS and self._crowds(several[0].labels, one) else mover
            known = None if one is None else Known(one, last, branch, source, moved, waits, steps, touched)
            if changed is None or name in _RESHAPES:
                self._knowledge.learn(tensor, known)
            else:
                self._knowledge.overwrite(tensor, known)

    def _happened(self, call: ModuleCall, what: str) -> None:
        self._time += 1
        call.events.append(Event(self._time, what))

    @staticmethod
    def _event(name: str, outcome: Outcome, several: list[Known], call: ModuleCall) -> str:
        """What an operator did, as its rule says or as what came before it says."""
        if outcome.event == "gate" and name in _MATRIX_PRODUCTS and any(known.waits == "product" for known in several):
            return "linear_attention"
        paired = isinstance(outcome.labels, Labels) and outcome.labels.partners is not None
        if not outcome.event and name in _PRODUCTS and not paired and is_gated(call, several):
            return "gated"
        return outcome.event

    @staticmethod
    def _joins_branches(several: list[Known], call: ModuleCall) -> bool:
        """Whether a sum in a module's own forward is of a branch with a mixer and one without it: a residual block."""
        low, high = min(known.last for known in several), max(known.last for known in several)
        if len(several) < 2 or low == high or high <= call.start:
            return False
        call.sums.append((low, high))
        return True

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
        while call.parent is not None and call.start == self._time and not call.children:
            joins = len(several) > 1 and sum(labels is not None for labels in call.inputs) > 1
            if not (joins or event in ("softmax", "window_softmax")) or any(True for _ in call.module.parameters()):
                break
            call = call.parent
        return call

    # modules

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A module's forward begins; that of one that the network has not registered is its caller's."""
        if id(module) not in self._paths:
            return
        call = ModuleCall(module, self._paths[id(module)], self._current, self._time)
        if self._current is None:
            self.root = call
        else:
            self._current.children.append(call)
        self._receive(call, arguments)
        self._current = call

    def _receive(self, call: ModuleCall, arguments: tuple[Any, ...]) -> None:
        tensors = tensors_in(arguments)
        call.receive(self._knowledge.labels_of(tensors), [tuple(tensor.shape) for tensor in tensors])

    def leave(self, module: nn.Module, keywords: dict[str, Any], output: Any) -> None:
        """A module's forward ends."""
        call = self._current if id(module) in self._paths else None
        while call is not None and call.module is not module:  # calls inside that ended by an exception that was caught
            call = call.parent
        if call is None:
            return
        self._receive(call, tuple(keywords.values()))
        crowded = call.input is not None and self._is_crowded(call.input)
        for index, tensor in enumerate(tensors_in(output)):
            known = self._knowledge.of(tensor)
            if known is None:
                continue
            labels, did = exit_labels(call, known.labels, crowded, touched=known.touched > call.start)
            labels = self._rules.same(labels)
            if did:
                self._happened(call, f"all {known.waits or 'pooling'}" if did == "all" else did)
                known = replace(known, last=self._time, branch=self._time, waits="", touched=self._time)
            if labels is not known.labels:
                self._knowledge.learn(tensor, replace(known, labels=labels))
            elif did:
                self._knowledge.learn(tensor, known)
            if call.output is None:
                call.output, call.output_index = labels, index
        self._current = call.parent


def watched(
    model: nn.Module, images: Tensor, *, cells: Callable[[Grids], Tensor] | None = None
) -> tuple[ModuleCall, Grids]:
    """The tree of module calls of one forward pass, with what met in each, and the maps of the pass.

    Args:
        model: any network; lent in eval mode and given back as it was.
        images: (1, C, H, W), or what else enters.
        cells: from maps to the cells of what enters, which spread over its shape; those of (1, C, H, W) when None.

    Returns:
        The network's own call, and the maps.
    """
    grids = Grids(torch.device("cpu") if images.device.type == "meta" else images.device)
    plane = grids.cells(*images.shape[-2:]) if cells is None else cells(grids)
    labels = Labels.of(plane, shape=images.shape)
    assert labels is not None
    with ExitStack() as stack:
        # inference mode hides from a dispatch mode what operators are made of
        for context in (torch.inference_mode(False), torch.no_grad(), evaluation(model)):
            stack.enter_context(context)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(_PlainPaths())
        images = images.clone() if images.is_inference() else images
        watch = _Watch(model, grids, [(images, labels)])
        with watched_calls(model.modules(), watch.enter, watch.leave), watch:
            model(images)
    assert watch.root is not None
    return watch.root, grids


def listened(
    module: nn.Module,
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
    known: Sequence[tuple[Tensor, Labels | None]],
    grids: Grids,
    listener: Listener | None = None,
    within: Callable[[TensorKnowledge], AbstractContextManager[Any]] | None = None,
) -> Any:
    """Run one module while every element of its tensors knows its position, and tell of operators where positions meet.

    Args:
        module: of a network that is lent in eval mode. Its forward is run by itself: hooks on it are not.
        arguments: positional ones, and those by keyword.
        known: tensors among them, and their labels.
        grids: the maps that labels are of.
        listener: called after each operator in which positions meet.
        within: from what is known of tensors to a context that the module runs in.

    Returns:
        The module's output.
    """
    args, kwargs = arguments
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]), _PlainPaths():
        watch = _Watch(module, grids, known, listener)
        inside = [part for part in module.modules() if part is not module]

        def enter(part: nn.Module, given: tuple[Any, ...]) -> None:
            with without_torch_function():  # what labels are made of is not the module's
                watch.enter(part, given)

        def leave(part: nn.Module, keywords: dict[str, Any], output: Any) -> None:
            with without_torch_function():
                watch.leave(part, keywords, output)

        watch.enter(module, args)
        context = nullcontext() if within is None else within(watch._knowledge)
        with watched_calls(inside, enter, leave), watch, context:
            return module.forward(*args, **kwargs)
