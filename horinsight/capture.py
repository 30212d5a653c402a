"""The only place that touches a foreign module: hooks, modes and replaced forward passes, all of them lent.

Threads may share a model. Hooks and replaced forward passes are those of the thread that asked for them: the others run
the module as it is. Modes and `requires_grad` are flags of the module itself; who comes first sets them, and who leaves
last gives them back. Nothing waits for anybody, so nothing can wait forever.
"""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

T = TypeVar("T")

_RECORDS = threading.RLock()  # guards the records of what is lent; never held while a module runs


@dataclass(frozen=True)
class Call:
    """One call of a captured module: its arguments and its result.

    The arguments are as they were when the call began: where the module changed one in place, a copy from before. The
    result is not copied.

    Attributes:
        inputs: the positional arguments.
        output: the result.
        kwargs: the keyword arguments, in the order of the module's signature.
        number: which call of this module it is since the capture began, from 1.
    """

    inputs: tuple[Any, ...]
    output: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    number: int = 1

    @property
    def input(self) -> Tensor:
        """The first tensor among the arguments, positional ones first.

        Raises:
            ValueError: none of them is a tensor.
        """
        for value in (*self.inputs, *self.kwargs.values()):
            if isinstance(value, Tensor):
                return value
        kinds = ", ".join(type(value).__name__ for value in (*self.inputs, *self.kwargs.values())) or "nothing"
        raise ValueError(f"A module is expected to be called with a tensor, got {kinds}: it cannot be measured.")


def call_name(path: str, number: int) -> str:
    """What the n-th call of a module in one forward pass is called.

    Example:
        >>> call_name("head.conv", 1), call_name("head.conv", 2)
        ('head.conv', 'head.conv#2')
    """
    return path if number == 1 else f"{path}#{number}"


