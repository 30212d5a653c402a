"""Maps, channels-last maps and tokens seen alike: channels by positions, (B, C, P)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Positions:
    """How the positions of an operator's input lie in its tensor.

    Attributes:
        layout: "channels_first" (B, C, H, W) or (B, C, N); "channels_last" (B, H, W, C); "tokens" (B, N, C).
        shape: of the positions: (H, W), or (N,).
        num_prefix: tokens before the grid (class token, registers): part of the operating point, never a location.
        grid: (rows, columns) of the tokens after them, where that is known.
    """

    layout: Layout
    shape: tuple[int, ...]
    num_prefix: int = 0
    grid: tuple[int, int] | None = None

    @property
    def num_total(self) -> int:
        """Positions including the prefix."""
        return int(torch.Size(self.shape).numel())

    @property
    def num_locations(self) -> int:
        """Positions that can be drawn."""
        return self.num_total - self.num_prefix

    @property
    def in_words(self) -> str:
        """For conventions."""
        prefix = f", the first {self.num_prefix} held fixed" if self.num_prefix else ""
        size = "x".join(map(str, self.shape))
        return (f"a map of {size}" if len(self.shape) == 2 else f"{size} tokens") + prefix

    def flat(self, x: Tensor) -> Tensor:
        """(B, C, P) of a tensor in this layout."""
        if self.layout == "channels_first":
            return x.flatten(2)
        return x.flatten(1, -2).transpose(1, 2)

    def native(self, x: Tensor) -> Tensor:
        """The tensor in this layout of (B, C, P)."""
        first = self.layout == "channels_first"
        native: Tensor = x.unflatten(2, self.shape) if first else x.transpose(1, 2).unflatten(1, self.shape)
        return native

    def flat_operator(self, operator: Operator) -> Operator:
        """The same operator from (B, C, P) to (B, C', P')."""

        def flat(x: Tensor) -> Tensor:
            # a copy, because an operator may write into what it is given
            return self.flat(operator(self.native(x).clone()))

        return flat

    def shape_of(self, output: Tensor) -> tuple[int, ...]:
        """The shape of an output's positions: that of the input's, or of a map that is thinned out by a stride.

        Raises:
            ValueError: another layout, or more positions along a side than the input has.
        """
        if output.ndim == len(self.shape) + 2:
            found = tuple(output.shape[2:] if self.layout == "channels_first" else output.shape[1:-1])
            thinned = self.layout != "tokens" and 0 not in found
            if found == self.shape or (thinned and all(n <= m for n, m in zip(found, self.shape, strict=True))):
                return found
        raise ValueError(
            f"Expected an operator that keeps the layout and the positions of its input ("
            f"{self.layout}, {'x'.join(map(str, self.shape))}) or thins them out by a stride, got an output of shape "
            f"{tuple(output.shape)}."
        )


def positions_of(x: Tensor, layout: Layout | None = None, grid: tuple[int, int] | None = None) -> Positions:
    """The positions of an operator's input.

    Args:
        x: (B, C, H, W), (B, H, W, C), (B, N, C) or (B, C, N).
        layout: which of them; "channels_first" for four dimensions and "tokens" for three when None.
        grid: for tokens, (rows, columns) of those that are locations; what comes before them is a prefix. All tokens
            are locations when None.

    Raises:
        ValueError: the shape, the layout and the grid contradict each other.
        TypeError: x is no tensor.

    Example:
        >>> positions_of(torch.zeros(2, 197, 8), grid=(14, 14))
        Positions(layout='tokens', shape=(197,), num_prefix=1, grid=(14, 14))
    """
    if layout is not None and layout not in get_args(Layout):
        raise ValueError(f"layout expects one of {', '.join(get_args(Layout))}, got {layout!r}.")
    if not isinstance(x, Tensor):
        raise TypeError(f"An operator expects x as one tensor, got {type(x).__name__}.")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(
            "An operator expects x of shape (B, C, H, W), of tokens (B, N, C), or channels-last "
            f"(B, H, W, C), got {tuple(x.shape)}."
        )
    layout = layout or ("channels_first" if x.ndim == 4 else "tokens")
    if layout == ("tokens" if x.ndim == 4 else "channels_last"):
        raise ValueError(f"layout {layout!r} does not fit an x of shape {tuple(x.shape)}.")
    shape = tuple(x.shape[2:] if layout == "channels_first" else x.shape[1:-1])
    if grid is None:
        return Positions(layout, shape)
    if x.ndim != 3:
        raise ValueError("grid says how tokens lie: it needs an x of shape (B, N, C) or (B, C, N).")
    if not 0 < grid[0] * grid[1] <= shape[0]:
        raise ValueError(f"A grid of {grid[0]}x{grid[1]} does not fit {shape[0]} tokens.")
    return Positions(layout, shape, shape[0] - grid[0] * grid[1], (grid[0], grid[1]))
