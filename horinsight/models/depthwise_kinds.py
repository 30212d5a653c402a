"""The kinds of f that a gnConv is known with, by their numbers: a depthwise convolution, a mean pooling, GF.

Each says what it computes by itself, without the module that it was told by, whose forward pass may do something else.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.models.global_local_filter import resized_filter

Pair = tuple[int, int]  # along rows and columns


@dataclass(frozen=True, eq=False)
class DepthwiseConv:
    """f as a depthwise convolution with an odd kernel and zeros around the map, which keeps it.

    Attributes:
        weight: (C, 1, rows, columns).
        bias: (C,), or None.
        dilation: along rows and columns.
    """

    weight: Tensor
    bias: Tensor | None
    dilation: Pair

    @classmethod
    def of(cls, layer: nn.Module) -> Self | None:
        """The convolution that a layer is; None if it is no such one."""
        if not isinstance(layer, nn.Conv2d) or not layer.weight.is_floating_point():
            return None
        same = tuple(d * (size // 2) for size, d in zip(layer.kernel_size, layer.dilation, strict=True))
        padding = (
            {"same": same, "valid": (0, 0)}.get(layer.padding) if isinstance(layer.padding, str) else layer.padding
        )
        odd = all(size % 2 for size in layer.kernel_size)
        zeros = layer.padding_mode == "zeros" or same == (0, 0)
        if not (padding == same and odd and zeros and layer.stride == (1, 1)):
            return None
        if not layer.groups == layer.in_channels == layer.out_channels:
            return None
        bias = None if layer.bias is None else layer.bias.detach()
        return cls(layer.weight.detach(), bias, cast(Pair, layer.dilation))

    @property
    def num_channels(self) -> int:
        return len(self.weight)

    @property
    def kernel_size(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def taps(self) -> Tensor:
        """(C, K²): the weight of each cell of the window."""
        return self.weight.flatten(1)

    def share(self, height: int, width: int) -> Tensor | None:
        """What the whole window is multiplied with at each cell, (H, W): here nothing."""
        return None

    def __call__(self, q: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        padding = [d * (size // 2) for size, d in zip(self.kernel_size, self.dilation, strict=True)]
        return F.conv2d(q, self.weight, self.bias, padding=padding, dilation=self.dilation, groups=self.num_channels)

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another dtype."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


@dataclass(frozen=True, eq=False)
class MeanPool:
    """f as a mean over an odd window that keeps the map, whatever it divides by.

    Attributes:
        kernel_size: along rows and columns.
        count_include_pad: whether it divides by all cells of the window, or by those on the map.
        divisor: what it divides by instead, or None.
    """

    kernel_size: Pair
    count_include_pad: bool
    divisor: int | None

    @property
    def num_channels(self) -> None:
        """Any."""
        return None

    @property
    def bias(self) -> None:
        """It has none."""
        return None

    @property
    def dilation(self) -> Pair:
        return 1, 1

    @classmethod
    def of(cls, layer: nn.Module) -> Self | None:
        """The pooling that a layer is; None if it is no such one."""
        if not isinstance(layer, nn.AvgPool2d):
            return None
        size, padding = _pair(layer.kernel_size), _pair(layer.padding)
        if _pair(layer.stride) != (1, 1) or padding != (size[0] // 2, size[1] // 2) or not all(s % 2 for s in size):
            return None
        return cls(size, bool(layer.count_include_pad), layer.divisor_override)

    @property
    def taps(self) -> Tensor:
        """(1, K²): every cell of the window weighs the same, up to `share`."""
        return torch.ones(1, prod(self.kernel_size))

    def share(self, height: int, width: int) -> Tensor:
        """What a sum over the window is multiplied with at each cell, (H, W)."""
        ones = torch.ones(1, 1, height, width, dtype=torch.float64)
        return (self(ones) / self._sum(ones))[0, 0]

    def __call__(self, q: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return F.avg_pool2d(q, self.kernel_size, 1, self._padding, False, self.count_include_pad, self.divisor)

    def _sum(self, q: Tensor) -> Tensor:
        return F.avg_pool2d(q, self.kernel_size, 1, self._padding, divisor_override=1)

    @property
    def _padding(self) -> Pair:
        return self.kernel_size[0] // 2, self.kernel_size[1] // 2

    def to(self, dtype: torch.dtype) -> Self:
        """Itself: it has no numbers of its own."""
        return self


@dataclass(frozen=True, eq=False)
class ChannelNorm:
    """A LayerNorm over the channels of each cell.

    Attributes:
        weight: γ (C,).
        bias: β (C,).
        eps: ε.
    """

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any, num_channels: int, like: Tensor) -> Self | None:
        """The norm that a layer is by its parameters; None if it has other ones."""
        weight, bias, eps = (getattr(layer, name, None) for name in ("weight", "bias", "eps"))
        weight = like.new_ones(num_channels) if weight is None else weight
        bias = like.new_zeros(num_channels) if bias is None else bias
        fits = all(isinstance(part, Tensor) and part.shape == (num_channels,) for part in (weight, bias))
        return cls(weight.detach(), bias.detach(), float(eps)) if fits and isinstance(eps, int | float) else None

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another dtype."""
        return replace(self, weight=self.weight.to(dtype), bias=self.bias.to(dtype))


