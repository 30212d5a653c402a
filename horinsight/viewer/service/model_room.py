"""How many bytes of models are kept: a share of what the server may take."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from itertools import chain
from typing import Generic, TypeVar

from horinsight.interaction.graph_meter import in_words
from horinsight.models.registry import model_without_weights

K = TypeVar("K", bound=Hashable)
SHARE = 1 / 3  # of what the server may take beside its libraries: one that leaves may be in use while another comes


class ModelRoom(Generic[K]):
    """Which models are kept; those that were not used for the longest time leave first.

    Args:
        forgotten: lets a model go.

    Example:
        >>> gone = []
        >>> room = ModelRoom[str](gone.append)
        >>> for name in ("a", "b", "a", "c"):
        ...     room.take(name, 4.0, room=9.0)
        >>> gone
        ['b']
    """

    def __init__(self, forgotten: Callable[[K], object]) -> None:
        self._forgotten = forgotten
        self._sizes: OrderedDict[K, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: K, num_bytes: float, *, room: float) -> None:
        """Make room for a model that is about to be used.

        Args:
            key: of the model.
            num_bytes: that it takes.
            room: bytes of all models.

        Raises:
            ValueError: it takes more by itself.
        """
        if num_bytes > room:
            raise ValueError(
                f"This model takes {in_words(num_bytes)}, and {in_words(room)} of what the viewer was given are for "
                "models: choose a smaller one, or start the viewer with more memory (--memory)."
            )
        with self._lock:
            self._sizes[key] = num_bytes
            self._sizes.move_to_end(key)
            gone = []
            while sum(self._sizes.values()) > room:
                gone.append(self._sizes.popitem(last=False)[0])
        for one in gone:
            self._forgotten(one)


@cache
def model_bytes(name: str) -> float:
    """Bytes of a model's weights and buffers, by shapes alone.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> model_bytes("hornet_large_7x7") / 1e6
        778.170016
    """
    model = model_without_weights(name)
    return float(sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers())))
