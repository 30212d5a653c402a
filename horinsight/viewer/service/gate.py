"""The gate: how many computations may run at once, and what those who wait too long are told."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SLOTS = 2
WAIT_SECONDS = 30.0


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
        try:
            slot = free.get(timeout=self.wait_seconds)
        except queue.Empty:
            raise BusyError("The server is busy with other visitors: try again in a moment.") from None
        try:
            yield slot
        finally:
            free.put(slot)


GATE = Gate()
