"""Mixing weights, kept factored: a gate times a kernel, or an attention matrix, or windows of one.

Notation, for all kinds: p^(i,c) = Σ_j h_ij^c v^(j,c) + b_i^c, with i the query, j the position that is looked at, c the
channel (for attention: the head). Rows are queries: `channel_mean()[b, i, j]`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

MAX_DENSE_ELEMENTS = 2**28  # 1 GiB in float32
MAX_RECONSTRUCTION_ERROR = 0.05  # bfloat16 forward passes stay below; another formula does not


def not_reproduced(error: float) -> str:
    """What is said of weights that are so far off, relative to what the module computes."""
    return (
        f"Mixing weights do not reproduce what the module computes (off by {error:.0e} of it): it is shaped like a "
        "known mixer but does something else, for instance an activation in between."
    )


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which a surrounding autocast does not round: weights are as precise as the features they are of."""
    return torch.autocast(like.device.type, enabled=False)


P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(method: Callable[P, R]) -> Callable[P, R]:
    """A method of weights that multiplies matrices or convolves, whatever surrounds it."""

    @wraps(method)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        with full_precision(args[0].values):  # type: ignore[attr-defined]
            return method(*args, **kwargs)

    return exact


@dataclass(frozen=True, eq=False, kw_only=True)
class MixingWeights(ABC):
    """h_ij^c of one mixer for a batch of images (HorNet Eq. 3.8; for attention Eq. 3.7).

    Attributes:
        height: rows of the map.
        width: columns of the map.
        values: v, what is mixed: (B, C, H, W), or (B, heads, tokens, d) for attention.
        offset: b, what does not come from `values`: the shape of `apply()`.
        mixed: p as the forward pass computed it: the shape of `apply()`.
    """

    height: int
    width: int
    values: Tensor
    offset: Tensor
    mixed: Tensor

    @cached_property
    def reconstruction_error(self) -> float:
        """Largest |Σ_j h v + b - p| over the largest |p|: the identity, checked on this very input when it is read.

        At all positions by `apply`; at one of them by its row of h as well, which is no product that the module makes.
        """
        largest = float(self.mixed.abs().amax())
        found, expected = self.at_middle()
        row = (found - expected).abs().amax()
        error = float(torch.maximum((self.apply() - self.mixed).abs().amax(), row.to(self.mixed)))
        return error / largest if largest else error

    @property
    @abstractmethod
    def num_channels(self) -> int:
        """C, or the number of heads."""

    def declared(self) -> dict[str, str]:
        """What is the value and what is held fixed, in words, for conventions."""
        return {"value": "what the depthwise operator mixes", "held": "what multiplies it: gates, scale"}

    @property
    def looked_at(self) -> tuple[int, int]:
        """(rows, columns) of the map that is looked at: that of the queries, unless keys are pooled or queries are."""
        return self.height, self.width

    @property
    def num_positions(self) -> int:
        """Side of the matrices: H·W, plus the prefix tokens (class token) of attention, which come first."""
        return self.height * self.width

    @abstractmethod
    def at(self, row: int, col: int) -> Tensor:
        """Where one query looks: h_ij^c for i = (row, col) and all j, (B, C, H, W).

        Raises:
            ValueError: the query is outside the map.
        """

    @abstractmethod
    def channel_mean(self) -> Tensor:
        """(1/C) Σ_c h_ij^c for all queries, (B, N, N) with N = `num_positions`; what Figure 4 shows."""

    @abstractmethod
    def _dense(self) -> Tensor:
        """(B, C, N, N)."""

    @abstractmethod
    def apply(self) -> Tensor:
        """Σ_j h_ij^c v^(j,c) + b_i^c: the mixer's p_n, before the output projection."""

    def at_middle(self) -> tuple[Tensor, Tensor]:
        """Σ_j h v + b and p at the middle of the map, (B, C) each: the identity at the cost of one query."""
        row, col = self.height // 2, self.width // 2
        found = (self.at(row, col) * self.values).sum((2, 3)) + self.offset[:, :, row, col]
        return found, self.mixed[:, :, row, col]

    def dense(self, *, max_elements: int = MAX_DENSE_ELEMENTS) -> Tensor:
        """All weights, (B, C, N, N). Refused when large, because `at` and `channel_mean` do without.

        Args:
            max_elements: the largest number of elements that is built.

        Raises:
            ValueError: it would be larger.
        """
        shape = (len(self.offset), self.num_channels, self.num_positions, self.num_positions)
        size = torch.Size(shape).numel()
        if size > max_elements:
            raise ValueError(
                f"Dense mixing weights of shape {shape} have {size:.1e} elements, more than {max_elements:.1e}: use "
                "at() or channel_mean(), or raise max_elements."
            )
        return self._dense()

    def query(self, row: int, col: int) -> int:
        """row · W + col, after a check that the query is on the map.

        Raises:
            ValueError: it is not.
        """
        if not (0 <= row < self.height and 0 <= col < self.width):
            raise ValueError(
                f"The query expects a row from 0 to {self.height - 1} and a column from 0 to {self.width - 1} on this "
                f"{self.height}x{self.width} map, got {row},{col}."
            )
        return row * self.width + col
