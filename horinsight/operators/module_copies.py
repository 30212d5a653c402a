"""Copies of modules for another precision, also of those that `own_copy` refuses."""

from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

from horinsight.capture import own_copy

T = TypeVar("T")

_REGISTRIES = frozenset({"_parameters", "_modules", "_buffers"})  # torch's own, whose tensors are looked at one by one


def copied(value: T, modules: Iterable[nn.Module]) -> T:
    """A deep copy with weights of its own, which shares what cannot be copied, such as a lock or an open file.

    Tensors that a module keeps out of a computation (a weight that a hook renews, a cache) are copied by value.

    Args:
        value: a module, or something that holds modules.
        modules: those it holds, with all their parts.

    Raises:
        ValueError: something deeper inside cannot be copied.

    Example:
        >>> import threading
        >>> layer = nn.Linear(2, 2)
        >>> layer.lock = threading.Lock()
        >>> twin = copied(layer, layer.modules())
        >>> twin.lock is layer.lock, twin.weight is layer.weight
        (True, False)
    """
    try:
        return own_copy(value)
    except Exception:  # whatever the parts of a foreign module raise when they are copied
        memo = {
            id(kept): kept.detach().clone() if isinstance(kept, Tensor) else kept
            for module in modules
            for kept in _kept_by(module)
            if not _can_be_copied(kept)
        }
    try:
        return own_copy(value, memo)
    except Exception as error:
        raise ValueError(
            f"{type(value).__name__} cannot be copied, which another precision needs "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}): keep what cannot be copied out of it."
        ) from error


def _kept_by(module: nn.Module) -> list[Any]:
    plain = [kept for name, kept in vars(module).items() if name not in _REGISTRIES]
    return plain + list(module._buffers.values())


def _can_be_copied(kept: Any) -> bool:
    try:
        own_copy(kept)
    except Exception:
        return False
    return True
