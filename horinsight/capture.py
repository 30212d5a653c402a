"""Records the calls of foreign modules; and the one door to all that touches them.

What is asked for here lies in three more files: `hooks` (another input or output, and which module runs), `lending`
(modes, flags and forward methods) and `batches` (what is said of images that do not fit).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from horinsight.batches import check_batch, first_line, image_size_of, misfits_explained, run
from horinsight.hooks import hooked, hooks_on, replaced, running
from horinsight.lending import as_written, called_through, evaluation, has_own_forward, own_copy, wrapped_forward

__all__ = [
    "Call",
    "as_written",
    "call_name",
    "called_through",
    "capture",
    "check_batch",
    "evaluation",
    "first_line",
    "has_own_forward",
    "image_size_of",
    "misfits_explained",
    "own_copy",
    "replaced",
    "run",
    "running",
    "wrapped_forward",
]


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
    modules: Mapping[str, nn.Module],
    *,
    keep: Callable[[nn.Module, Call], Any] | None = None,
    unread: Collection[str] = (),
) -> Iterator[dict[str, list[Any]]]:
    """Record every call of the given modules that this thread makes while the context is open.

    The hooks are removed when the context closes, whether it ends well, by an error of the caller or by a module that
    raises. Nothing else of the model is touched.

    Args:
        modules: the modules to watch, by the names under which their calls are wanted.
        keep: what to keep of a call, `keep(module, call)`; the call itself when None. Whatever it returns is stored, so
            a reduction here keeps memory small.
        unread: of which modules nobody reads the numbers that enter, so that no copy is made of them: arguments that
            such a module writes into are given as they are when the call ends.

    Yields:
        For each name the list of what was kept, in the order of the calls; filled as the model runs.

    Raises:
        TypeError: something that is not a module.

    Example:
        >>> import torch
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
            given = () if name in unread else (*args, *kwargs.values())
            begun.append({id(x): _Before(x) for x in given if isinstance(x, Tensor)})

        def leave(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = begun.pop() if begun else {}  # one that was running when the capture began

            def as_it_was(value: Any) -> Any:
                return before[id(value)].value() if id(value) in before else value

            inputs = tuple(as_it_was(value) for value in args)
            named = {key: as_it_was(value) for key, value in kwargs.items()}
            call = Call(inputs, output, named, len(kept[name]) + 1)
            kept[name].append(call if keep is None else keep(module, call))

        return hooked(module, enter, leave)

    with hooks_on(modules.items(), watched):
        yield kept


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
