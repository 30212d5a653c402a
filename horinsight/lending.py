"""Lends what belongs to a model: modes, flags and forward methods, all given back.

Threads may share a model. A replaced forward pass is that of the thread that asked for it: the others run the module as
it is. Modes and `requires_grad` are flags of the module itself; who comes first sets them, and who leaves last gives
them back. Nothing waits for anybody, so nothing can wait forever.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")

RECORDS = threading.RLock()  # guards the records of what is lent; never held while a module runs


@dataclass
class _Loan:
    """An attribute, or an entry of a dictionary, that is another one for somebody, and what it was before."""

    thing: Any
    name: str
    before: Any
    borrowers: int = 0


_loans: dict[tuple[int, str], _Loan] = {}  # by id: a loan holds what it lends, so that no other object has it


def _borrow(thing: Any, name: str, value: Any) -> None:
    """Set an attribute, or an entry of a dictionary, until everybody who asked for it has given it back."""
    now = _value(thing, name)
    loan = _loans.setdefault((id(thing), name), _Loan(thing, name, now))
    loan.borrowers += 1
    if now is loan.before and now is not value:
        _set_value(thing, name, value)


def _give_back(thing: Any, name: str) -> None:
    loan = _loans[id(thing), name]
    loan.borrowers -= 1
    if not loan.borrowers:
        del _loans[id(thing), name]
        if _value(thing, name) is not loan.before:
            _set_value(thing, name, loan.before)


def _value(thing: Any, name: str) -> Any:
    return thing[name] if isinstance(thing, dict) else getattr(thing, name)


def _set_value(thing: Any, name: str, value: Any) -> None:
    if isinstance(thing, dict):
        thing[name] = value
    else:
        setattr(thing, name, value)


@contextmanager
def evaluation(module: nn.Module) -> Iterator[nn.Module]:
    """Lend a module in eval mode, with frozen parameters and `as_written`; all is as before when the context closes.

    Several threads may do so with one module, or with modules that share parts or weights: everything is as before when
    the last of them is done.

    Args:
        module: any module; each of its submodules gets its own training flag back, each parameter its `requires_grad`
            (in place of those made under `torch.inference_mode`, which autograd cannot record, copies are lent).

    Example:
        >>> layer = nn.Dropout().train()
        >>> with evaluation(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    parts = list(module.modules())  # once: a walk over a large network takes a millisecond
    weights = {weight for part in parts for weight in part._parameters.values() if weight is not None}
    flags: list[tuple[Any, str, Any]] = [(part, "training", False) for part in parts]
    flags += [(weight, "requires_grad", False) for weight in weights if not weight.is_inference()]
    with _lent(flags), _lent(_recordable(parts)), _as_written(parts):
        yield module


class _MethodByThread:
    """A method that is another one for some threads. What deep copies of the module have is its own."""

    def __init__(self, module: nn.Module, method: str) -> None:
        self.replaced = module.__dict__.get(method)
        self.own = getattr(module, method)
        self.lent: dict[int, list[Callable[..., Any]]] = {}

    def current(self) -> Callable[..., Any]:
        """What the calling thread runs."""
        lent = self.lent.get(get_ident())
        return lent[-1] if lent else self.own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.current()(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.own, memo)  # a bound method, to be bound to the copy


@contextmanager
def wrapped_forward(
    module: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *, method: str = "forward"
) -> Iterator[nn.Module]:
    """Lend a module whose forward pass is `wrap(forward)` in this thread, and the class's own in all others.

    Args:
        module: any module.
        wrap: what to make of its forward function.
        method: another method that is called in its place, such as timm's `forward_features`.

    Example:
        >>> with wrapped_forward(nn.Identity(), lambda forward: lambda x: 2 * forward(x)) as doubled:
        ...     doubled(torch.ones(1)).item()
        2.0
    """
    owner = get_ident()
    with RECORDS:
        found = module.__dict__.get(method)
        by_thread = found if isinstance(found, _MethodByThread) else _MethodByThread(module, method)
        mine = wrap(by_thread.current())
        by_thread.lent.setdefault(owner, []).append(mine)
        module.__dict__[method] = by_thread
    try:
        yield module
    finally:
        with RECORDS:
            by_thread.lent[owner].remove(mine)
            if not by_thread.lent[owner]:
                del by_thread.lent[owner]
            if not by_thread.lent and by_thread.replaced is None:
                del module.__dict__[method]
            elif not by_thread.lent:
                module.__dict__[method] = by_thread.replaced


def has_own_forward(module: nn.Module) -> bool:
    """Whether a module runs its class's forward pass, but for what is lent to it here: nobody has patched it.

    Example:
        >>> layer = nn.Identity()
        >>> with wrapped_forward(layer, lambda forward: forward):
        ...     has_own_forward(layer)
        True
        >>> layer.forward = torch.relu
        >>> has_own_forward(layer)
        False
    """
    found = vars(module).get("forward")
    return (found.replaced if isinstance(found, _MethodByThread) else found) is None


@contextmanager
def _lent(things: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Lend attributes of objects, or entries of dictionaries, until the last who asked for them is done."""
    borrowed: list[tuple[Any, str]] = []
    try:
        with RECORDS:
            for thing, name, value in things:
                if (id(thing), name) in _loans or _value(thing, name) is not value:  # else it is as it is wanted
                    _borrow(thing, name, value)
                    borrowed.append((thing, name))
        yield
    finally:
        with RECORDS:
            for thing, name in borrowed:
                _give_back(thing, name)


def _recordable(parts: list[nn.Module]) -> list[tuple[Any, str, Any]]:
    """Copies to lend in place of tensors that were made under `torch.inference_mode`, unless it is on anyway."""
    registries: list[dict[str, Any]] = [own for part in parts for own in (part._parameters, part._buffers)]
    entries = [(own, name, value) for own in registries for name, value in own.items() if value is not None]
    with RECORDS:
        lent = {(id(own), name) for own, name, _ in entries if (id(own), name) in _loans}
    if torch.is_inference_mode_enabled():
        return []
    made = [entry for entry in entries if entry[2].is_inference() or (id(entry[0]), entry[1]) in lent]
    copies = {id(value): value.detach().clone() for _, _, value in made}  # a shared weight stays shared
    return [(own, name, copies[id(value)]) for own, name, value in made]


@contextmanager
def as_written(module: nn.Module) -> Iterator[nn.Module]:
    """Lend a module with its compiled and parallel parts called as they are written, one process, one device, eagerly.

    Compiled code does not look at hooks that come after it; `DistributedDataParallel` waits for other processes, and
    `DataParallel` runs on copies.

    Args:
        module: any module, itself or its parts in `torch.compile`, `Module.compile` or torch's parallel wrappers.

    Example:
        >>> from torch.nn import DataParallel
        >>> with as_written(DataParallel(nn.Identity())) as lent:
        ...     lent(torch.ones(1)).item()
        1.0
    """
    with _as_written(list(module.modules())):
        yield module


@contextmanager
def _as_written(parts: list[nn.Module]) -> Iterator[None]:
    with ExitStack() as stack:
        compiled = [part for part in parts if "_compiled_call_impl" in vars(part)]
        stack.enter_context(_lent([(part, "_compiled_call_impl", None) for part in compiled]))
        for part in parts:
            inner = called_through(part)
            if inner is not None:
                stack.enter_context(wrapped_forward(part, partial(_instead, inner.__call__)))
        yield


def _instead(call: Callable[..., Any], _: Callable[..., Any]) -> Callable[..., Any]:
    return call


def called_through(module: nn.Module) -> nn.Module | None:
    """The module inside a compiled or parallel wrapper, which computes nothing by itself; None for other modules.

    Example:
        >>> inner = nn.ReLU()
        >>> called_through(nn.DataParallel(inner)) is inner, called_through(inner)
        (True, None)
    """
    if "_orig_mod" in module._modules:  # torch.compile's, whose class costs a second to import
        return module._modules["_orig_mod"]
    return module.module if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def own_copy(thing: T, memo: dict[int, Any] | None = None) -> T:
    """A deep copy of modules that other threads may have borrowed, made while none of them borrows or gives back.

    Args:
        thing: anything that holds modules.
        memo: of `copy.deepcopy`: what stands for parts that are not to be copied, by their ids.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> own_copy(layer) is layer
        False
    """
    with RECORDS:
        return copy.deepcopy(thing, memo)
