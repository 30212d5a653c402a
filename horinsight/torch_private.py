"""What torch keeps to itself and we use all the same: here alone, so that a new release is checked in one place.

`tests/test_private_names.py` says what we expect of each name, and on which release it was checked. The names of
autograd's nodes stand in `interaction/derivative_graph.py`, those of a compiled module's attributes in `lending.py`.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only as tree_map_only

without_torch_function: Any = torch._C.DisableTorchFunction  # also of modes, while the context is open
SET_GRAD_ENABLED: Any = torch._C._set_grad_enabled  # what `torch.no_grad` and its kin call
TO_COPY: Any = torch.ops.aten._to_copy.default  # what `Tensor.to` comes down to


class DispatchMode(TorchDispatchMode):
    """Sees every ATen operator of this thread. (torch's own tutorials use this class, which has no public place.)"""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self


def undispatched(func: FunctionType) -> Callable[..., Any]:
    """A function of torch.nn.functional without its first lines, which would hand the call to a mode again."""

    def never(*_: Any) -> bool:
        return False

    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    copy = FunctionType(
        func.__code__,
        {**func.__globals__, **dict.fromkeys(checks, never)},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def saved_exponent(node: Any) -> Any:
    """The exponent of a power, from its node in the graph."""
    return node._saved_exponent
