"""Mixing weights that are a gate times a kernel: with borders, circular, or several kinds together."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from horinsight.mixing.weights import MixingWeights, in_full_precision


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
    def targets_from(self, row: int, col: int) -> Tensor:
        """(D,) int64: its row for the query (row, col), without the others, which a large map has no memory for."""

    @abstractmethod
    def mixed_values(self) -> Tensor:
        """Σ_d kernel_d^c v^(j,c), (B, C, H, W): the depthwise operator on `values`, without the gate."""

    def at(self, row: int, col: int) -> Tensor:
        self.query(row, col)
        B, C = self.gate.shape[:2]
        targets = self.targets_from(row, col)
        inside = targets >= 0
        weights = self.gate.new_zeros(B, C, self.num_positions)
        weights[:, :, targets[inside]] = self.gate[:, :, row, col, None] * self.kernel[:, inside]
        return weights.reshape(B, C, self.height, self.width)

    @in_full_precision
    def channel_mean(self) -> Tensor:
        gate = self.gate.flatten(2).transpose(1, 2)  # (B, N, C)
        return self._spread(gate @ self.kernel / self.num_channels)

    def _dense(self) -> Tensor:
        return self._spread(self.gate.flatten(2)[..., None] * self.kernel[:, None, :])

    @in_full_precision
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


Places = tuple[Tensor, Tensor]  # rows and columns of the queries, each combined with each


@lru_cache(maxsize=32)
def _window_targets(height: int, width: int, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    everywhere = torch.arange(height, device="cpu"), torch.arange(width, device="cpu")
    return _window_targets_from(everywhere, height, width, kernel_size, dilation)


def _window_targets_from(
    queries: Places, height: int, width: int, kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    steps = []
    for position, size, extent, step in zip(queries, kernel_size, (height, width), dilation, strict=True):
        moved = position[:, None] + (torch.arange(size, device="cpu") - size // 2) * step
        steps.append(moved.masked_fill((moved < 0) | (moved >= extent), -1))
    rows, columns = steps[0][:, None, :, None], steps[1][None, :, None, :]
    return (rows * width + columns).masked_fill((rows < 0) | (columns < 0), -1).flatten(2).flatten(0, 1)


@lru_cache(maxsize=8)
def _circular_targets(height: int, width: int) -> Tensor:
    return _circular_targets_from(
        (torch.arange(height, device="cpu"), torch.arange(width, device="cpu")), height, width
    )


def _circular_targets_from(queries: Places, height: int, width: int) -> Tensor:
    rows, columns = (  # kernel[o] weighs position i - o
        (position[:, None] - torch.arange(extent, device="cpu")) % extent
        for position, extent in zip(queries, (height, width), strict=True)
    )
    return (rows[:, None, :, None] * width + columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _place(row: int, col: int) -> Places:
    return torch.tensor([row], device="cpu"), torch.tensor([col], device="cpu")


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

    def targets_from(self, row: int, col: int) -> Tensor:
        window = self.kernel_size, self.dilation
        return _window_targets_from(_place(row, col), self.height, self.width, *window)[0].to(self.kernel.device)

    def at_middle(self) -> tuple[Tensor, Tensor]:
        row, col = self.height // 2, self.width // 2
        seen, taps = self._seen_from(row, col)
        kernel = self.kernel.unflatten(1, self.kernel_size)[:, taps[0], taps[1]]
        mixed = (seen * kernel).sum((2, 3)) * self.gate[:, :, row, col]
        return mixed + self.offset[:, :, row, col], self.mixed[:, :, row, col]

    def _seen_from(self, row: int, col: int) -> tuple[Tensor, list[slice]]:
        """The values under the kernel around a position, (B, C, rows, columns), and the taps that they fall under."""
        places, taps = [], []
        for middle, extent, size, step in zip(
            (row, col), (self.height, self.width), self.kernel_size, self.dilation, strict=True
        ):
            inside = [t for t in range(size) if 0 <= middle + (t - size // 2) * step < extent]
            start = middle + (inside[0] - size // 2) * step
            places.append(slice(start, start + (len(inside) - 1) * step + 1, step))
            taps.append(slice(inside[0], inside[-1] + 1))
        return self.values[:, :, places[0], places[1]], taps

    def mixed_values(self) -> Tensor:
        kernel = self.kernel.reshape(-1, 1, *self.kernel_size)
        padding = [d * (size // 2) for d, size in zip(self.dilation, self.kernel_size, strict=True)]
        return F.conv2d(self.values, kernel, padding=padding, dilation=self.dilation, groups=len(kernel))


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvolutionWeights(DepthwiseWeights):
    """A convolution that mixes channels, in groups or all: c is the output channel.

    h_ij^c is the root of the sum of squares over the input channels, which `kernel` holds, (C', rows · columns); the
    identity is that of the convolution itself.

    Attributes:
        weight: (C', C / groups, rows, columns).
        groups: of channels.
    """

    weight: Tensor
    groups: int

    def declared(self) -> dict[str, str]:
        return {"value": "its input, root of the sum of squares over input channels", "held": "nothing"}

    def at_middle(self) -> tuple[Tensor, Tensor]:
        row, col = self.height // 2, self.width // 2
        seen, taps = self._seen_from(row, col)
        weight = (
            self.weight[:, :, taps[0], taps[1]].flatten(1).unflatten(0, (self.groups, -1))
        )  # (groups, C'/groups, ·)
        mixed = torch.einsum("goj,bgj->bgo", weight, seen.flatten(1).unflatten(1, (self.groups, -1))).flatten(1)
        return mixed + self.offset[:, :, row, col], self.mixed[:, :, row, col]

    def mixed_values(self) -> Tensor:
        padding = [d * (size // 2) for d, size in zip(self.dilation, self.kernel_size, strict=True)]
        return F.conv2d(self.values, self.weight, padding=padding, dilation=self.dilation, groups=self.groups)


@dataclass(frozen=True, eq=False, kw_only=True)
class CircularWeights(FactoredWeights):
    """A kernel as large as the map, on a map whose opposite borders touch: `kernel` is (C, H · W)."""

    def targets(self) -> Tensor:
        return _circular_targets(self.height, self.width).to(self.kernel.device)

    def targets_from(self, row: int, col: int) -> Tensor:
        return _circular_targets_from(_place(row, col), self.height, self.width)[0].to(self.kernel.device)

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