@dataclass(frozen=True, eq=False)
class GlobalLocal:
    """f as GF: a norm, half of the channels convolved and half of them filtered, interleaved, and a norm.

    Attributes:
        local: the convolution of the first half.
        complex_weight: (C/2, h, w, 2), the filter of the second half.
        pre_norm: of what comes in.
        post_norm: of the interleaved halves.
    """

    local: DepthwiseConv
    complex_weight: Tensor
    pre_norm: ChannelNorm
    post_norm: ChannelNorm

    @classmethod
    def of(cls, layer: Any) -> Self | None:
        """The GF layer that a module is by its parts; None if it has other ones."""
        weight = getattr(layer, "complex_weight", None)
        local = DepthwiseConv.of(getattr(layer, "dw", None))  # type: ignore[arg-type]
        if local is None or not isinstance(weight, Tensor) or weight.ndim != 4 or not weight.is_floating_point():
            return None
        if (len(weight), weight.shape[3]) != (local.num_channels, 2):
            return None
        norms = [
            ChannelNorm.of(getattr(layer, name, None), 2 * len(weight), weight) for name in ("pre_norm", "post_norm")
        ]
        return None if None in norms else cls(local, weight.detach(), *cast(list[ChannelNorm], norms))

    @property
    def num_channels(self) -> int:
        return 2 * self.local.num_channels

    def source(self, channels: Tensor) -> Tensor:
        """The input channels that output channels come from: 2m from m, 2m + 1 from C/2 + m."""
        return channels // 2 + channels % 2 * self.local.num_channels

    def filter(self, height: int, width: int) -> Tensor:
        """(C/2, H, W // 2 + 1), complex."""
        return torch.view_as_complex(resized_filter(self.complex_weight, (height, width // 2 + 1)).contiguous())

    def circular_kernel(self, height: int, width: int) -> Tensor:
        """The filter as a kernel on a map whose opposite borders touch, (C/2, H · W)."""
        kernel: Tensor = torch.fft.irfft2(self.filter(height, width), s=(height, width)).flatten(1)
        return kernel

    def interleaved(self, z: Tensor) -> Tensor:
        """What lies between the norms, the linear part: (B, C, H, W) → (B, C, H, W)."""
        H, W = z.shape[2:]
        spectrum = torch.fft.rfft2(z[:, self.local.num_channels :]) * self.filter(H, W)
        halves = [self.local(z[:, : self.local.num_channels]), torch.fft.irfft2(spectrum, s=(H, W))]
        return torch.stack(halves, dim=2).flatten(1, 2)

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another dtype."""
        parts = {name: getattr(self, name).to(dtype) for name in ("local", "complex_weight", "pre_norm", "post_norm")}
        return replace(self, **parts)


Window = DepthwiseConv | MeanPool  # kinds of f that are linear and see a window
Depthwise = DepthwiseConv | MeanPool | GlobalLocal


def depthwise_kind(layer: nn.Module) -> Depthwise | None:
    """Which kind of f a layer is; None if none of them.

    Example:
        >>> depthwise_kind(nn.AvgPool2d(3, 1, 1)).kernel_size, depthwise_kind(nn.MaxPool2d(3, 1, 1))
        ((3, 3), None)
    """
    return DepthwiseConv.of(layer) or MeanPool.of(layer) or GlobalLocal.of(layer)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
