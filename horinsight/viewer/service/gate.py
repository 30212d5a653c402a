"""The gate: how many computations may run at once, and what those who wait too long are told."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from horinsight.cancellation import pause

SLOTS = 2
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.1  # from one look at who still waits to the next


class BusyError(RuntimeError):
    """The wait was too long; the message is for the visitor."""


class Gate:
    """Hands out numbered slots; whoever holds slot s may use replica s of a model, and nobody else does.

    Args:
        slots: computations at once, one thread each.
        wait_seconds: how long to wait for a slot.
    """

    def __init__(self, slots: int = SLOTS, wait_seconds: float = WAIT_SECONDS) -> None:
        self.wait_seconds = wait_seconds
        self._free: queue.Queue[int] = queue.Queue()
        self._long_free: queue.Queue[int] = queue.Queue()
        for slot in range(slots):
            self._free.put(slot)
        for turn in range(max(1, slots - 1)):
            self._long_free.put(turn)

    @contextmanager
    def slot(self) -> Iterator[int]:
        """A slot, for something of a second or so.

        Raises:
            BusyError: none became free in time.
        """
        with self._taken(self._free) as slot:
            torch.set_num_threads(1)  # of this thread
            yield slot

    @contextmanager
    def long_slot(self) -> Iterator[int]:
        """A slot for something long; one slot is always left for what is short.

        Raises:
            BusyError: none became free in time.
        """
        with self._taken(self._long_free), self.slot() as slot:
            yield slot

    @contextmanager
    def _taken(self, free: "queue.Queue[int]") -> Iterator[int]:
        slot = self._waited_for(free)
        try:
            yield slot
        finally:
            free.put(slot)

    def _waited_for(self, free: "queue.Queue[int]") -> int:
        """The next that becomes free; whoever leaves meanwhile waits no more (`pause`)."""
        end = time.monotonic() + self.wait_seconds
        while True:
            pause()
            try:
                return free.get(timeout=max(0.0, min(LOOK_SECONDS, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    raise BusyError("The server is busy with other visitors: try again in a moment.") from None


GATE = Gate()
