"""Mixing weights, kept factored: a gate times a kernel, or an attention matrix, or windows of one.

Notation, for all kinds: p^(i,c) = Σ_j h_ij^c v^(j,c) + b_i^c, with i the query, j the position that is looked at, c the
channel (for attention: the head). Rows are queries: `channel_mean()[b, i, j]`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_DENSE_ELEMENTS = 2**28  # 1 GiB in float32


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which a surrounding autocast does not round: weights are as precise as the features they are of."""
    return torch.autocast(like.device.type, enabled=False)


P = ParamSpec("P")
R = TypeVar("R")


def _in_full_precision(method: Callable[P, R]) -> Callable[P, R]:
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
        """Largest |Σ_j h v + b - p| over the largest |p|: the identity, checked on this very input when it is read."""
        largest = float(self.mixed.abs().amax())
        error = float((self.apply() - self.mixed).abs().amax())
        return error / largest if largest else error

    @property
    @abstractmethod
    def num_channels(self) -> int:
        """C, or the number of heads."""

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


@dataclass(frozen=True, eq=False, kw_only=True)
class FactoredWeights(MixingWeights):
    """h_ij^c = gate_i^c · kernel_d^c where d is the offset that leads from i to j.

    Attributes:
        gate: (B, C, H, W), with every factor that depends on the query: g_k, 1/α, norm statistics.
        kernel: (C, D), one value for each of D offsets.
    """

    gate: Tensor
    kernel: Tensor

    @property
    def num_channels(self) -> int:
        return self.gate.shape[1]

    @abstractmethod
    def targets(self) -> Tensor:
        """(N, D) int64: the position j that offset d leads to from i; -1 outside the map."""

    @abstractmethod
    def mixed_values(self) -> Tensor:
        """Σ_d kernel_d^c v^(j,c), (B, C, H, W): the depthwise operator on `values`, without the gate."""

    def at(self, row: int, col: int) -> Tensor:
        i = self.query(row, col)
        B, C = self.gate.shape[:2]
        targets = self.targets()[i]
        inside = targets >= 0
        weights = self.gate.new_zeros(B, C, self.num_positions)
        weights[:, :, targets[inside]] = self.gate[:, :, row, col, None] * self.kernel[:, inside]
        return weights.reshape(B, C, self.height, self.width)

    @_in_full_precision
    def channel_mean(self) -> Tensor:
        gate = self.gate.flatten(2).transpose(1, 2)  # (B, N, C)
        return self._spread(gate @ self.kernel / self.num_channels)

    def _dense(self) -> Tensor:
        return self._spread(self.gate.flatten(2)[..., None] * self.kernel[:, None, :])

    @_in_full_precision
    def apply(self) -> Tensor:
        return torch.addcmul(self.offset, self.gate, self.mixed_values())

    def _spread(self, weights: Tensor) -> Tensor:
        """From offsets to positions: (..., N, D) → (..., N, N)."""
        targets = self.targets()
        outside = targets < 0
        N = self.num_positions
        spread = weights.new_zeros(*weights.shape[:-1], N)
        index = targets.masked_fill(outside, 0).expand_as(weights)
        return spread.scatter_add_(-1, index, weights.masked_fill(outside, 0.0))


