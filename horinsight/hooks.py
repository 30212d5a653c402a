"""Hooks on foreign modules, for as long as a context is open: another input or output, and which module runs.

Threads may share a model: a hook is that of the thread that asked for it, and the others run the module as it is.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from horinsight.lending import RECORDS


def hooked(
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
    with RECORDS:
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


@contextmanager
def hooks_on(
    modules: Iterable[tuple[str, nn.Module]], watched: Callable[[str, nn.Module], list[RemovableHandle]]
) -> Iterator[None]:
    """Lend modules with hooks, removed when the context closes, however it ends and however many came to be.

    Args:
        modules: each with a name.
        watched: registers the hooks of one, called as `watched(name, module)`.
    """
    handles: list[RemovableHandle] = []
    try:
        for name, module in modules:
            handles += watched(name, module)
        yield
    finally:
        with RECORDS:
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
        >>> import torch
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

    def watched(_: str, module: nn.Module) -> list[RemovableHandle]:
        return hooked(module, enter if input is not None else None, leave if output is not None else None)

    with hooks_on([("", module)], watched):
        yield


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
        >>> import torch
        >>> from horinsight.lending import wrapped_forward
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

        return hooked(module, enter, leave)

    with hooks_on(model.named_modules(), watched):
        yield inside


@contextmanager
def watched_calls(
    modules: Iterable[nn.Module],
    entered: Callable[[nn.Module, tuple[Any, ...]], None],
    left: Callable[[nn.Module, dict[str, Any], Any], None],
) -> Iterator[None]:
    """Tell of every call of some modules by this thread while the context is open.

    Args:
        modules: each once.
        entered: called with the module and its positional arguments before its forward.
        left: called with the module, its keyword arguments (as its signature orders them) and its output after it.
    """

    def watched(_: str, module: nn.Module) -> list[RemovableHandle]:
        return hooked(
            module,
            lambda args, kwargs: entered(module, args),
            lambda args, kwargs, output: left(module, kwargs, output),
        )

    with hooks_on((("", module) for module in modules), watched):
        yield
