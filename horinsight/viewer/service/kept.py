"""What is finished, kept for every visitor of the server; the oldest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """A dictionary of a bounded number of results, for several threads.

    Args:
        most: results.

    Example:
        >>> kept = Kept[str, int](2)
        >>> for number, name in enumerate("abc"):
        ...     kept.put(name, number)
        >>> kept.get("a"), kept.get("c")
        (None, 2)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._found: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """What is known."""
        with self._lock:
            return self._found.get(key)

    def put(self, key: K, found: V) -> None:
        """Keep a result."""
        with self._lock:
            self._found[key] = found
            while len(self._found) > self.most:
                self._found.popitem(last=False)