@contextmanager
def capture(
    modules: Mapping[str, nn.Module], *, keep: Callable[[nn.Module, Call], Any] | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Record every call of the given modules that this thread makes while the context is open.

    The hooks are removed when the context closes, whether it ends well, by an error of the caller or by a module that
    raises. Nothing else of the model is touched.

    Args:
        modules: the modules to watch, by the names under which their calls are wanted.
        keep: what to keep of a call, `keep(module, call)`; the call itself when None. Whatever it returns is stored, so
            a reduction here keeps memory small.

    Yields:
        For each name the list of what was kept, in the order of the calls; filled as the model runs.

    Raises:
        TypeError: something that is not a module.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with capture({"linear": model[0]}) as calls:
        ...     _ = model(torch.zeros(1, 3))
        >>> calls["linear"][0].output.shape
        torch.Size([1, 2])
    """
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise TypeError(f"capture expects modules, got {type(module).__name__} under the name {name!r}.")
    kept: dict[str, list[Any]] = {name: [] for name in modules}

    def watched(name: str, module: nn.Module) -> list[RemovableHandle]:
        begun: list[dict[int, _Before]] = []

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            begun.append({id(x): _Before(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)})

        def leave(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = begun.pop() if begun else {}  # one that was running when the capture began

            def as_it_was(value: Any) -> Any:
                return before[id(value)].value() if id(value) in before else value

            inputs = tuple(as_it_was(value) for value in args)
            named = {key: as_it_was(value) for key, value in kwargs.items()}
            call = Call(inputs, output, named, len(kept[name]) + 1)
            kept[name].append(call if keep is None else keep(module, call))

        return _hooked(module, enter, leave)

    handles: list[RemovableHandle] = []
    try:
        for name, module in modules.items():
            handles += watched(name, module)
        yield kept
    finally:
        _remove(handles)


class _Before:
    """A tensor as it is now: a copy is at hand while a module runs, and dropped if the module did not write into it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.copy = tensor if tensor.is_meta else tensor.detach().clone()
        self.version = None if tensor.is_inference() else tensor._version

    def value(self) -> Tensor:
        """The tensor itself where it is as it was."""
        if self.version is None:  # tensors of inference mode do not count who writes into them
            return self.copy
        return self.tensor if self.tensor._version == self.version else self.copy


def _hooked(
    module: nn.Module, enter: Callable[..., Any] | None = None, leave: Callable[..., Any] | None = None
) -> list[RemovableHandle]:
    """Hooks that see what this thread calls: `enter(args, kwargs)` before, `leave(args, kwargs, output)` after."""
    owner = get_ident()

    def hook_of(seen: Callable[..., Any]) -> Callable[..., Any]:
        # another thread may come here while torch has only half of the hook, and then without `kwargs`
        def hook(called: nn.Module, *given: Any) -> Any:
            if called is not module or get_ident() != owner:
                return None
            args, kwargs, *output = given
            return seen(args, _as_declared(module, kwargs), *output)

        return hook

    handles = []
    with _RECORDS:
        if enter is not None:
            handles.append(module.register_forward_pre_hook(hook_of(enter), with_kwargs=True))
        if leave is not None:
            handles.append(module.register_forward_hook(hook_of(leave), with_kwargs=True))
    return handles


def _as_declared(module: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments in the order of the module's signature, which says what comes first."""
    if len(kwargs) < 2:
        return kwargs
    declared = [name for name in inspect.signature(type(module).forward).parameters if name in kwargs]
    return {name: kwargs[name] for name in dict.fromkeys((*declared, *kwargs))}


def _remove(handles: list[RemovableHandle]) -> None:
    with _RECORDS:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(
    module: nn.Module,
    *,
    input: Callable[[Tensor, int], Tensor] | None = None,
    output: Callable[[Any, int], Any] | None = None,
) -> Iterator[None]:
    """Let a module work on another first tensor than it is called with, or its callers on another output.

    Args:
        module: any module; what other threads make of it stays as it is.
        input: from the first tensor among the arguments, and the number of the call from 1, to what takes its place.
        output: likewise from the output.

    Example:
        >>> layer = nn.Identity()
        >>> with replaced(layer, input=lambda x, call: x + call, output=lambda y, call: 10 * y):
        ...     layer(torch.zeros(1)).item(), layer(torch.zeros(1)).item()
        (10.0, 20.0)
    """
    entered = left = 0

    def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal entered
        entered += 1
        assert input is not None
        return _with_first_tensor(args, kwargs, lambda x: input(x, entered))

    def leave(args: tuple[Any, ...], kwargs: dict[str, Any], given: Any) -> Any:
        nonlocal left
        left += 1
        assert output is not None
        return output(given, left)

    handles = _hooked(module, enter if input is not None else None, leave if output is not None else None)
    try:
        yield
    finally:
        _remove(handles)


def _with_first_tensor(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call with another first tensor, positional ones first; as they are where there is none."""
    for place, value in enumerate(args):
        if isinstance(value, Tensor):
            return (*args[:place], change(value), *args[place + 1 :]), dict(kwargs)
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            return args, {**kwargs, name: change(value)}
    return args, dict(kwargs)


@contextmanager
def running(model: nn.Module) -> Iterator[list[tuple[str, int]]]:
    """Which modules of a model this thread is in, outermost first.

    Yields:
        Path and number of the call, from 1, of each; "" is the model. Changes as the model runs.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> with running(model) as inside, wrapped_forward(model[0], lambda _: lambda x: list(inside)):
        ...     model(torch.zeros(1))
        [('', 1), ('0', 1)]
    """
    inside: list[tuple[str, int]] = []

    def watched(path: str, module: nn.Module) -> list[RemovableHandle]:
        calls = 0

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal calls
            calls += 1
            inside.append((path, calls))

        def leave(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            while inside.pop()[0] != path:  # what raised, and was caught, never left
                pass

        return _hooked(module, enter, leave)

    handles: list[RemovableHandle] = []
    try:
        for path, module in model.named_modules():
            handles += watched(path, module)
        yield inside
    finally:
        _remove(handles)


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
    flags: list[tuple[Any, str, Any]] = [(part, "training", False) for part in module.modules()]
    flags += [(weight, "requires_grad", False) for weight in module.parameters() if not weight.is_inference()]
    with _lent(flags), _lent(_recordable(module)), as_written(module):
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
    with _RECORDS:
        found = module.__dict__.get(method)
        by_thread = found if isinstance(found, _MethodByThread) else _MethodByThread(module, method)
        mine = wrap(by_thread.current())
        by_thread.lent.setdefault(owner, []).append(mine)
        module.__dict__[method] = by_thread
    try:
        yield module
    finally:
        with _RECORDS:
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
    borrowed = 0
    try:
        with _RECORDS:
            for thing, name, value in things:
                _borrow(thing, name, value)
                borrowed += 1
        yield
    finally:
        with _RECORDS:
            for thing, name, _ in things[:borrowed]:
                _give_back(thing, name)


def _recordable(module: nn.Module) -> list[tuple[Any, str, Any]]:
    """Copies to lend in place of tensors that were made under `torch.inference_mode`, unless it is on anyway."""
    registries: list[dict[str, Any]] = [own for part in module.modules() for own in (part._parameters, part._buffers)]
    entries = [(own, name, value) for own in registries for name, value in own.items() if value is not None]
    with _RECORDS:
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
    with ExitStack() as stack:
        compiled = [part for part in module.modules() if "_compiled_call_impl" in vars(part)]
        stack.enter_context(_lent([(part, "_compiled_call_impl", None) for part in compiled]))
        for part in module.modules():
            inner = called_through(part)
            if inner is not None:
                stack.enter_context(wrapped_forward(part, partial(_instead, inner.__call__)))
        yield module


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
    with _RECORDS:
        return copy.deepcopy(thing, memo)


def image_size_of(images: object) -> tuple[int, int]:
    """(H, W) of a batch of images.

    Raises:
        TypeError: not one tensor.
        ValueError: something else than (B, C, H, W), or no image.

    Example:
        >>> image_size_of(torch.zeros(1, 3, 96, 64))
        (96, 64)
    """
    check_batch(images)
    assert isinstance(images, Tensor)
    return int(images.shape[2]), int(images.shape[3])


def run(model: nn.Module, images: Tensor) -> Tensor:
    """`model(images)`, with images that the model does not take as one line.

    Raises:
        TypeError: `images` is not one tensor.
        ValueError: it is not (B, C, H, W), has another dtype or device than the model's weights, or the model asserts
            something about it (Swin and ViT of timm: their size).

    Example:
        >>> run(nn.AvgPool2d(2), torch.zeros(1, 1, 2, 2)).item()
        0.0
    """
    check_batch(images)
    with misfits_explained(model, images):
        return model(images.clone())  # which a model may normalise in place


@contextmanager
def misfits_explained(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Turn the error of a module that was not made for x into one line that says so.

    Raises:
        ValueError: x has another dtype, device or number of channels than the module takes, or the module asserts
            something about it.
    """
    try:
        yield
    except AssertionError as error:
        size = "x".join(str(side) for side in x.shape[2:])
        raise ValueError(f"{type(module).__name__} does not take images of {size} pixels: {error}") from error
    except (RuntimeError, TypeError) as error:
        reason = _misfit_of(module, x, error)
        if reason is None:
            raise
        raise ValueError(f"{type(module).__name__} {reason}") from error


def _misfit_of(module: nn.Module, x: Tensor, error: Exception) -> str | None:
    """Why a module failed on x, where it is x; None for other errors."""
    weights = [tensor for tensor in module.parameters() if tensor.is_floating_point()]
    if weights and weights[0].is_meta and not x.is_meta:
        return "is on the meta device, without weights: build it with create_model."
    if weights and (x.dtype, x.device.type) not in {(value.dtype, value.device.type) for value in weights}:
        dtype, device = weights[0].dtype, weights[0].device
        convert = f"convert it with .to({str(device)!r}, {dtype})"
        advice = convert if x.is_floating_point() else "prepare pictures with image_batch(model, pictures)"
        return f"computes in {_short(dtype)} on {device}, got {_short(x.dtype)} on {x.device}: {advice}."
    if any(words in str(error) for words in ("channels", "number of dimensions")):
        return f"does not take images of shape {tuple(x.shape)}: {first_line(error)}."
    return None


def first_line(error: Exception) -> str:
    """What an error says, in one line and without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_batch(images: object) -> None:
    """Refuse what is no batch of images.

    Raises:
        TypeError: not one tensor.
        ValueError: not four dimensions, or no image.

    Example:
        >>> check_batch([torch.zeros(3, 8, 8)])
        Traceback (most recent call last):
            ...
        TypeError: Expected images as one tensor (B, C, H, W), got a list of Tensor: stack tensors with torch.stack, ...
    """
    if not isinstance(images, Tensor):
        what = type(images).__name__
        if isinstance(images, list | tuple) and images:
            what = f"a {what} of {type(images[0]).__name__}"
        raise TypeError(
            f"Expected images as one tensor (B, C, H, W), got {what}: stack tensors with torch.stack, prepare pictures "
            "with image_batch(model, pictures)."
        )
    if images.ndim != 4:
        advice = ": add a batch dimension, images[None]" if images.ndim == 3 else ""
        raise ValueError(f"Expected images of shape (B, C, H, W), got {tuple(images.shape)}{advice}.")
    if not len(images):
        raise ValueError(f"Expected at least one image, got a batch of shape {tuple(images.shape)}.")