@lru_cache(maxsize=32)
def _window_targets(height: int, width: int, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    steps = []
    for size, extent, step in zip(kernel_size, (height, width), dilation, strict=True):
        moved = torch.arange(extent)[:, None] + (torch.arange(size) - size // 2) * step
        steps.append(moved.masked_fill((moved < 0) | (moved >= extent), -1))
    rows, columns = steps[0][:, None, :, None], steps[1][None, :, None, :]
    return (rows * width + columns).masked_fill((rows < 0) | (columns < 0), -1).reshape(height * width, -1)


@lru_cache(maxsize=8)
def _circular_targets(height: int, width: int) -> Tensor:
    moved = []
    for extent in (height, width):
        position = torch.arange(extent)
        moved.append((position[:, None] - position[None, :]) % extent)  # kernel[o] weighs position i - o
    return (moved[0][:, None, :, None] * width + moved[1][None, :, None, :]).reshape(height * width, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseWeights(FactoredWeights):
    """A K x K depthwise kernel with zeros outside the map.

    Attributes:
        kernel_size: (rows, columns) of the kernel; `kernel` is (C, rows · columns).
        dilation: (rows, columns).
    """

    kernel_size: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def targets(self) -> Tensor:
        return _window_targets(self.height, self.width, self.kernel_size, self.dilation).to(self.kernel.device)

    def at_middle(self) -> tuple[Tensor, Tensor]:
        row, col = self.height // 2, self.width // 2
        places, taps = [], []
        for middle, extent, size, step in zip(
            (row, col), (self.height, self.width), self.kernel_size, self.dilation, strict=True
        ):
            inside = [t for t in range(size) if 0 <= middle + (t - size // 2) * step < extent]
            start = middle + (inside[0] - size // 2) * step
            places.append(slice(start, start + (len(inside) - 1) * step + 1, step))
            taps.append(slice(inside[0], inside[-1] + 1))
        kernel = self.kernel.unflatten(1, self.kernel_size)[:, taps[0], taps[1]]
        mixed = (self.values[:, :, places[0], places[1]] * kernel).sum((2, 3)) * self.gate[:, :, row, col]
        return mixed + self.offset[:, :, row, col], self.mixed[:, :, row, col]

    def mixed_values(self) -> Tensor:
        kernel = self.kernel.reshape(-1, 1, *self.kernel_size)
        padding = [d * (size // 2) for d, size in zip(self.dilation, self.kernel_size, strict=True)]
        return F.conv2d(self.values, kernel, padding=padding, dilation=self.dilation, groups=len(kernel))


@dataclass(frozen=True, eq=False, kw_only=True)
class CircularWeights(FactoredWeights):
    """A kernel as large as the map, on a map whose opposite borders touch: `kernel` is (C, H · W)."""

    def targets(self) -> Tensor:
        return _circular_targets(self.height, self.width).to(self.kernel.device)

    def mixed_values(self) -> Tensor:
        size = (self.height, self.width)
        kernel = self.kernel.reshape(-1, *size)
        mixed: Tensor = torch.fft.irfft2(torch.fft.rfft2(self.values) * torch.fft.rfft2(kernel), s=size)
        return mixed


@dataclass(frozen=True, eq=False, kw_only=True)
class InterleavedWeights(MixingWeights):
    """Weights whose channels belong to different kinds, such as the local and the global half of GF.

    Attributes:
        parts: weights of some of the channels each.
        channels: for each part the indices of its channels.
    """

    parts: tuple[FactoredWeights, ...]
    channels: tuple[Tensor, ...]

    @property
    def num_channels(self) -> int:
        return sum(part.num_channels for part in self.parts)

    def at(self, row: int, col: int) -> Tensor:
        return self._together([part.at(row, col) for part in self.parts])

    def channel_mean(self) -> Tensor:
        sums = [part.channel_mean() * (part.num_channels / self.num_channels) for part in self.parts]
        return torch.stack(sums).sum(0)

    def _dense(self) -> Tensor:
        return self._together([part.dense(max_elements=part.gate.numel() * self.num_positions) for part in self.parts])

    def apply(self) -> Tensor:
        return self._together([part.apply() for part in self.parts])

    def _together(self, pieces: list[Tensor]) -> Tensor:
        whole = pieces[0].new_empty(len(pieces[0]), self.num_channels, *pieces[0].shape[2:])
        for piece, channels in zip(pieces, self.channels, strict=True):
            whole[:, channels] = piece
        return whole


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionWeights(MixingWeights):
    """A full attention matrix; heads stand where gⁿConv has channels. Rows sum to 1.

    `apply()` is (B, N, heads · d), the tokens that enter the output projection.

    Attributes:
        attention: (B, heads, N, N), N = prefix tokens + H·W, prefix tokens first.
        num_prefix_tokens: class and register tokens.
    """

    attention: Tensor
    num_prefix_tokens: int = 0

    @property
    def num_channels(self) -> int:
        return self.attention.shape[1]

    @property
    def num_positions(self) -> int:
        return self.attention.shape[-1]

    def at(self, row: int, col: int) -> Tensor:
        i = self.query(row, col) + self.num_prefix_tokens
        row_of_map: Tensor = self.attention[:, :, i, self.num_prefix_tokens :].unflatten(-1, (self.height, self.width))
        return row_of_map

    def channel_mean(self) -> Tensor:
        return self.attention.mean(1)

    def _dense(self) -> Tensor:
        return self.attention

    @_in_full_precision
    def at_middle(self) -> tuple[Tensor, Tensor]:
        i = self.query(self.height // 2, self.width // 2) + self.num_prefix_tokens
        found = (self.attention[:, :, i, None] @ self.values)[:, :, 0].flatten(1) + self.offset[:, i]
        return found, self.mixed[:, i]

    @_in_full_precision
    def apply(self) -> Tensor:
        return (self.attention @ self.values).transpose(1, 2).flatten(2) + self.offset


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowWeights(MixingWeights):
    """Attention inside windows, unrolled to the whole map. Rows sum to 1 where no window is padded.

    `apply()` is (B, H·W, heads · d). What padding adds to the map's border is in `offset`.

    Attributes:
        attention: (B, windows, heads, A, A), A positions a window.
        cells: (windows, A) int64, the position on the map of each place in each window; -1 for padding.
        masked: (windows, A, A) bool, which pairs the shift brought into one window and the mask keeps apart; None where
            nothing is masked. Their attention is not exactly 0.
    """

    attention: Tensor
    cells: Tensor
    masked: Tensor | None = None

    @property
    def num_channels(self) -> int:
        return self.attention.shape[2]

    def at(self, row: int, col: int) -> Tensor:
        window, place = (self.cells == self.query(row, col)).nonzero()[0]
        inside = self.cells[window] >= 0
        B, heads = len(self.attention), self.num_channels
        weights = self.attention.new_zeros(B, heads, self.num_positions)
        weights[:, :, self.cells[window][inside]] = self.attention[:, window, :, place, inside]
        return weights.reshape(B, heads, self.height, self.width)

    def channel_mean(self) -> Tensor:
        return self._unrolled(self.attention.mean(2, keepdim=True))[:, 0]

    def _dense(self) -> Tensor:
        return self._unrolled(self.attention)

    @_in_full_precision
    def at_middle(self) -> tuple[Tensor, Tensor]:
        i = self.query(self.height // 2, self.width // 2)
        window, place = (self.cells == i).nonzero()[0]
        weights = self.attention[:, window, :, place, None] * (self.cells[window] >= 0)
        return (weights @ self.values[:, window])[:, :, 0].flatten(1) + self.offset[:, i], self.mixed[:, i]

    @_in_full_precision
    def apply(self) -> Tensor:
        B, _, heads, _, d = self.values.shape
        mixed = (self.attention @ self.values).permute(0, 1, 3, 2, 4).flatten(3)  # (B, windows, A, heads · d)
        inside = self.cells >= 0
        tokens = mixed.new_zeros(B, self.num_positions, heads * d)
        tokens[:, self.cells[inside]] = mixed[:, inside]
        return tokens + self.offset

    def _unrolled(self, attention: Tensor) -> Tensor:
        """(B, windows, heads, A, A) → (B, heads, H·W, H·W)."""
        N = self.num_positions
        whole = attention.new_zeros(len(attention), attention.shape[2], N, N)
        for window, cells in enumerate(self.cells):
            inside = cells >= 0
            block = attention[:, window][:, :, inside][..., inside]
            whole[:, :, cells[inside][:, None], cells[inside][None, :]] = block
        return whole
