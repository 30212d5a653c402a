"""Counts what the graph of a chain keeps while it is differentiated, and ends what would exceed a budget."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.interaction.graph_growth import NODE_BYTES, GraphGrowth
from horinsight.memory_budget import GIGABYTE, compact_memory
from horinsight.pauses import TENSORS_BETWEEN, pauses_in_graphs, pausing

GRAPH_BYTES = 500_000_000  # that the graphs of one batch may hold where there is memory enough: more gains no time
COMPACT = 1.3  # bytes taken for each that a graph keeps, with what is on its way through it, in compact memory
LOOSE, LOOSE_AN_ORDER, MOST_LOOSE = 2.3, 0.45, 6.0  # likewise in glibc's usual memory, more at higher orders
LOOKAHEAD, FIRST_LOOKAHEAD = 3, 1  # orders beyond what was seen on which a refusal rests; before the growth is settled
SETTLED = 3  # derivatives after which it is
LONG_SECONDS = 0.3  # of a chunk, from which it can be stopped half-way: below it ends as fast by itself


def loose_factor(order: int) -> float:
    """Bytes that a process takes for each that a graph of this order keeps, where memory is not compact."""
    return min(LOOSE + LOOSE_AN_ORDER * order, MOST_LOOSE)


class GraphMeter:
    """Counts, chain by chain, what graphs keep.

    Args:
        max_order: K that is asked for.
        budget: bytes that the graph may take; unbounded when None.
        batch_size: chains that are differentiated together, at most.
        degree: gives the operator's degree as a polynomial, where anything depends on it.
    """

    def __init__(
        self, max_order: int, budget: float | None, batch_size: int, degree: Callable[[], float] = lambda: math.inf
    ) -> None:
        self.max_order, self.batch_size = max_order, batch_size
        self.budget = math.inf if budget is None else budget
        self.growth = GraphGrowth()
        self.storage_bytes = 0  # of everything that the graph kept, each piece of memory once
        self.num_elements = 0  # of everything that it kept, as often as it did: the same in every run
        self.chain_seconds = 0.0
        self._degree = degree
        self._known_degree: float | None = None
        self._pieces: dict[int, int] = {}
        self._num = 0
        self._start = 0.0
        self._stack = ExitStack()
        self._is_compact = False

    @property
    def degree(self) -> float:
        """Of the operator, looked up once."""
        if self._known_degree is None:
            self._known_degree = self._degree()
        return self._known_degree

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Count what the graph of the one chain keeps that is differentiated here."""
        self._start = time.thread_time()
        with self._stack, torch.autograd.graph.saved_tensors_hooks(self._kept, pausing()):
            yield
        self.chain_seconds = time.thread_time() - self._start

    def _kept(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        address, num_bytes = storage.data_ptr(), storage.nbytes()
        self.storage_bytes += num_bytes - self._pieces.get(address, 0)
        self._pieces[address] = num_bytes
        self._num += 1
        self.num_elements += tensor.numel()
        if self._num % TENSORS_BETWEEN == 0:
            pause()
            if COMPACT * (self.storage_bytes + NODE_BYTES * self._num) > self.budget:
                self._refuse()
        return tensor.detach()  # the tensor itself would keep the node alive that keeps it

    def after(self, k: int) -> None:
        """Note what the graph holds after the k-th derivative, and refuse K where it would become too large.

        Raises:
            ValueError: more than the budget.
        """
        seen = self.growth
        self.growth = GraphGrowth(
            (*seen.tensor_bytes, self.storage_bytes),
            (*seen.num_tensors, self._num),
            (*seen.seconds, time.thread_time() - self._start),
        )
        ahead = LOOKAHEAD if k + 1 >= SETTLED else FIRST_LOOKAHEAD
        looked_at = min(self.max_order, k + 1 + ahead)
        if COMPACT * self._bytes(looked_at) > self.budget:
            self._refuse()
        if not self._is_compact and self.needs_compact_memory(self._bytes(self.max_order)):
            self._is_compact = True
            self._stack.enter_context(compact_memory())

    def needs_compact_memory(self, one: float) -> bool:
        """Whether chains would take more than the budget together, or one alone, if memory were not compact.

        Args:
            one: bytes of the graph of one.
        """
        together = max(one, min(self.batch_size * one, GRAPH_BYTES))
        return loose_factor(self.max_order) * together > self.budget

    def _bytes(self, order: int) -> float:
        """Of the graph of an order; the degree is asked for only where it makes a difference."""
        found = self.growth.graph_bytes(order)
        if COMPACT * found > self.budget or loose_factor(order) * found > self.budget:
            found = self.growth.graph_bytes(order, degree=self.degree)
        return found

    def _refuse(self) -> None:
        """Say what is too much, and what is not.

        Raises:
            ValueError: always.
        """
        seen = self.growth
        if not seen.num_orders:
            raise ValueError(
                f"The graph of one chain alone takes more than the {in_words(self.budget)} that are given: give more "
                "memory (--memory), or take a smaller picture."
            )
        highest = highest_order(seen, self.budget, self.degree, self.max_order - 1)
        remedy = f"ask for order {highest} at most (--max-order), or give more memory (--memory)"
        if highest < 0:
            remedy = "give more memory (--memory), or take a smaller picture"
        needed = COMPACT * seen.graph_bytes(self.max_order, degree=self.degree)
        raise ValueError(
            f"One chain of order {self.max_order} would take about {in_words(needed)}, and "
            f"{in_words(self.budget)} are given: {remedy}."
        )

    def num_together(self) -> int:
        """How many chains are differentiated together: as many as `GRAPH_BYTES` hold, within the budget."""
        one = max(1, self.storage_bytes)
        num = min(self.batch_size, max(1, GRAPH_BYTES // one))
        if math.isinf(self.budget):
            return num
        return max(1, min(num, int(self.budget // (COMPACT * (one + NODE_BYTES * self._num)))))

    @contextmanager
    def chunk(self, num_chains: int) -> Iterator[None]:
        """Differentiate so many chains together: in compact memory where that is needed, and so that it can be stopped.

        Nothing of this changes a number.
        """
        one = self.storage_bytes + NODE_BYTES * self._num
        with ExitStack() as stack:
            if self.needs_compact_memory(one):
                stack.enter_context(compact_memory())
            if self.chain_seconds * num_chains > LONG_SECONDS:
                stack.enter_context(pauses_in_graphs())
            yield


def highest_order(growth: GraphGrowth, budget: float, degree: float, most: int) -> int:
    """The highest order whose graph, of one chain, is within a budget; -1 where not even order 0 is."""
    fitting = [k for k in range(most + 1) if COMPACT * growth.graph_bytes(k, degree=degree) <= budget]
    return max(fitting, default=-1)


def in_words(num_bytes: float) -> str:
    """Bytes for people.

    Example:
        >>> in_words(3.21e12), in_words(4e9), in_words(52e6)
        ('3.2 TB', '4 GB', '52 MB')
    """
    if math.isinf(num_bytes) or num_bytes >= 1e18:
        return "more than any machine has"
    for unit, size in (("TB", 1e12), ("GB", GIGABYTE)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2g} {unit}" if num_bytes < 100 * size else f"{num_bytes / size:.0f} {unit}"
    return f"{num_bytes / 1e6:.2g} MB" if num_bytes < 1e8 else f"{num_bytes / 1e6:.0f} MB"
