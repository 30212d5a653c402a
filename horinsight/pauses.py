"""Pauses inside of what calls no loop of ours: one call of autograd, one forward pass, a library's own loops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from horinsight.cancellation import pause

TENSORS_BETWEEN = 32  # that graphs keep or give, from one pause to the next


@contextmanager
def pauses_in_graphs() -> Iterator[None]:
    """Call `pause` now and then while graphs are made and gone through, in the midst of one call of autograd too.

    No number changes. What a pause raises comes out of the call.
    """
    looked_at = pausing()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: looked_at(tensor).detach(), looked_at):
        yield


def pausing() -> Callable[[Tensor], Tensor]:
    """Gives tensors as they are, with a pause now and then."""
    num = 0

    def looked_at(tensor: Tensor) -> Tensor:
        nonlocal num
        num += 1
        if num % TENSORS_BETWEEN == 0:
            pause()
        return tensor

    return looked_at


class _PausingFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        pause()
        return func(*args, **(kwargs or {}))


@contextmanager
def pauses_everywhere() -> Iterator[None]:
    """Call `pause` at each function of torch and in graphs: for what runs in loops that are not ours."""
    with _PausingFunctions(), pauses_in_graphs():
        yield
