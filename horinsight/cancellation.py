"""Work that can be stopped half-way, and that says how far it is.

Whoever starts something long watches it; loops call `pause` between their steps, and the watcher may raise there. What
is watched holds for the thread, or the task, in which `watched_by` was entered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[float | None], object]  # share of the work that is done, None where that is not known


class Cancelled(BaseException):
    """The work is not wanted any more. No `Exception`, so that nothing takes it for an error that can be handled."""


_WATCHER: ContextVar[Watcher | None] = ContextVar("_WATCHER", default=None)
_PORTION: ContextVar[tuple[float, float]] = ContextVar("_PORTION", default=(0.0, 1.0))


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Watch the work that is done while the context is open.

    Args:
        watcher: called at every `pause`, many times a second: it should look at a clock first. What it raises ends the
            work: `Cancelled`, or whatever a library ends a thread with.

    Example:
        >>> seen = []
        >>> with watched_by(seen.append):
        ...     for step in range(2):
        ...         pause(step / 2)
        >>> seen
        [0.0, 0.5]
    """
    watching, whole = _WATCHER.set(watcher), _PORTION.set((0.0, 1.0))
    try:
        yield
    finally:
        _WATCHER.reset(watching)
        _PORTION.reset(whole)


def pause(share: float | None = None) -> None:
    """Let the watcher look, where there is one.

    Args:
        share: of the work around that is done, from 0 to 1; None in what does not know.

    Raises:
        Cancelled: or what else the watcher raises.
    """
    watcher = _WATCHER.get()
    if watcher is not None:
        low, high = _PORTION.get()
        watcher(None if share is None else low + (high - low) * share)


@contextmanager
def portion(low: float, high: float) -> Iterator[None]:
    """Work that is a portion of the work around, from one share of it to another.

    Example:
        >>> seen = []
        >>> with watched_by(seen.append), portion(0.5, 1.0), portion(0.0, 0.5):
        ...     pause(0.5)
        >>> seen
        [0.625]
    """
    start, end = _PORTION.get()
    inside = _PORTION.set((start + (end - start) * low, start + (end - start) * high))
    try:
        yield
    finally:
        _PORTION.reset(inside)
