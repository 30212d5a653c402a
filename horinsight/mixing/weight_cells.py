"""Weights by offset as cells (channel, offset), each over some of the queries: what sums over pictures are made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from horinsight.mixing.weights_by_offset import WeightsByOffset


@dataclass(frozen=True, eq=False)
class WeightCells(ABC):
    """Which queries each cell (c, d) has, and how numbers x of shape (..., C, X) stand for weights h[c, i, d].

    Attributes:
        valid: (N, D) whether j is on the map; a cell (c, d) has n_d = Σ_i valid[i, d] queries.
    """

    valid: Tensor

    @cached_property
    def queries(self) -> Tensor:
        """n_d, (D,), float64."""
        return self.valid.sum(0).double()

    @property
    @abstractmethod
    def factor(self) -> Tensor:
        """(C, D) or (1, 1): what a cell's mean of x is to be multiplied by to be one of h."""

    def of(self, part: WeightsByOffset) -> Tensor:
        """x of pictures, (B, C, X), float64.

        Raises:
            ValueError: their cells are others.
        """
        self.check(weight_cells(part))
        return self._numbers(part)

    @abstractmethod
    def _numbers(self, part: WeightsByOffset) -> Tensor:
        """x of pictures that have these cells."""

    def check(self, other: "WeightCells") -> None:
        """Refuse cells that are not these.

        Raises:
            ValueError: they are of another map, kind or kernel.
        """
        if type(other) is not type(self) or not torch.equal(other.valid, self.valid):
            raise ValueError(
                "These pictures' weights lie on another map than those before: give all of one model and one size."
            )

    @abstractmethod
    def means(self, x: Tensor) -> Tensor:
        """Mean of x over the queries of each cell, (..., C, D); 0 in a cell that has none."""

    @abstractmethod
    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_{c,i,d} x y in units of h², (...): of numbers of shape (..., C, X)."""

    @abstractmethod
    def anchored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x less a number of each cell, and the cells' means of what is left: exact zeros where x is constant."""

    def cell_inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_{c,d} n_d x y in units of h², (...): of numbers of shape (..., C, D)."""
        return (self.queries * self.factor.square() * x * y).sum((-2, -1))

    def spread(self, x: Tensor) -> Tensor:
        """Σ_{c,i,d} (x - its cell's mean)² in units of h², (...)."""
        left, means = self.anchored(x)
        return (self.inner(left, left) - self.cell_inner(means, means)).clamp(min=0)


@dataclass(frozen=True, eq=False)
class GateCells(WeightCells):
    """Cells of weights that are a gate times a kernel: x is the gate, (..., C, N), and h = x[c, i] kernel[c, d].

    Attributes:
        kernel: (C, D), the same for all pictures.
    """

    kernel: Tensor

    @property
    def factor(self) -> Tensor:
        return self.kernel

    def _numbers(self, part: WeightsByOffset) -> Tensor:
        assert part.gate is not None
        return part.gate

    def check(self, other: WeightCells) -> None:
        super().check(other)
        assert isinstance(other, GateCells)
        if not torch.equal(other.kernel, self.kernel):
            raise ValueError("These pictures' weights have another kernel than those before: give those of one model.")

    def means(self, x: Tensor) -> Tensor:
        return x @ self.valid.double() / self.queries.clamp(min=1)

    @cached_property
    def _squares(self) -> Tensor:
        """(C, N): Σ_d kernel² over the offsets that are on the map."""
        return self.kernel.square() @ self.valid.double().T

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        return (self._squares * x * y).sum((-2, -1))

    def anchored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left = x - x[..., :1]
        left = left - left.mean(-1, keepdim=True)
        return left, self.means(left)


@dataclass(frozen=True, eq=False)
class PairCells(WeightCells):
    """Cells of weights of any kind: x is h of the pairs (i, d) that there are, (..., C, number of pairs)."""

    @property
    def factor(self) -> Tensor:
        return torch.ones(1, 1, dtype=torch.float64, device="cpu")

    @cached_property
    def _cell_of_pair(self) -> Tensor:
        """d of each pair."""
        return self.valid.nonzero()[:, 1]

    def _numbers(self, part: WeightsByOffset) -> Tensor:
        assert part.explicit is not None
        return part.explicit[..., self.valid]

    def means(self, x: Tensor) -> Tensor:
        sums = x.new_zeros(*x.shape[:-1], self.valid.shape[1])
        return sums.index_add_(-1, self._cell_of_pair, x) / self.queries.clamp(min=1)

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum((-2, -1))

    def anchored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cell = self._cell_of_pair
        first = torch.full((self.valid.shape[1],), len(cell), device="cpu")
        first = first.scatter_reduce_(0, cell, torch.arange(len(cell), device="cpu"), "amin")
        left = x - x[..., first[cell]]
        left = left - self.means(left)[..., cell]
        return left, torch.zeros((), dtype=x.dtype, device="cpu")


def weight_cells(part: WeightsByOffset) -> WeightCells:
    """The cells of weights by offset."""
    if part.explicit is not None:
        return PairCells(part.valid)
    assert part.kernel is not None
    return GateCells(part.valid, part.kernel)
